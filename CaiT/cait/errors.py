"""Errors a user can cause, and the words of their messages, which are one line whatever a file is called.

`cait.command.run` ends a command on such an error with its sentence and exit code.
"""

import reprlib
from collections.abc import Sequence
from typing import Any

_BLANKS = "\t\u00a0\u3000"  # which Python calls not printable, but which do no harm


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


def one_line(text: object) -> str:
    r"""The text as it may stand in a line on a terminal or in a log.

    Characters that end a line, steer a terminal or turn the direction of writing become escapes such as `\x1b`, as
    Python writes them; letters of all languages and blanks stay as they are.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in _BLANKS else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
