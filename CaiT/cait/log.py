"""The log: lines as `0506 02:32:54 PM text`, to the console and to a file."""

import logging
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

LINE_FORMAT = "%(asctime)s %(message)s"
DATE_FORMAT = "%m%d %I:%M:%S %p"


class _Console(logging.StreamHandler):
    """Standard output, given up when its reader is gone: the run goes on, and the file has every line."""

    def handleError(self, record):  # noqa: N802 (the name is logging's)
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
        logging.getLogger("cait").removeHandler(self)


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
    for handler in (_Console(sys.stdout), logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")):
        handler.setFormatter(logging.Formatter(LINE_FORMAT, DATE_FORMAT))
        log.addHandler(handler)
    return log


def progress(items: Iterable, log: logging.Logger, total: int, description: str, done: int = 0) -> Iterator[Any]:
    """Yields the items under a tqdm bar, above which log lines stay; without one off a terminal, or with a silent log.

    Args:
        total: number of items, those included that are `done` before.
    """
    if log.disabled or not sys.stderr.isatty():
        yield from items
        return
    with logging_redirect_tqdm([log]):
        yield from tqdm(items, total=total, initial=done, desc=description, leave=False, dynamic_ncols=True)
