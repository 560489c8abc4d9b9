"""That callers cannot fill the log, nor write into it what steers a terminal."""

import io
import logging

import pytest

from cait.serve import access_log
from cait.serve.access_log import Bounded, Tally

pytestmark = pytest.mark.any_paddle


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def logged():
    """A logger that is bounded to three records a period, what it has written, and its clock."""
    stream, clock = io.StringIO(), Clock()
    logger = logging.Logger("test")
    logger.addHandler(Bounded(logging.StreamHandler(stream), 3, clock))
    return logger, stream, clock


def test_a_period_has_so_many_records_and_the_next_one_says_what_was_left_out(logged):
    logger, stream, clock = logged
    for number in range(1000):
        logger.error("fault %d", number)
    assert stream.getvalue() == "ERROR: fault 0\nERROR: fault 1\nERROR: fault 2\n"
    clock.now = access_log.PERIOD_SECONDS
    logger.error("another")
    words = "WARNING: 997 more messages were left out; no more than 3 a minute are written"
    assert stream.getvalue().splitlines()[3:] == [words, "ERROR: another"]
    clock.now *= 2
    logger.error("the last")
    assert stream.getvalue().splitlines()[5:] == ["ERROR: the last"]


def test_a_record_is_cut_and_steers_no_terminal(logged):
    logger, stream, _ = logged
    logger.error("a\nERROR: forged\x1b[2J\u202e \u4f60\u597d %s", "\udcff\x9b")
    assert stream.getvalue() == "ERROR: a\\nERROR: forged\\x1b[2J\\u202e \u4f60\u597d \\udcff\\x9b\n"
    try:
        raise ValueError("x" * 100_000 + "\x1b[2J")
    except ValueError:
        logger.exception("it failed")
    text = stream.getvalue()
    assert len(text) < access_log.MAX_CHARACTERS + 200 and "characters left out" in text
    assert "Traceback (most recent call last):\n" in text and "\x1b" not in text


def test_what_callers_do_wrong_is_one_line_a_minute(caplog):
    clock = Clock()
    tally = Tally(clock)
    for _ in range(500):
        tally.add("invalid")
        tally.tell()
    tally.add("late")
    assert not caplog.messages
    for _ in range(3):
        clock.now += access_log.PERIOD_SECONDS
        tally.tell()
    assert caplog.messages == ["connections refused or closed in the last 60 seconds: invalid: 500, late: 1"]


def test_the_service_opens_it(monkeypatch):
    root, stream = logging.RootLogger(logging.WARNING), io.StringIO()
    monkeypatch.setattr(logging, "root", root)
    access_log.open_log(stream)
    for number in range(100):
        root.error("fault %d", number)
    assert len(stream.getvalue().splitlines()) == access_log.RECORDS
