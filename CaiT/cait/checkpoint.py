"""Checkpoints: saved whole or not at all, loaded strictly.

A checkpoint NAME is two files. `NAME.pdparams` holds the weights alone, for evaluation, export and anybody's
`paddle.load`. `NAME.pdstates` holds all that resuming needs, the weights among it: it is one file, so a kill
between two writes can never pair new weights with an old optimizer.
"""

import os
import pathlib
import shutil
from typing import Any

import numpy as np
import paddle
from paddle import nn

from cait.errors import CaitError
from cait.files import replacing
from cait.optim import load_optimizer_state, optimizer_state

WEIGHTS, STATES = ".pdparams", ".pdstates"
LATEST = "latest"
MISMATCHES_SHOWN = 3


def save_weights(model: nn.Layer, path: str | os.PathLike) -> None:
    """Writes the weights, whole or not at all."""
    with replacing(path) as temporary:
        paddle.save(model.state_dict(), str(temporary))


def save_checkpoint(
    folder: pathlib.Path, names: list[str], model: nn.Layer, optimizer: paddle.optimizer.Optimizer, progress: dict
) -> None:
    """Saves a training run under several names; the first one's states are written last.

    A kill in between leaves the first name at the checkpoint before, and a run resumed from there writes the others
    again. So no name can stay behind what the first one says was done.

    Args:
        folder: of the run.
        names: such as `["latest", "best_model"]`; the further ones are hard links where the file system has them.
        model, optimizer: what to save.
        progress: plain values that the run goes on from, `epoch` among them.
    """
    weights = model.state_dict()
    states = {"model": dict(weights), "optimizer": optimizer_state(optimizer, model), "progress": dict(progress)}
    first, *others = (folder / name for name in names)
    for suffix, content in ((WEIGHTS, weights), (STATES, states)):
        with replacing(f"{first}{suffix}") as temporary:
            paddle.save(content, str(temporary))
            for other in others:
                with replacing(f"{other}{suffix}") as link:
                    _link_or_copy(temporary, link)


def _link_or_copy(source: pathlib.Path, target: pathlib.Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def find_file(path: str | os.PathLike, suffix: str) -> pathlib.Path:
    """The file that a path with or without its suffix names.

    Raises:
        CaitError: there is none.
    """
    for candidate in (pathlib.Path(path), pathlib.Path(f"{path}{suffix}")):
        if candidate.is_file():
            return candidate
    raise CaitError(f"{path}: no such checkpoint, with or without {suffix}")


def load_tensors(path: pathlib.Path) -> dict[str, Any]:
    """The content of a `.pdparams` or `.pdstates` file, tensors as numpy arrays.

    Raises:
        CaitError: the file is damaged or no checkpoint.
    """
    try:
        content = paddle.load(str(path), return_numpy=True)
    except Exception as error:  # a broken pickle raises almost anything
        raise CaitError(f"{path}: not a Paddle checkpoint, or damaged ({type(error).__name__})") from error
    if not isinstance(content, dict) or not content:
        raise CaitError(f"{path}: not a checkpoint: it holds no named tensors")
    return content


def load_weights(model: nn.Layer, path: str | os.PathLike) -> pathlib.Path:
    """Loads weights into the model; every tensor must be there in its shape, and no other.

    Args:
        path: a `.pdparams` file, the suffix may be left out.

    Returns:
        The file that was read.

    Raises:
        CaitError: no such file, no checkpoint, or one of another model (the first mismatching tensors are named).
    """
    file = find_file(path, WEIGHTS)
    _set_weights(model, load_tensors(file), file)
    return file


def _set_weights(model: nn.Layer, weights: dict, file: pathlib.Path) -> None:
    own = model.state_dict()
    problems = [f"{name} is missing" for name in own if name not in weights]
    problems += [f"{name} is not part of the model" for name in weights if name not in own]
    weights = {name: np.asarray(weights[name]) for name in own if name in weights}
    for name, value in weights.items():
        if value.dtype.kind not in "fiu":
            problems.append(f"{name} is not a tensor of numbers")
        elif list(value.shape) != list(own[name].shape):
            problems.append(f"{name} has shape {list(value.shape)}, the model {list(own[name].shape)}")
    if problems:
        shown = "; ".join(problems[:MISMATCHES_SHOWN])
        more = f"; and {len(problems) - MISMATCHES_SHOWN} more" if len(problems) > MISMATCHES_SHOWN else ""
        raise CaitError(f"{file}: weights of another model: {shown}{more}")
    for name, tensor in own.items():
        tensor.set_value(weights[name].astype(str(tensor.dtype).rsplit(".", 1)[-1]))


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


def load_checkpoint(model: nn.Layer, optimizer: paddle.optimizer.Optimizer, path: str | os.PathLike) -> dict | None:
    """Puts a run back where a checkpoint left it.

    Args:
        path: as for `find_states`. Where there is no `.pdstates`, the weights alone are loaded.

    Returns:
        The saved progress; None where only weights were found.

    Raises:
        CaitError: no such checkpoint, damaged, or of another model.
    """
    stem, file = find_states(path)
    if not file.is_file():
        load_weights(model, path if pathlib.Path(path).is_file() else stem)
        return None
    states = load_tensors(file)
    if set(states) != {"model", "optimizer", "progress"}:
        raise CaitError(f"{file}: not the state of a training run")
    _set_weights(model, states["model"], file)
    load_optimizer_state(optimizer, model, states["optimizer"])
    return states["progress"]
