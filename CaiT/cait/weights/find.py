"""Which weights file a path means, and what to say where there is none. Nothing here needs Paddle."""

import difflib
import os
import pathlib
import re

from cait.advice import is_published, without_weights
from cait.errors import CaitError, listed
from cait.files import is_file
from cait.run_folder import BEST, CONFIG

WEIGHTS, STATES = ".pdparams", ".pdstates"
SAFETENSORS, TORCH = ".safetensors", ".pth"
WEIGHTS_SUFFIXES = (WEIGHTS, SAFETENSORS, TORCH)
SHOWN = 6  # names in a message


def find_weights(path: str | os.PathLike) -> pathlib.Path:
    """The weights file that a path names: with or without its suffix, or as the folder of a run, for its best model.

    Raises:
        CaitError: there is none; the message says what there is instead, and where weights come from.
    """
    if (file := weights_file(path)) is not None:
        return file
    if os.path.isdir(path):
        raise CaitError(no_single_checkpoint(path, BEST))
    nearby = "" if is_published(path) else names_nearby(path)
    raise CaitError(no_such_checkpoint(path) + (nearby or without_weights(path)))


def weights_file(path: str | os.PathLike) -> pathlib.Path | None:
    """Like `find_weights`, but returns None if there is no such file."""
    for suffix in ("", *WEIGHTS_SUFFIXES):
        if is_file(f"{path}{suffix}"):
            return pathlib.Path(f"{path}{suffix}")
    best = pathlib.Path(path, f"{BEST}{WEIGHTS}")
    return best if is_file(best) else None


def checkpoints_in(folder: str | os.PathLike) -> list[str]:
    """The names of the checkpoints in a folder, without suffixes; `epoch_9` comes before `epoch_10`."""
    stems = {file.stem for file in pathlib.Path(folder).iterdir() if file.suffix in (STATES, *WEIGHTS_SUFFIXES)}
    words = {stem: re.split("([0-9]+)", stem) for stem in stems}
    return sorted(stems, key=lambda stem: [int(word) if word.isdecimal() else word for word in words[stem]])


def no_such_checkpoint(path: str | os.PathLike) -> str:
    """The beginning of a sentence about a path that names no checkpoint."""
    with_suffix = pathlib.Path(path).suffix in (STATES, *WEIGHTS_SUFFIXES)
    return f"{path}: no such checkpoint" + ("" if with_suffix else f", with or without {', '.join(WEIGHTS_SUFFIXES)}")


def no_single_checkpoint(folder: str | os.PathLike, wanted: str) -> str:
    """The sentence about a folder that lacks the checkpoint which is meant when a folder is named."""
    names = checkpoints_in(folder)
    if not names:
        return f"{folder}: a folder without any checkpoint" + (without_weights(folder) if wanted == BEST else "")
    return f"{folder}: a folder without {wanted}; name one of its checkpoints: {_some(names, pathlib.Path(folder))}"


def names_nearby(path: str | os.PathLike) -> str:
    """The checkpoints and runs beside a path that names none; empty where there are none."""
    path = pathlib.Path(path)
    folder = path.parent
    if not folder.is_dir():
        lost = next(parent for parent in (path, *path.parents) if parent.parent.is_dir())
        return f"; there is no folder {lost}" if lost != path else ""
    names = checkpoints_in(folder)
    names += sorted(run.name for run in folder.iterdir() if run.is_dir() and (run / CONFIG).is_file())
    close = difflib.get_close_matches(path.name.removesuffix(path.suffix), names, n=1)
    if close:
        return f"; did you mean {folder / close[0]}?"
    return f"; there are {_some(names, folder)}" if names else ""


def _some(names: list[str], folder: pathlib.Path) -> str:
    return listed([str(folder / name) for name in names], SHOWN)
