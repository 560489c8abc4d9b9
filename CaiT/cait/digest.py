"""Checksums of files."""

import hashlib
import os

CHUNK_BYTES = 1 << 20


def sha256_of(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
