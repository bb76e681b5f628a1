"""What a stream has sent, minute by minute."""

import json

from portcullis.cycler.history import MINUTES, History

MINUTE = 30_000_000
WALL = MINUTE * 60.0


def test_a_minute_is_the_mean_of_what_was_sent_in_it() -> None:
    """1000 packets in 30 s are 50 kbit/s; the last row grows until the next minute begins."""
    history = History()
    history.note(WALL, 500, 1000)
    assert history.rows() == []
    history.note(WALL + 30, 1500, 1000)
    assert history.rows() == [(MINUTE, 50, 1000)]
    history.note(WALL + 60, 1500, 800)
    history.note(WALL + 70, 1500, 800)
    assert history.rows() == [(MINUTE, 50, 1000), (MINUTE + 1, 0, 800)]


def test_the_next_holder_goes_on_with_it_and_an_hour_is_kept() -> None:
    """A note that says nothing, or nonsense, leaves it as it is."""
    history = History()
    for second in range(0, 7200, 30):
        history.note(WALL + second, second, 1000)
    assert len(history.rows()) == MINUTES
    other = History()
    for nothing in ("{}", "no JSON", '{"history": 5}', '{"history": [["a", 1, 2]]}'):
        other.take_over(nothing)
        assert other.rows() == []
    other.take_over(json.dumps({"history": history.rows()}))
    assert other.rows() == history.rows()
