"""Checkpoints: saved whole or not at all, loaded strictly.

A checkpoint NAME is two files. `NAME.pdparams` holds the weights alone, for evaluation, export and anybody's
`paddle.load`. `NAME.pdstates` holds all that resuming needs, the weights among it: it is one file, so a kill
between two writes can never pair new weights with an old optimizer. Both end with a record, see `checkpoint_record`,
by which loading finds what was damaged since.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import paddle

from cait.errors import CaitError, UsageError
from cait.files import replacing
from cait.model import CaiT
from cait.train.ema import ModelEma
from cait.train.optim import load_optimizer_state, optimizer_state
from cait.weights.files import (
    SAFETENSORS,
    STATES,
    TORCH,
    WEIGHTS,
    find_states,
    find_weights,
    go_on_instead,
    weights_file,
)
from cait.weights.input_record import InputRecord, in_record, other_pixels, read_input, record_of
from cait.weights.layout import check_floats, check_shapes, read_torch_layout, transpose_linear
from cait.weights.position_embedding import fit_grid
from cait.weights.state_dict import named_tensors
from cait.weights.trailer import append_record, check_content, read_record

RECORDED = ("epoch", "step", "classes")  # what the record repeats of the progress


def save_weights(model: CaiT, path: str | os.PathLike) -> None:
    """Writes the weights, whole or not at all."""
    save_tensors(model.state_dict(), [path], in_record(record_of(model)))


def save_tensors(content: dict[str, Any], files: Sequence[str | os.PathLike], facts: Mapping[str, Any]) -> None:
    """Writes one content under several names, the first one last, each whole or not at all.

    Args:
        content: what `paddle.save` takes.
        files: the further ones are hard links where the file system has them.
        facts: for the record.
    """
    if not files:
        return
    first, *others = files
    with replacing(first) as temporary:
        paddle.save(content, str(temporary))
        append_record(temporary, facts)
        for other in others:
            with replacing(other) as link:
                _link_or_copy(temporary, link)


def save_checkpoint(
    folder: pathlib.Path,
    names: list[str],
    model: CaiT,
    optimizer: paddle.optimizer.Optimizer,
    progress: dict,
    ema: ModelEma | None = None,
    ema_names: Sequence[str] = (),
) -> None:
    """Saves a training run under several names; the first one's states are written last.

    A kill in between leaves the first name at the checkpoint before, and a run resumed from there writes the others
    again. So no name can stay behind what the first one says was done.

    Args:
        folder: of the run.
        names: such as `["latest", "best_model"]`.
        model, optimizer: what to save.
        progress: plain values that the run goes on from, `epoch` among them.
        ema: the average of the weights, if there is one; part of the states.
        ema_names: such as `["best_model_ema"]`: these get the averages as their weights, and no states.
    """
    weights = model.state_dict()
    states = {"model": dict(weights), "optimizer": optimizer_state(optimizer, model), "progress": dict(progress)}
    facts = in_record(record_of(model)) | {name: progress[name] for name in RECORDED if name in progress}
    if ema is not None:
        states["ema"] = dict(ema.averages)
        save_tensors(ema.averages, [folder / f"{name}{WEIGHTS}" for name in ema_names], facts)
    save_tensors(weights, [folder / f"{name}{WEIGHTS}" for name in names], facts)
    save_tensors(states, [folder / f"{name}{STATES}" for name in names], facts)


def _link_or_copy(source: pathlib.Path, target: pathlib.Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def load_tensors(path: pathlib.Path) -> dict[str, Any]:
    """The content of a `.pdparams` or `.pdstates` file, tensors as numpy arrays.

    Raises:
        CaitError: the file is missing, cannot be read, is no checkpoint, or damaged: its record says otherwise.
    """
    check_content(path)
    try:
        content = paddle.load(str(path), return_numpy=True)
    except Exception as error:  # a broken pickle raises almost anything
        raise CaitError(f"{path}: not a Paddle checkpoint, or damaged ({type(error).__name__})") from error
    if not isinstance(content, dict) or not content:
        raise CaitError(f"{path}: not a checkpoint: it holds no named tensors")
    return content


def facts_of(path: str | os.PathLike, resumes: bool = False) -> dict[str, Any]:
    """What the files of a checkpoint say of the run that saved them, without its tensors; empty if they say nothing.

    Weights are asked first, and their own state if they say nothing. A damaged file says nothing here: whoever loads
    it reports that.

    Args:
        path: as for `find_weights`, but nothing needs to be there; with `resumes` as for `find_states`.

    Returns:
        `classes`, see `Classes.record`, and what else was saved.
    """
    weights = None if resumes else weights_file(path)
    files = [find_states(path)[1]] if weights is None else [weights, find_states(weights)[1]]
    for file in files:
        if not file.is_file() or file.suffix not in (WEIGHTS, STATES):
            continue
        with contextlib.suppress(CaitError):
            facts = read_record(file)
            if facts is None and file.suffix == STATES:  # saved before there were records
                facts = load_tensors(file).get("progress")
            if isinstance(facts, dict) and "classes" in facts:
                return facts
    return {}


def read_weights(file: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a `.pdparams`, `.safetensors` or `.pth` file in Paddle's layout; the suffix says which it is.

    Raises:
        CaitError: the file is missing, damaged, or holds something other than named tensors of floating-point numbers.
        UsageError: another suffix.
    """
    file = pathlib.Path(file)
    if file.suffix in (SAFETENSORS, TORCH):
        return transpose_linear(read_torch_layout(file))
    if file.suffix != WEIGHTS:  # never handed to paddle.load, which runs what a pickle says
        raise UsageError(f"{file}: must end in {WEIGHTS}, {SAFETENSORS} or {TORCH}")
    return check_floats(named_tensors(load_tensors(file), file), str(file))


def load_weights(
    model: CaiT, path: str | os.PathLike, reset_head: bool = False, is_other_head: bool = False
) -> list[str]:
    """Loads weights into the model; every tensor must be there in its shape, and no other.

    Two differences can be bridged: a position embedding of another patch grid is resized, from the grid that the file
    records (`cait.weights.input_record`), and with `reset_head` a head of another class count is left as it was made.

    Args:
        path: a `.pdparams`, `.safetensors` or `.pth` file; the suffix may be left out.
        reset_head: allow another class count.
        is_other_head: with `reset_head`, leave a head of the same count as it was made, too: its classes are others.

    Returns:
        Lines for the log: the file that was read, and what was done to fit it; those of what may be wrong start with
        "warning: ".

    Raises:
        CaitError: no such file, no checkpoint, or one of another model (the first mismatching tensors are named); or it
            contradicts its record.
    """
    file = find_weights(path)
    weights = read_weights(file)
    recorded = read_input(file, weights)
    notes = [f"weights from {file}", *_adapt(weights, model, (file, recorded), reset_head, is_other_head)]
    _set_weights(model, weights, file)
    return notes + other_pixels(file, recorded, model)


def _adapt(
    weights: dict, model: CaiT, source: tuple[pathlib.Path, InputRecord | None], reset_head: bool, is_other_head: bool
) -> list[str]:
    """Changes the weights in place where they may differ from the model; says what was done."""
    notes, (file, recorded) = [], source
    own = model.state_dict()
    shapes = {name: list(np.shape(weights.get(name, 0))) for name in ("pos_embed", "head.weight")}
    if len(shapes["pos_embed"]) == 3 and shapes["pos_embed"][::2] == own["pos_embed"].shape[::2]:
        grid = recorded and recorded.grid
        weights["pos_embed"], notes = fit_grid(weights["pos_embed"], model.grid_size, grid, file)
    has_other_count = shapes["head.weight"] != own["head.weight"].shape
    if reset_head and len(shapes["head.weight"]) == 2 and (has_other_count or is_other_head):
        weights |= {name: own[name].numpy() for name in ("head.weight", "head.bias")}
        notes.append(f"fresh head for {own['head.bias'].shape[0]} classes in place of {shapes['head.weight'][1]}")
    return notes


def _set_weights(model: CaiT, weights: dict[str, np.ndarray], file: pathlib.Path) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        check_shapes({name: value.shape for name, value in weights.items()}, own, str(file))
    except CaitError as error:
        if "head.weight has shape" in str(error):
            raise CaitError(f"{error}; -o MODEL.RESET_HEAD=true trains a fresh head for another class count") from error
        raise
    set_tensors(model, weights)


def set_tensors(model: CaiT, arrays: dict[str, np.ndarray]) -> None:
    """Fills the model with arrays in Paddle's layout that are known to fit, in the model's own precision."""
    for name, tensor in model.state_dict().items():
        tensor.set_value(np.ascontiguousarray(arrays[name], dtype=str(tensor.dtype).rsplit(".", 1)[-1]))


def _check_grid(model: CaiT, recorded: InputRecord | None, file: pathlib.Path) -> None:
    if recorded is not None and recorded.grid != tuple(model.grid_size):
        grids = ["{}x{}".format(*grid) for grid in (recorded.grid, model.grid_size)]
        raise CaitError(
            f"{file}: the state of a model with {grids[0]} patches, and this one has {grids[1]}; resume with its own "
            "DATA.IMAGE_SIZE, or start a new run from its weights by -pretrained, which resizes"
        )


def load_checkpoint(
    model: CaiT,
    optimizer: paddle.optimizer.Optimizer,
    path: str | os.PathLike,
    ema: ModelEma | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> dict | None:
    """Puts a run back where a checkpoint left it.

    Args:
        path: as for `find_states`. Where there is no `.pdstates`, the weights alone are loaded.
        ema: gets the saved averages; where there are none, it starts from the weights that were loaded.
        note: where there are weights alone, gets the lines on what was done to fit them, see `load_weights`.

    Returns:
        The saved progress; None where only weights were found.

    Raises:
        CaitError: no such checkpoint, of another model, or damaged: the message names the one to go on with.
    """
    stem, file = find_states(path)
    if not file.is_file():
        for line in load_weights(model, path if pathlib.Path(path).is_file() else stem)[1:]:
            note(line)
        if ema is not None:
            ema.restart()
        return None
    try:
        states = load_tensors(file)
    except CaitError as error:
        raise CaitError(f"{error}{go_on_instead(stem)}") from error
    if set(states) - {"ema"} != {"model", "optimizer", "progress"}:
        raise CaitError(f"{file}: not the state of a training run")
    weights = check_floats(named_tensors(states["model"], file), str(file))
    _check_grid(model, read_input(file, weights), file)
    _set_weights(model, weights, file)
    load_optimizer_state(optimizer, model, states["optimizer"])
    if ema is not None:
        ema.restart()
        ema.load(states.get("ema", {}))
    return states["progress"]
