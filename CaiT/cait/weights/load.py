"""Loads weights into a model, strictly: every tensor must be there in its shape, and no other."""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from cait.errors import CaitError
from cait.model import CaiT
from cait.weights.find import find_weights
from cait.weights.input_record import InputRecord, other_pixels, read_input
from cait.weights.layout import check_shapes
from cait.weights.position_embedding import fit_grid
from cait.weights.read import read_weights


class Weights(NamedTuple):
    """What a weights file holds: its path, its tensors by name in Paddle's layout, and its record of the input."""

    file: pathlib.Path
    tensors: dict[str, np.ndarray]
    recorded: InputRecord | None


def open_weights(path: str | os.PathLike) -> Weights:
    """Reads a weights file, once.

    Args:
        path: a `.pdparams`, `.safetensors` or `.pth` file, whose suffix may be left out, or the folder of a run.

    Raises:
        CaitError: no such file, no checkpoint, damaged, or it contradicts its record.
    """
    file = find_weights(path)
    tensors = read_weights(file)
    return Weights(file, tensors, read_input(file, tensors))


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
    return fit_weights(model, open_weights(path), reset_head, is_other_head)


def fit_weights(model: CaiT, weights: Weights, reset_head: bool = False, is_other_head: bool = False) -> list[str]:
    """`load_weights` of a file that `open_weights` has read; the weights that were read stay as they are."""
    file, recorded = weights.file, weights.recorded
    tensors, notes = dict(weights.tensors), [f"weights from {file}"]
    own = model.state_dict()
    shapes = {name: list(np.shape(tensors.get(name, 0))) for name in ("pos_embed", "head.weight")}
    if len(shapes["pos_embed"]) == 3 and shapes["pos_embed"][::2] == own["pos_embed"].shape[::2]:
        grid = None if recorded is None else recorded.grid
        tensors["pos_embed"], what_was_done = fit_grid(tensors["pos_embed"], model.grid_size, grid, file)
        notes += what_was_done
    has_other_count = shapes["head.weight"] != own["head.weight"].shape
    if reset_head and len(shapes["head.weight"]) == 2 and (has_other_count or is_other_head):
        tensors |= {name: own[name].numpy() for name in ("head.weight", "head.bias")}
        notes.append(f"fresh head for {own['head.bias'].shape[0]} classes in place of {shapes['head.weight'][1]}")
    set_checked(model, tensors, file)
    return notes + other_pixels(file, recorded, model)


def set_checked(model: CaiT, tensors: dict[str, np.ndarray], file: pathlib.Path) -> None:
    """Fills the model with tensors in Paddle's layout.

    Args:
        file: where they are from, for messages.

    Raises:
        CaitError: they are those of another model; the first ones that do not fit are named.
    """
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        check_shapes({name: value.shape for name, value in tensors.items()}, own, str(file))
    except CaitError as error:
        if "head.weight has shape" in str(error):
            raise CaitError(f"{error}; -o MODEL.RESET_HEAD=true trains a fresh head for another class count") from error
        raise
    set_tensors(model, tensors)


def set_tensors(model: CaiT, arrays: dict[str, np.ndarray]) -> None:
    """Fills the model with arrays in Paddle's layout that are known to fit, in the model's own precision."""
    for name, tensor in model.state_dict().items():
        tensor.set_value(np.ascontiguousarray(arrays[name], dtype=str(tensor.dtype).rsplit(".", 1)[-1]))
