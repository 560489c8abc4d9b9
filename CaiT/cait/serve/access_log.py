"""The log of the service, which callers cannot grow beyond a bound."""

import collections
import logging
import time
from collections.abc import Callable

from cait.records.log import Lines

LOGGER = logging.getLogger(__name__)
PERIOD_SECONDS = 60.0
RECORDS = 20  # in a period
MAX_CHARACTERS = 10_000  # of a record with its traceback


class _Lines(Lines):
    """Lines whose records are cut where they are long."""

    def __init__(self):
        super().__init__("%(levelname)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Like the method of `logging.Formatter`."""
        text = super().format(record)
        if len(text) <= MAX_CHARACTERS:
            return text
        half = MAX_CHARACTERS // 2
        return f"{text[:half]}\n... ({len(text) - 2 * half} characters left out)\n{text[-half:]}"


class Bounded(logging.Handler):
    """Passes a number of records on in each period, and of the others only how many they were.

    Args:
        handler: what it passes them on to.
        records: in a period.
        clock: seconds.
    """

    def __init__(self, handler: logging.Handler, records: int = RECORDS, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        handler.setFormatter(_Lines())
        self._handler, self._records, self._clock = handler, records, clock
        self._began, self._passed, self._left_out = clock(), 0, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Passes the record on, or counts it."""
        self.begin_anew()
        if self._passed < self._records:
            self._passed += 1
            self._handler.emit(record)
        else:
            self._left_out += 1

    def begin_anew(self) -> None:
        """Begins the next period where it is time, and tells what was left out in the last one."""
        if self._clock() - self._began < PERIOD_SECONDS:
            return
        left_out = self._left_out
        self._began, self._passed, self._left_out = self._clock(), 0, 0
        if left_out:
            words = "%d more messages were left out; no more than %d a minute are written"
            self._handler.emit(_record(words, left_out, self._records))


def _record(words: str, *values) -> logging.LogRecord:
    return logging.LogRecord(LOGGER.name, logging.WARNING, __file__, 0, words, values, None)


class Tally:
    """Counts what callers do wrong, and says so in one line a period.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._began = clock, clock()
        self._counts: collections.Counter[str] = collections.Counter()

    def add(self, reason: str) -> None:
        """Counts one; the reason is one of the service's own words."""
        self._counts[reason] += 1

    def tell(self) -> None:
        """Writes the line where it is time and there is something to say."""
        if self._clock() - self._began < PERIOD_SECONDS:
            return
        if self._counts:
            counts = ", ".join(f"{reason}: {number}" for reason, number in sorted(self._counts.items()))
            seconds = self._clock() - self._began
            LOGGER.warning("connections refused or closed in the last %d seconds: %s", seconds, counts)
        self._began = self._clock()
        self._counts.clear()


def open_log(stream) -> None:
    """Makes the root logger write to a stream, within bounds."""
    logging.basicConfig(handlers=[Bounded(logging.StreamHandler(stream))], level=logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # which writes a line for every odd form
