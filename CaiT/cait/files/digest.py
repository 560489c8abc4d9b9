"""Checksums of files."""

import hashlib
import math
import os

CHUNK_BYTES = 1 << 20


def sha256_of(path: str | os.PathLike, size: int | None = None) -> str:
    """Hexadecimal SHA-256 of a file, or of its first `size` bytes."""
    digest, left = hashlib.sha256(), math.inf if size is None else size
    with open(path, "rb") as file:
        while chunk := file.read(int(min(CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
