"""Names of classes."""

import os
import pathlib
import re

from cait.errors import CaitError
from cait.files import read_lines

IMAGENET1K = pathlib.Path(__file__).with_name("imagenet1k_labels.txt")
_LINE = re.compile(r"([0-9]{1,9})\s+(?:(n\d{8})\s+)?(\S.*)")


def _rows(path: str | os.PathLike) -> list[tuple[str | None, str]]:
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        match = _LINE.fullmatch(line.strip())
        if match is None or int(match[1]) != number - 1:
            raise CaitError(f"{path}: line {number} must be `{number - 1} name`, not {line!r}")
        rows.append((match[2], match[3]))
    if not rows:
        raise CaitError(f"{path}: holds no class names")
    return rows


def read_class_names(path: str | os.PathLike) -> list[str]:
    """Class names from lines `index name` or `index WordNet-id name`, indices from 0 without a gap.

    Raises:
        CaitError: the file is missing or a line is of another form; the message names it.
    """
    return [name for _, name in _rows(path)]


def imagenet1k_wordnet_ids() -> list[str]:
    """The WordNet ids of ImageNet-1k; the position of an id is its class index."""
    return [wordnet_id or "" for wordnet_id, _ in _rows(IMAGENET1K)]
