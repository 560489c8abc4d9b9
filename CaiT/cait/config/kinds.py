"""The kinds of values that config keys take: for each, its description and the function that reads it."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from cait.files import user_path


class Kind(NamedTuple):
    """What values a key takes: `text` says it, `parse` returns the value or raises ValueError."""

    text: str
    parse: Callable[[Any], Any]


def _number(kind: type, low: float, high: float | None, optional: bool, open_low: bool = False) -> Kind:
    noun = "a whole number" if kind is int else "a number"
    bounds = f"{'above' if open_low else 'from'} {low}" + (f" to {high}" if high is not None else "")
    text = f"{noun} {bounds}" + (", or null" if optional else "")

    def parse(value):
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        number = float(value)  # YAML reads 1e-5 as text: a number needs a dot there
        if kind is int and number != int(number):
            raise ValueError
        if not (number > low if open_low else number >= low) or (high is not None and number > high):
            raise ValueError
        if number == float("inf"):
            raise ValueError
        return kind(number)

    return Kind(text, parse)


def integer(low: int, high: int | None = None, optional: bool = False) -> Kind:
    """A whole number from `low` to `high`."""
    return _number(int, low, high, optional)


def number(low: float, high: float | None = None, optional: bool = False, open_low: bool = False) -> Kind:
    """A finite number from (or above) `low` to `high`."""
    return _number(float, low, high, optional, open_low)


def choice(*names: str) -> Kind:
    """One of some words."""

    def parse(value):
        if value not in names:
            raise ValueError
        return value

    return Kind("one of " + ", ".join(names), parse)


def numbers(low: float, high: float, length: int | None = None) -> Kind:
    """A list of numbers, all from `low` to `high`."""
    item = number(low, high)
    count = f"{length} " if length else ""

    def parse(value):
        if not isinstance(value, (list, tuple)) or not value or (length and len(value) != length):
            raise ValueError
        return [item.parse(v) for v in value]

    return Kind(f"a list of {count}numbers from {low} to {high}", parse)


def _parse_flag(value):
    words = {"true": True, "false": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if not isinstance(value, bool):
        raise ValueError
    return value


def _parse_precision(value):
    words = {"fp32": False, "fp16": True, "amp": True}
    return words[value] if isinstance(value, str) and value in words else _parse_flag(value)


def _parse_log_name(value):
    if value and (pathlib.PurePath(_parse_text(value)).name != value or not value.endswith((".log", ".txt"))):
        raise ValueError
    return _parse_text(value)


def _parse_text(value):
    if not isinstance(value, str):
        raise ValueError
    return value


def _parse_path(value):
    return user_path(_parse_text(value))


def _parse_size(value):
    pair = value if isinstance(value, (list, tuple)) else [value, value]
    if len(pair) != 2:
        raise ValueError
    return [integer(1, 8192).parse(side) for side in pair]


FLAG = Kind("true or false", _parse_flag)
PRECISION = Kind("true or false, or as benchmarks say: fp16 or amp (true), fp32 (false)", _parse_precision)
TEXT = Kind("text", _parse_text)
LOG_NAME = Kind("empty, or a file name that ends in .log or .txt", _parse_log_name)
PATH = Kind("a path", _parse_path)
SIZE = Kind("a whole number, or [height, width]", _parse_size)
