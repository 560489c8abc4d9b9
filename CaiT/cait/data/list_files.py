"""List files: text files with a line for each image, its path and, where there is one, its label."""

import os
import pathlib
import re
from collections.abc import Iterable, Sequence

from cait.data.decoding import has_image_suffix
from cait.errors import CaitError, UsageError
from cait.files import read_lines, user_path

BLANKS = " \t"


def list_lines(path: pathlib.Path) -> list[tuple[int, str]]:
    """The lines of a list that are not empty, each with its number from 1.

    Raises:
        CaitError: the list is missing, unreadable or empty.
    """
    if not path.is_file():
        raise CaitError(f"{path}: no such list; dataset/README.md shows what a data folder holds")
    lines = [(number, line.strip(BLANKS)) for number, line in enumerate(read_lines(path), 1)]
    lines = [(number, line) for number, line in lines if line.strip()]
    if not lines:
        raise CaitError(f"{path}: the list is empty")
    return lines


def read_labelled(path: pathlib.Path, root: pathlib.Path, num_classes: int) -> tuple[list[str], list[int]]:
    """Paths and labels of lines `relative/path label`; the label is the last word, so paths may hold blanks.

    Raises:
        CaitError: the list is missing or empty, or a line is malformed or its label out of range.
    """
    names, labels = [], []
    for number, line in list_lines(path):
        name, *words = line.rsplit(maxsplit=1)
        if not words or not re.fullmatch(r"[0-9]{1,9}", words[0]):
            raise CaitError(f"{path}: line {number} must be `relative/path label`, not {line!r}")
        label = int(words[0])
        if label >= num_classes:
            raise CaitError(
                f"{path}: line {number} has label {label}, but MODEL.NUM_CLASSES is {num_classes} (labels from 0)"
            )
        names.append(str(root / name))
        labels.append(label)
    return names, labels


def read_paths(path: pathlib.Path, folders: Sequence[pathlib.Path]) -> list[str]:
    """Paths of lines `path` or `path label`, relative to the first of the folders that has the file.

    A last word of digits is a label if what stands before it ends in the suffix of an image, or where only that exists.
    A `~` at the start of a path is the home directory, unless there is such a file.

    Raises:
        CaitError: the list is missing or empty.
        UsageError: a line begins with `~` and the name of no user.
    """
    try:
        return [_path_of(line, folders) for _, line in list_lines(path)]
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _path_of(line: str, folders: Sequence[pathlib.Path]) -> str:
    names = [line]
    if labelled := re.fullmatch(r"(.*\S)\s+[0-9]+", line, re.DOTALL):
        names = [labelled[1]] if has_image_suffix(labelled[1]) else [line, labelled[1]]
    paths = [str(folder / name) for folder in folders for name in names]
    if len(paths) == 1 and not line.startswith("~"):  # nothing to choose: no need to ask the disk
        return paths[0]
    found = next(filter(os.path.exists, paths), None)
    return found or (user_path(names[0]) if line.startswith("~") else paths[0])


def check_some_exist(names: Iterable[str], source: str, where: str) -> None:
    """One error for a list of which no image exists, instead of one for each; it looks no further than to the first.

    Args:
        names: paths that the list gave.
        source: of the list, for the message.
        where: words on the folders that its lines are relative to.

    Raises:
        CaitError: none of them exists.
    """
    names = list(names)
    if not any(map(os.path.exists, names)):
        raise CaitError(f"{source}: none of its {len(names)} images exists, the first: {names[0]}; {where}")
