"""Errors a user can cause; `cait.command.run` ends a command on them with one sentence and their exit code."""

import reprlib
from collections.abc import Sequence
from typing import Any

from cait.lines import one_line


class CaitError(ValueError):
    """Something a user can mend: a broken file, a wrong checkpoint, a folder that cannot be written.

    Its words are one line that may be printed, whatever the names of files in it are.
    """

    exit_code = 1

    def __str__(self):
        return one_line(super().__str__())


class UsageError(CaitError):
    """The command or its config is wrong: an unknown key, a bad value, flags that exclude each other."""

    exit_code = 2


class _Short(reprlib.Repr):
    """A few parts of a value, and nothing of a number that has thousands of digits."""

    def __init__(self):
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 80, 80

    def repr_int(self, value: int, level: int) -> str:
        return super().repr_int(value, level) if value.bit_length() < 512 else f"a number of {value.bit_length()} bits"

    def repr_date(self, value: object, level: int) -> str:
        return str(value)

    repr_datetime = repr_date


def shown(value: Any, bare: bool = False) -> str:
    """A value of a file or a request for a message: in one line, short, and without control characters.

    Args:
        bare: text without quotes, where it is short and printable.
    """
    if bare and isinstance(value, str) and value.isprintable() and len(value) <= 80:
        return value
    return _Short().repr(value)


def listed(words: Sequence[str], most: int) -> str:
    """The first of some words for a message, and how many more there are."""
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more} more" if more > 0 else "")
