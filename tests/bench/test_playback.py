"""A listener's view of chunks, worked out by hand."""

from bench.engine.playback import gaps, underruns

SECOND_EACH = [(10.0, 1.0), (10.5, 1.0), (12.5, 1.0)]


def test_a_player_in_real_time_waits_once_for_the_late_chunk():
    assert underruns(SECOND_EACH, 1.0) == 1  # two seconds from 10.0 on are played at 12.0


def test_a_slower_player_does_not_wait():
    assert underruns(SECOND_EACH, 0.5) == 0


def test_after_a_wait_the_player_starts_with_what_has_come():
    assert underruns([(0.0, 1.0), (3.0, 1.0), (3.9, 1.0), (5.5, 1.0)], 1.0) == 2


def test_gaps_are_between_neighbours():
    assert gaps(SECOND_EACH) == [0.5, 2.0]
    assert gaps([(1.0, 1.0)]) == []
