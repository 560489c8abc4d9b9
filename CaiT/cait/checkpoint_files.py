"""Which files the name of a checkpoint means, and what to say where there are none. Nothing here needs Paddle."""

import difflib
import os
import pathlib
import re

from cait.errors import CaitError
from cait.files import is_file
from cait.next_step import is_published, without_weights

WEIGHTS, STATES = ".pdparams", ".pdstates"
SAFETENSORS, TORCH = ".safetensors", ".pth"
WEIGHTS_SUFFIXES = (WEIGHTS, SAFETENSORS, TORCH)
LATEST, BEST = "latest", "best_model"
SHOWN = 6  # names in a message


def find_weights(path: str | os.PathLike) -> pathlib.Path:
    """The weights file that a path names: with or without its suffix, or as the folder of a run, for its best model.

    Raises:
        CaitError: there is none; the message says what there is instead, and where weights come from.
    """
    for suffix in ("", *WEIGHTS_SUFFIXES):
        if is_file(f"{path}{suffix}"):
            return pathlib.Path(f"{path}{suffix}")
    best = pathlib.Path(path, f"{BEST}{WEIGHTS}")
    if is_file(best):
        return best
    if os.path.isdir(path):
        raise CaitError(_no_single_one(path, BEST))
    nearby = "" if is_published(path) else _nearby(path)
    raise CaitError(_missing(path) + (nearby or without_weights(path)))


def find_states(path: str | os.PathLike) -> tuple[pathlib.Path, pathlib.Path]:
    """The name without suffix, and the `.pdstates` file, which need not be there, of a checkpoint.

    Args:
        path: a run's folder (its `latest`), a checkpoint's name, or one of its files.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        path = path / LATEST
    stem = path.with_suffix("") if path.suffix in (WEIGHTS, STATES) else path
    return stem, pathlib.Path(f"{stem}{STATES}")


def begins_again(path: str | os.PathLike) -> bool:
    """Whether a path is the folder of a run that was stopped before its first checkpoint."""
    return not find_states(path)[1].is_file() and pathlib.Path(path, "config.yaml").is_file()


def check_can_resume(path: str | os.PathLike) -> None:
    """Checks that there is something to resume from: a state, weights alone, or a run before its first checkpoint.

    Raises:
        CaitError: there is none; the message says what there is instead.
    """
    stem, states = find_states(path)
    began = pathlib.Path(path, "config.yaml")
    if any(map(is_file, (states, path, began, *(f"{stem}{suffix}" for suffix in WEIGHTS_SUFFIXES)))):
        return
    if os.path.isdir(path):
        raise CaitError(_no_single_one(path, LATEST))
    raise CaitError(_missing(path) + (_nearby(path) or "; -resume takes the folder of a run or one of its checkpoints"))


def checkpoints_in(folder: str | os.PathLike) -> list[str]:
    """The names of the checkpoints in a folder, without suffixes; `epoch_9` comes before `epoch_10`."""
    stems = {file.stem for file in pathlib.Path(folder).iterdir() if file.suffix in (STATES, *WEIGHTS_SUFFIXES)}
    words = {stem: re.split("([0-9]+)", stem) for stem in stems}
    return sorted(stems, key=lambda stem: [int(word) if word.isdecimal() else word for word in words[stem]])


def _missing(path: str | os.PathLike) -> str:
    with_suffix = pathlib.Path(path).suffix in (STATES, *WEIGHTS_SUFFIXES)
    return f"{path}: no such checkpoint" + ("" if with_suffix else f", with or without {', '.join(WEIGHTS_SUFFIXES)}")


def _no_single_one(folder: str | os.PathLike, wanted: str) -> str:
    names = checkpoints_in(folder)
    if not names:
        return f"{folder}: a folder without any checkpoint" + (without_weights(folder) if wanted == BEST else "")
    return f"{folder}: a folder without {wanted}; name one of its checkpoints: {_some(names, pathlib.Path(folder))}"


def _nearby(path: str | os.PathLike) -> str:
    """The checkpoints and runs beside a path that names none; empty where there are none."""
    path = pathlib.Path(path)
    folder = path.parent
    if not folder.is_dir():
        lost = next(parent for parent in (path, *path.parents) if parent.parent.is_dir())
        return f"; there is no folder {lost}" if lost != path else ""
    names = checkpoints_in(folder)
    names += sorted(run.name for run in folder.iterdir() if run.is_dir() and (run / "config.yaml").is_file())
    close = difflib.get_close_matches(path.name.removesuffix(path.suffix), names, n=1)
    if close:
        return f"; did you mean {folder / close[0]}?"
    return f"; there are {_some(names, folder)}" if names else ""


def _some(names: list[str], folder: pathlib.Path) -> str:
    more = len(names) - SHOWN
    return ", ".join(str(folder / name) for name in names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
