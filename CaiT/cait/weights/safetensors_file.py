"""Reads `.safetensors` files: the header is checked, and what is wrong with it named, before any tensor is read.

The format: the header's length in 8 bytes; the header, JSON with type, shape and place of each tensor; the tensors.
"""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any, TypeGuard

import numpy as np

from cait.errors import CaitError, shown

# Bytes of a number in each type that NumPy has.
_READ = {"F64": 8, "F32": 4, "F16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "BOOL": 1}
_READ |= {"U64": 8, "U32": 4, "U16": 2, "U8": 1}
MAX_HEADER_BYTES = 16 << 20  # a thousand tensors need a hundredth of it
MAX_DIMENSIONS = 32
_METADATA = "__metadata__"  # in the header, beside the tensors


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name.

    Raises:
        CaitError: the file is damaged, or holds a type that NumPy does not have, which the message names.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    check_header(path)
    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CaitError(f"{path}: not a safetensors file, or damaged: {shown(str(error), bare=True)}") from error


def check_header(path: pathlib.Path) -> None:
    """Demands a header that fits the file: names once, known types, and places side by side up to the file's end.

    Raises:
        CaitError: names the tensor and what is wrong with it.
    """
    with _naming(path):
        header, data_bytes = _header(path)
        places = sorted(_place(name, entry) for name, entry in header.items() if name != _METADATA)
    end = 0
    for start, stop, name in places:
        if start != end:
            problem = "overlaps another tensor" if start < end else "does not follow the tensor before it"
            raise CaitError(f"{path}: not a safetensors file, or damaged: {shown(name)} {problem}")
        end = stop
    if end != data_bytes:
        raise CaitError(
            f"{path}: not a safetensors file, or damaged: its tensors take {end} bytes, and it has {data_bytes}"
        )


def read_metadata(path: pathlib.Path) -> dict[str, str]:
    """Reads the metadata of a file, text by name; empty if it has none.

    Raises:
        CaitError: the header cannot be read, or the metadata is something else.
    """
    with _naming(path):
        found = _header(path)[0].get(_METADATA)
        if found is None:
            return {}
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise ValueError("its metadata is no table of text")
    return found


def _header(path: pathlib.Path) -> tuple[dict[str, Any], int]:
    """The header, and how many bytes follow it; ValueError or RecursionError if it is none."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"its header is said to have {length} bytes")
        header = json.loads(file.read(length), object_pairs_hook=_once)
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    return header, size - 8 - length


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    """Within it, what is wrong with a header is the CaitError of that file."""
    try:
        yield
    except (ValueError, RecursionError) as error:  # no JSON raises one, too
        reason = "its header is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise CaitError(f"{path}: not a safetensors file, or damaged: {reason[:300]}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {shown(next(name for name in names if names.count(name) > 1))} twice")
    return found


def _place(name: str, entry: Any) -> tuple[int, int, str]:
    """First byte, the one after the last, and the name of a tensor."""
    if not isinstance(entry, dict):
        raise ValueError(f"{shown(name)} is no tensor")
    kind, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if kind == "BF16":
        raise ValueError(f"{shown(name)} is in bfloat16; save the weights in float32")
    if not isinstance(kind, str) or kind not in _READ:
        raise ValueError(f"{shown(name)} is in {shown(kind)}, which is not read; save the weights in float32")
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"{shown(name)} has the shape {shown(shape)}")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * _READ[kind]:
        raise ValueError(f"{shown(name)} of type {kind} and shape {shown(shape)} lies at {shown(offsets)}")
    return offsets[0], offsets[1], name


def _are_counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)
