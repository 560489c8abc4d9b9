"""Which files the name of a checkpoint means, and what to say where there are none. Nothing here needs Paddle."""

import difflib
import os
import pathlib
import re

from cait.advice import is_published, without_weights
from cait.errors import CaitError, listed
from cait.files import is_file, write_text
from cait.weights.trailer import is_whole, read_record

WEIGHTS, STATES = ".pdparams", ".pdstates"
SAFETENSORS, TORCH = ".safetensors", ".pth"
WEIGHTS_SUFFIXES = (WEIGHTS, SAFETENSORS, TORCH)
LATEST, BEST = "latest", "best_model"
OWN_NAME = re.compile(rf"{LATEST}|({BEST}|epoch_[0-9]+)(_ema)?")
METRICS = "metrics.jsonl"
BEGINNING = ".before_first_checkpoint"  # is in the folder of a run until the first checkpoint is whole
SHOWN = 6  # names in a message


def find_weights(path: str | os.PathLike) -> pathlib.Path:
    """The weights file that a path names: with or without its suffix, or as the folder of a run, for its best model.

    Raises:
        CaitError: there is none; the message says what there is instead, and where weights come from.
    """
    if (file := weights_file(path)) is not None:
        return file
    if os.path.isdir(path):
        raise CaitError(_no_single_one(path, BEST))
    nearby = "" if is_published(path) else _nearby(path)
    raise CaitError(_missing(path) + (nearby or without_weights(path)))


def weights_file(path: str | os.PathLike) -> pathlib.Path | None:
    """As `find_weights`; None where there is none."""
    for suffix in ("", *WEIGHTS_SUFFIXES):
        if is_file(f"{path}{suffix}"):
            return pathlib.Path(f"{path}{suffix}")
    best = pathlib.Path(path, f"{BEST}{WEIGHTS}")
    return best if is_file(best) else None


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
    """Whether a path is the folder of a run that has no checkpoint to go on from.

    `check_can_resume` refuses it where the run had one.
    """
    return not find_states(path)[1].is_file() and pathlib.Path(path, "config.yaml").is_file()


def check_can_resume(path: str | os.PathLike) -> None:
    """Checks that there is something to resume from: a state, weights alone, or a run before its first checkpoint.

    Raises:
        CaitError: there is none, or the state of the run is gone; the message says what there is instead.
    """
    stem, states = find_states(path)
    if begins_again(path) and holds_a_run(path) and not pathlib.Path(path, BEGINNING).is_file():
        raise CaitError(_lost(pathlib.Path(path)))
    began = pathlib.Path(path, "config.yaml")
    if any(map(is_file, (states, path, began, *(f"{stem}{suffix}" for suffix in WEIGHTS_SUFFIXES)))):
        return
    if os.path.isdir(path):
        raise CaitError(_no_single_one(path, LATEST))
    raise CaitError(_missing(path) + (_nearby(path) or "; -resume takes the folder of a run or one of its checkpoints"))


def own_checkpoint_files(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The files in a folder that have names of a run's checkpoints; other names are the user's."""
    found = (file for file in pathlib.Path(folder).iterdir() if file.suffix in (WEIGHTS, STATES))
    return sorted(file for file in found if OWN_NAME.fullmatch(file.stem))


def holds_a_run(folder: str | os.PathLike) -> bool:
    """Whether a run left checkpoints or numbers in a folder."""
    metrics = pathlib.Path(folder, METRICS)
    return bool(own_checkpoint_files(folder)) or (metrics.is_file() and metrics.stat().st_size > 0)


def begin(folder: pathlib.Path) -> None:
    """Notes in the folder of a run that there is no whole checkpoint yet, whatever else a kill may leave there."""
    if not (folder / f"{LATEST}{STATES}").is_file():
        write_text(folder / BEGINNING, "This run has saved no checkpoint yet: -resume starts it from its beginning.\n")


def has_begun(folder: pathlib.Path) -> None:
    """Takes the note of `begin` away: the first checkpoint is whole."""
    (folder / BEGINNING).unlink(missing_ok=True)


def newest_whole(folder: str | os.PathLike, without: pathlib.Path | None = None) -> pathlib.Path | None:
    """The last saved checkpoint of a run, without suffix, whose `.pdstates` is whole; to find it they are read.

    Args:
        without: a checkpoint that does not count.
    """
    files = [file for file in own_checkpoint_files(folder) if file.suffix == STATES and file.with_suffix("") != without]
    whole = (file for file in sorted(files, key=_age, reverse=True) if is_whole(file))
    return next((file.with_suffix("") for file in whole), None)


def _age(states: pathlib.Path) -> tuple:
    """Orders checkpoints by their place in the run; those saved before there were records come first, by their time."""
    try:
        record = read_record(states)
    except CaitError:  # it is damaged, and so does not count
        record = None
    place = (-1, -1, states.stat().st_mtime) if record is None else (record.get("epoch", -1), record.get("step", -1), 0)
    return *place, states.stem == LATEST, states.stem.startswith("epoch_")


def go_on_instead(stem: pathlib.Path) -> str:
    """The end of a sentence about a checkpoint that is damaged or gone: with which one its run goes on."""
    newest = newest_whole(stem.parent, without=stem)
    return f"; go on with -resume={newest}" if newest is not None else _new_run(stem.parent)


def _new_run(folder: pathlib.Path) -> str:
    files = [file for file in own_checkpoint_files(folder) if file.suffix == WEIGHTS and is_whole(file)]
    if not files:
        return "; no other checkpoint of it is whole; a new run needs another -output_dir"
    best = next((file for file in files if file.stem == BEST), files[-1])
    return f"; no other state of it is whole; -pretrained={best.with_suffix('')} starts a new run from its weights"


def _lost(folder: pathlib.Path) -> str:
    gone = folder / LATEST
    return (
        f"{folder}: has files of a run but no {gone.name}{STATES}, and starting again would overwrite them"
        f"{go_on_instead(gone)}"
    )


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
    return listed([str(folder / name) for name in names], SHOWN)
