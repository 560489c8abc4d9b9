"""The checkpoints of a run: which of them it goes on from, and which are whole. Nothing here needs Paddle."""

import os
import pathlib

from cait.errors import CaitError
from cait.files import is_file, write_text
from cait.run_folder import BEGINNING, BEST, CONFIG, LATEST, METRICS, OWN_NAME
from cait.weights.find import (
    STATES,
    WEIGHTS,
    WEIGHTS_SUFFIXES,
    names_nearby,
    no_single_checkpoint,
    no_such_checkpoint,
)
from cait.weights.trailer import is_whole, read_record


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
    return not find_states(path)[1].is_file() and pathlib.Path(path, CONFIG).is_file()


def check_can_resume(path: str | os.PathLike) -> None:
    """Checks that there is something to resume from: a state, weights alone, or a run before its first checkpoint.

    Raises:
        CaitError: there is none, or the state of the run is gone; the message says what there is instead.
    """
    stem, states = find_states(path)
    if begins_again(path) and holds_a_run(path) and not pathlib.Path(path, BEGINNING).is_file():
        raise CaitError(_lost(pathlib.Path(path)))
    began = pathlib.Path(path, CONFIG)
    if any(map(is_file, (states, path, began, *(f"{stem}{suffix}" for suffix in WEIGHTS_SUFFIXES)))):
        return
    if os.path.isdir(path):
        raise CaitError(no_single_checkpoint(path, LATEST))
    raise CaitError(
        no_such_checkpoint(path)
        + (names_nearby(path) or "; -resume takes the folder of a run or one of its checkpoints")
    )


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
