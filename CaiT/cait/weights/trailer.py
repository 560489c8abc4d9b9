"""What a checkpoint file says of itself at its end: the SHA-256 of its content, and what is wanted without reading it.

`.pdparams` and `.pdstates` are pickles. Whoever loads a pickle stops where it ends, so `paddle.load` does not see what
follows. The record stands in the file and not beside it, so that the two can never come apart: whatever is copied,
linked or put in its place, and whenever a write is broken off. Such a file is, in order:

- the pickle that `paddle.save` wrote,
- the record, JSON in UTF-8: `sha256`, of the pickle, and facts such as `epoch`, `classes` and `input`,
- 32 bytes: the SHA-256 of the record,
- 8 bytes: the length of the record in bytes, little-endian,
- 8 bytes: MARK.

Other files have no record, and are loaded unchecked.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from typing import Any

from cait.errors import CaitError
from cait.files import cannot_be_read
from cait.files.digest import sha256_of

MARK = b"cait\0\0\0\x01"  # the last byte is the version
_FOOTER = struct.Struct("<32sQ8s")
PICKLE_END = b"."
ADVICE = "copy it again from where it is whole, or take another checkpoint"


def append_record(path: str | os.PathLike, facts: Mapping[str, Any]) -> None:
    """Adds the record to a file that `paddle.save` wrote.

    Args:
        facts: what JSON can hold.

    Raises:
        OSError: the file cannot be read or written.
    """
    record = json.dumps({"sha256": sha256_of(path), **facts}).encode()
    with open(path, "ab") as file:
        file.write(record + _FOOTER.pack(hashlib.sha256(record).digest(), len(record), MARK))


def read_record(path: str | os.PathLike) -> dict[str, Any] | None:
    """The record of a `.pdparams` or `.pdstates` file; None if it has none. The content is not read.

    Raises:
        CaitError: the file cannot be read, or its end is damaged.
    """
    try:
        return _read(path)[0]
    except OSError as error:
        raise cannot_be_read(path, error) from error


def check_content(path: str | os.PathLike) -> None:
    """Reads a file that has a record, and compares its content with it.

    Raises:
        CaitError: the file cannot be read, or a byte of it is not as it was saved.
    """
    try:
        record, size = _read(path)
        if record is not None and sha256_of(path, size) != record.get("sha256"):
            raise CaitError(f"{path}: damaged (its content does not have the SHA-256 saved with it); {ADVICE}")
    except OSError as error:
        raise cannot_be_read(path, error) from error


def is_whole(path: str | os.PathLike) -> bool:
    """Whether a file passes `check_content`."""
    try:
        check_content(path)
    except CaitError:
        return False
    return True


def _read(path: str | os.PathLike) -> tuple[dict[str, Any] | None, int]:
    """The record, and the size of the content in bytes."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _FOOTER.size))
        end = file.read()
        if not end.endswith(MARK):
            if not end.endswith(PICKLE_END):
                raise CaitError(f"{path}: not a Paddle checkpoint, or damaged (its end is not that of one)")
            return None, size
        digest, length, _ = _FOOTER.unpack(end) if len(end) == _FOOTER.size else (b"", size, b"")
        size -= _FOOTER.size + length
        file.seek(max(0, size))
        record = file.read(length) if size >= 0 else b""
    if hashlib.sha256(record).digest() != digest:
        raise CaitError(f"{path}: damaged (its end is not as it was saved); {ADVICE}")
    try:
        found = json.loads(record)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):  # whoever wrote it has written a checksum as well
        raise CaitError(f"{path}: not a checkpoint of this project (its record is no table of JSON); {ADVICE}")
    return found, size
