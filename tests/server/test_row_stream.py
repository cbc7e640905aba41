"""One row as an iterator: only time that the engine waited for its reader is starved time."""

from chattts_server.engine.nouns import Chunk, Finish
from chattts_server.engine.row_stream import RowStream

SECOND = b"\0" * 4 * 24000


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def row_of(clock, credit_seconds):
    return RowStream(1, True, credit_seconds * 24000, lambda _: None, lambda _: None, clock)


async def test_the_engine_waits_for_a_reader_without_credit():
    clock = Clock()
    row = row_of(clock, 2)
    row.deliver(Chunk(1, 0, SECOND))
    assert await anext(row) == SECOND
    row.deliver(Chunk(1, 1, SECOND))
    row.deliver(Chunk(1, 2, SECOND))
    clock.now = 5.0
    assert await anext(row) == SECOND
    assert row.starved_seconds == 5.0


async def test_a_row_that_is_made_ahead_has_no_slow_reader_yet():
    """A long text's second piece is made while its first one is read: it stands still for nobody's sake."""
    clock = Clock()
    row = row_of(clock, 1)
    row.deliver(Chunk(1, 0, SECOND))
    clock.now = 5.0
    assert await anext(row) == SECOND
    assert row.starved_seconds == 0.0


async def test_nothing_waits_for_the_reader_of_a_finished_row():
    clock = Clock()
    row = row_of(clock, 1)
    row.deliver(Chunk(1, 0, SECOND))
    row.deliver(Finish(1, "end", 0, 47, 0.0))
    clock.now = 5.0
    assert [pcm async for pcm in row] == [SECOND]
    assert (row.starved_seconds, row.finished_at) == (0.0, 0.0)
