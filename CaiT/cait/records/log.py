"""The log: lines as `0506 02:32:54 PM text`, to the console and to a file."""

import logging
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cait.command.streams import is_terminal
from cait.errors import one_line

LINE_FORMAT = "%(asctime)s %(message)s"
DATE_FORMAT = "%m%d %I:%M:%S %p"


class Lines(logging.Formatter):
    """Each record's message is one line without control characters; a traceback stands below it, line by line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """Like the method of `logging.Formatter`."""
        return one_line(super().formatMessage(record))

    def formatException(self, ei) -> str:  # noqa: N802 (logging's name)
        """Like the method of `logging.Formatter`."""
        return "\n".join(map(one_line, super().formatException(ei).split("\n")))


class _File(logging.Handler):
    """Lines at the end of a file. Where one cannot be written, that is said once, and the run goes on."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self._path, self._has_failed = path, False
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by `close`)

    def emit(self, record: logging.LogRecord) -> None:
        """Appends the record's line."""
        line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            if not self._has_failed and sys.stderr is not None:
                words = f"{self._path}: the log cannot be written ({error.strerror}); the run goes on"
                print(f"warning: {words}", file=sys.stderr, flush=True)
            self._has_failed = True

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()


def open_log(path: pathlib.Path | None) -> logging.Logger:
    """A logger that prints to standard output and appends to `path`; None: one that is silent."""
    log = logging.getLogger("cait")
    log.disabled = path is None
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in list(log.handlers):  # a second job in one process writes to its own file only
        log.removeHandler(handler)
        handler.close()
    if path is None:
        return log
    console = [] if sys.stdout is None else [logging.StreamHandler(sys.stdout)]
    for handler in (*console, _File(path)):
        handler.setFormatter(Lines(LINE_FORMAT, DATE_FORMAT))
        log.addHandler(handler)
    return log


def progress(items: Iterable, log: logging.Logger, total: int, description: str, done: int = 0) -> Iterator[Any]:
    """Yields the items under a tqdm bar, above which log lines stay; without one off a terminal, or with a silent log.

    Args:
        total: number of items, those included that are `done` before.
    """
    if log.disabled or not is_terminal(sys.stderr):
        yield from items
        return
    with logging_redirect_tqdm([log]):
        yield from tqdm(items, total=total, initial=done, desc=description, leave=False, dynamic_ncols=True)
