"""Files that a user names to be written: each kind by its suffix, and what an existing one must hold to be replaced.

A slip of the keyboard, such as `--output=photo.jpg` or `--output=my_table.csv`, must not cost a file of the user's.
"""

import json
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from cait.errors import CaitError, UsageError

HEAD_BYTES = 4096
LARGEST_JSON = 64 << 20  # of what we write as one document; more is somebody else's


class Kind(NamedTuple):
    """What a file of a suffix holds: `words` say it; `fits` is asked of its first HEAD_BYTES and its path."""

    words: str
    fits: Callable[[bytes, pathlib.Path], bool]


def _starts(*magics: bytes) -> Callable[[bytes, pathlib.Path], bool]:
    return lambda head, path: head.startswith(magics)


def _is_table(head: bytes, path: pathlib.Path) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").startswith(TABLES)


def _is_reprod_log(head: bytes, path: pathlib.Path) -> bool:
    return head.startswith(b"\x93NUMPY") and b"'descr': '|O'" in head and b"'shape': ()" in head


def _is_results_lines(head: bytes, path: pathlib.Path) -> bool:
    return head.startswith(b'{"image_name": ')


def _is_document(head: bytes, path: pathlib.Path) -> bool:
    if not head.lstrip().startswith((b"{", b"[")) or path.stat().st_size > LARGEST_JSON:
        return False
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and any(keys <= set(content) for keys in DOCUMENTS)


def _is_checkpoint(head: bytes, path: pathlib.Path) -> bool:
    # A pickle, a zip archive, or safetensors: a header of JSON after its length.
    return head.startswith((b"\x80", b"PK\x03\x04")) or head[8:9] == b"{"


# How the tables begin that we write: results, and an evaluation's accuracies by class and confusion.
TABLES = (b"image_name,rank,class_id,", b"class_id,class_name,num_images,", b"label,0")
# Keys that all documents of a kind have: alignment, evaluation, benchmarks, doctor.py, AutoLog's report, TIPC's speed.
DOCUMENTS = (
    *({"passed", "rows"}, {"num_images", "correct_at_1"}, {"benchmark", "tables"}, {"machine", "checks"}),
    *({"env", "conf", "perf"}, {"model_name", "ips"}),
)
KINDS = {
    ".md": Kind("a report of doctor.py", lambda head, path: head.startswith(b"<!-- written by doctor.py -->")),
    ".csv": Kind("a table that we write", _is_table),
    ".jsonl": Kind("results as lines of JSON", _is_results_lines),
    ".npy": Kind("a file of reprod_log", _is_reprod_log),
    ".json": Kind("a document that we write", _is_document),
    ".log": Kind("a report of --benchmark", lambda head, path: b" Env info " in head),
    ".png": Kind("a PNG picture", _starts(b"\x89PNG\r\n")),
    ".svg": Kind("an SVG picture", lambda head, path: b"<svg" in head),
    ".pdparams": Kind("a checkpoint", _is_checkpoint),
    ".safetensors": Kind("a checkpoint", _is_checkpoint),
    ".pth": Kind("a checkpoint", _is_checkpoint),
}


def check_output(path: str | os.PathLike, *suffixes: str) -> pathlib.Path:
    """The path of a file that is about to be written, which may be there if it is of the kind that its suffix says.

    To be called before the work that leads to it.

    Args:
        suffixes: of KINDS, those that are allowed; without them, all.

    Raises:
        UsageError: it has another suffix, is no file, or holds something else than we write.
        CaitError: it cannot be looked at.
    """
    path = pathlib.Path(path)
    if path.suffix not in (suffixes or KINDS):
        raise UsageError(f"{path}: must end in {' or '.join(suffixes or KINDS)}")
    try:
        if not os.path.lexists(path):
            return path
        if not path.is_file():
            raise UsageError(f"{path}: is there and no file; name another")
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
        is_ours = not head or KINDS[path.suffix].fits(head, path)
    except OSError as error:
        raise CaitError(f"{path}: cannot be replaced ({error.strerror})") from error
    if not is_ours:
        raise UsageError(f"{path}: is there and not {KINDS[path.suffix].words}, so it is not replaced; name another")
    return path


def check_outputs(folder: str | os.PathLike, *names: str) -> pathlib.Path:
    """The same of several files in a folder; returns the folder."""
    folder = pathlib.Path(folder)
    for name in names:
        check_output(folder / name)
    return folder
