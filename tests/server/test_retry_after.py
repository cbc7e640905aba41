"""What a Retry-After is worth, and who gets how much of a full server: real decisions in virtual time (crowd.py)."""

import random

import pytest

from tests.server.crowd import CAPACITY, MEAN_SECONDS, RATE, Crowd, poisson

SEEDS = range(12)


def burst(seed, **kinds):
    """Three times what can be done for 20 s, then half of it."""
    phases = (0, 20, 3 * CAPACITY), (20, 120, 0.5 * CAPACITY)
    return Crowd(seed, **kinds).arrive(poisson(random.Random(-seed - 1), *phases)).run(240)


def first_retries(crowd):
    """(how many were refused, the share of them that got in when they came again)"""
    refused = [request for request in crowd.requests if request.told]
    return len(refused), sum(request.tries == 2 and request.admitted is not None for request in refused) / len(refused)


@pytest.mark.parametrize("max_wait", [3.0, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_who_obeys_gets_in_on_the_first_retry(seed, max_wait):
    crowd = burst(seed, max_wait=max_wait)
    refused, kept = first_retries(crowd)
    assert refused > 400
    assert kept >= 0.95
    assert all(request.finished is not None for request in crowd.requests)
    told = [seconds for request in crowd.requests for seconds in request.told]
    assert 1 <= min(told) <= max(told) <= 60
    assert len(set(told)) > 20, "spread, not all at once"
    assert crowd.longest_queue <= max_wait + 1.0 + 0.3  # the bound, the second of rounding, the last one's own audio


def test_most_get_in_even_when_many_ask_for_the_same_words():
    """Twelve texts from one address: a newcomer may be taken for one who was expected. Mostly it is not."""
    assert min(first_retries(burst(seed, texts=12))[1] for seed in SEEDS) >= 0.9
    assert min(first_retries(burst(seed, texts=1))[1] for seed in SEEDS) >= 0.7  # the worst that there is


def test_without_appointments_the_same_retries_find_the_door_shut():
    """What the book is for: when nobody is known again, those who obey get in by luck."""

    class Stranger(Crowd):
        def _knock(self, request):
            request.fingerprint = self.random.getrandbits(62)
            super()._knock(request)

    phases = (0, 20, 3 * CAPACITY), (20, 120, 0.5 * CAPACITY)
    crowd = Stranger(1).arrive(poisson(random.Random(-2), *phases)).run(240)
    assert first_retries(crowd)[1] < 0.6


@pytest.mark.parametrize("obey", [0.0, 0.5])
def test_places_are_not_kept_for_those_who_do_not_come(obey):
    """The engine stays busy through the overload, and the bound for newcomers is nearly the whole queue again."""
    crowd = Crowd(3, obey=obey).arrive(poisson(random.Random(9), (0, 60, 3 * CAPACITY))).run(60)
    assert sum(crowd.served.values()) >= 0.93 * 60 * RATE  # the first batch has to be spoken, too
    assert crowd.admission.appointments.show < (0.8 if obey else 0.1)
    if obey == 0.0:
        assert crowd.admission._newcomers_bound(60.0) > 0.8 * 3.0


def shares(crowd, callers):
    return [crowd.served[caller] / (sum(crowd.served.values()) / len(callers)) for caller in callers]


@pytest.mark.parametrize("seed", range(2))
def test_under_lasting_overload_nobody_starves(seed):
    """Sixty clients in a closed loop, three times what can be done: ten minutes, and each has its share within 20 %."""
    crowd, names = Crowd(seed), [f"client {number}" for number in range(60)]
    tally = dict.fromkeys(names, 0.0)
    for name in names:
        crowd.at(0.0, lambda name=name: loop(crowd, tally, name))
    crowd.run(1200)
    mean = sum(tally.values()) / len(tally)
    assert mean > 0.85 * 1200 * RATE / 60
    assert max(abs(seconds / mean - 1) for seconds in tally.values()) <= 0.2


def loop(crowd, tally, name):
    """One client among others without a key; requests of one length, so that only the number of turns can differ."""

    def ended():
        tally[name] += request.actual
        crowd.at(crowd.now + 0.01, lambda: loop(crowd, tally, name))

    request = crowd.request("", ended)
    request.predicted = request.actual = MEAN_SECONDS
    crowd._knock(request)


@pytest.mark.parametrize("obey", [0.0, 1.0])
def test_keys_share_evenly_however_many_requests_each_sends(obey):
    """One key floods with ten times what can be done, another asks for 60 % of it, and has a half."""
    crowd = Crowd(5, obey=obey)
    crowd.arrive(poisson(random.Random(1), (0, 120, 10 * CAPACITY)), "flood")
    crowd.arrive(poisson(random.Random(2), (0, 120, 0.6 * CAPACITY)), "steady")
    crowd.run(120)
    assert all(0.8 <= share <= 1.2 for share in shares(crowd, ["flood", "steady"]))


def waits(crowd, caller):
    return sorted(request.started - request.born for request in crowd.requests if request.caller == caller)


def test_a_key_that_comes_rarely_does_not_notice_one_that_floods():
    """Its rows go past the backlog of the other: it waits for a slot, not for the queue."""
    crowd = Crowd(6, obey=0.0)
    crowd.arrive(poisson(random.Random(1), (0, 120, 10 * CAPACITY)), "flood")
    crowd.arrive(poisson(random.Random(2), (5, 115, 0.1 * CAPACITY)), "rare")
    crowd.run(140)
    rare = [request for request in crowd.requests if request.caller == "rare"]
    assert len(rare) > 60
    assert all(request.tries == 1 and request.admitted is not None for request in rare)
    assert waits(crowd, "rare")[len(rare) // 2] < 0.6
    assert waits(crowd, "rare")[int(0.99 * len(rare))] < 1.5  # a row takes a second, and four wait in the engine
    flood = sorted(r.started - r.born for r in crowd.requests if r.caller == "flood" and r.started is not None)
    assert flood[len(flood) // 2] > 1.5  # which waits, as a full server lets it
