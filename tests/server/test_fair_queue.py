"""Whose row goes next: fair by predicted audio seconds, and never more rows inside than there are places."""

from hypothesis import given
from hypothesis import strategies as st

from chattts_server.fair_queue import FairQueue


class Door:
    def __init__(self, places):
        self.queue, self.order, self.turns = FairQueue(places), [], []

    def enter(self, caller, cost=1.0):
        number = len(self.turns)
        self.turns.append(self.queue.enter(caller, cost, lambda _: self.order.append((caller, number))))
        return self.turns[-1]

    def end_all(self):
        """Each row that is inside leaves, and so the next comes in, until nobody is left."""
        ended = 0
        while ended < len(self.order):
            self.queue.leave(self.turns[self.order[ended][1]])
            ended += 1
        return "".join(caller for caller, _ in self.order)


def test_without_keys_the_order_is_that_of_arrival():
    door = Door(2)
    for _ in range(10):
        door.enter("a")
    door.end_all()
    assert [number for _, number in door.order] == list(range(10))


def test_a_late_caller_goes_past_the_backlog_of_another():
    door = Door(1)
    for _ in range(6):
        door.enter("a")
    for _ in range(2):
        door.enter("b")
    assert door.end_all() == "ababaaaa"


def test_fair_means_seconds_not_rows():
    door = Door(1)
    door.enter("x", 0.1)
    for _ in range(4):
        door.enter("a", 4.0)
    for _ in range(8):
        door.enter("b", 1.0)
    assert door.end_all() == "xab" + "bbba" + "bbbb" + "aa"


def test_who_leaves_while_it_waits_is_never_started():
    door = Door(1)
    first, second, third = door.enter("a"), door.enter("a"), door.enter("a")
    door.queue.leave(second)
    door.queue.leave(second)
    door.queue.leave(first)
    door.queue.leave(third)
    assert [number for _, number in door.order] == [0, 2]
    assert (door.queue.waiting, door.queue._inside) == (0, 0)


def test_a_start_that_leaves_at_once_does_not_grow_the_stack():
    queue, turns = FairQueue(0), []
    for _ in range(5000):
        turns.append(queue.enter("a", 1.0, queue.leave))
    queue.places = 1
    queue.let_in()
    assert {turn.state for turn in turns} == {"left"}
    assert queue._inside == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 10), st.booleans()), max_size=80), st.integers(1, 5))
def test_never_more_inside_than_places_and_nobody_is_forgotten(rows, places):
    door = Door(places)
    for caller, cost, one_leaves in rows:
        door.enter(caller, cost)
        assert door.queue._inside <= places
        if one_leaves and door.order:
            door.queue.leave(door.turns[door.order[0][1]])
    door.end_all()
    assert sorted(number for _, number in door.order) == list(range(len(rows)))


def test_what_left_before_its_turn_costs_its_caller_nothing():
    """Else a client that gives up and asks again would wait behind all that it never had."""

    def order(leaves):
        door = Door(1)
        door.enter("x")
        waiting = [door.enter("a", 50.0) for _ in range(3)]
        if leaves:
            for turn in waiting:
                door.queue.leave(turn)
        for _ in range(3):
            door.enter("b")
            door.enter("a")
        return door.end_all()

    assert order(leaves=True) == "xbababa"
    assert order(leaves=False) == "xabbbaaaaa"
