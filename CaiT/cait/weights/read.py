"""Reads the tensors of weights files of every format, each once, and in the layout that is asked for."""

import contextlib
import os
import pathlib
from typing import Any

import numpy as np
import paddle

from cait.errors import CaitError, UsageError
from cait.files import check_readable
from cait.weights.checkpoints import find_states
from cait.weights.find import SAFETENSORS, STATES, TORCH, WEIGHTS, weights_file
from cait.weights.layout import check_tensors, swap_layout, transpose_linear
from cait.weights.safetensors_file import read_safetensors
from cait.weights.state_dict import named_tensors
from cait.weights.torch_file import kind_of_file, read_torch_file
from cait.weights.trailer import check_content, read_record


def read_weights(file: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a `.pdparams`, `.safetensors` or `.pth` file in Paddle's layout; the suffix says which it is.

    Raises:
        CaitError: the file is missing, damaged, or holds something other than named tensors of floating-point numbers.
        UsageError: another suffix.
    """
    tensors, is_torch_layout = _read(pathlib.Path(file))
    return transpose_linear(tensors) if is_torch_layout else tensors


def read_any(path: str | os.PathLike, expected: dict[str, tuple[int, ...]] | None = None) -> dict[str, np.ndarray]:
    """The tensors of a `.pdparams`, `.safetensors` or `.pth` file, checked, in PyTorch's layout as float32.

    Args:
        path: the file.
        expected: name and PyTorch shape of every tensor of the wanted model; None: any CaiT.

    Raises:
        CaitError: the file is missing, damaged or of another model.
        UsageError: another suffix.
    """
    tensors, is_torch_layout = _read(pathlib.Path(path))
    tensors = tensors if is_torch_layout else swap_layout(tensors)
    check_tensors(tensors, expected, str(path))
    return {name: np.ascontiguousarray(value, dtype="float32") for name, value in tensors.items()}


def _read(file: pathlib.Path) -> tuple[dict[str, np.ndarray], bool]:
    """The tensors as they stand in the file, and whether they are in PyTorch's layout."""
    if file.suffix in (SAFETENSORS, TORCH):
        return read_torch_layout(file), True
    if file.suffix != WEIGHTS:  # never handed to paddle.load, which runs what a pickle says
        raise UsageError(f"{file}: must end in {WEIGHTS}, {SAFETENSORS} or {TORCH}")
    return check_floats(named_tensors(load_tensors(file), file), str(file)), False


def read_torch_layout(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The named tensors of a `.safetensors` or `.pth` file, without what is wrapped around them, in PyTorch's layout.

    Raises:
        CaitError: the file is missing, damaged or none of the two; the message names it.
    """
    path = pathlib.Path(path)
    check_readable(path)
    kind = kind_of_file(path)
    if kind == "html":
        raise CaitError(f"{path}: an HTML page, not a checkpoint; the server sent a message in its place")
    tensors = named_tensors(read_safetensors(path), path) if kind == "safetensors" else read_torch_file(path)
    return check_floats(tensors, str(path))


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
    """Reads what the files of a checkpoint record about their run, without the tensors; empty if they record nothing.

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


def check_floats(tensors: dict, source: str) -> dict[str, np.ndarray]:
    """Demands floating-point numbers of named tensors.

    Raises:
        CaitError: names what is something else.
    """
    for name, value in tensors.items():
        if value.dtype == np.uint16:  # how numpy gets to see it
            raise CaitError(f"{source}: {name} is in bfloat16; save the weights in float32")
        if value.dtype.kind != "f":
            raise CaitError(f"{source}: {name} holds {value.dtype}, not floating-point numbers")
    return tensors
