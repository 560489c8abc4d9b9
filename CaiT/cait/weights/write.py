"""Writes weights files of every format, whole or not at all.

`.pdparams` files, which anybody's `paddle.load` reads, end with a record, see `cait.weights.trailer`, by which loading
finds what was damaged since.
"""

import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import paddle

from cait.command.outputs import check_output
from cait.errors import UsageError
from cait.files import replacing
from cait.model import CaiT
from cait.weights.find import SAFETENSORS, TORCH, WEIGHTS
from cait.weights.input_record import InputRecord, in_metadata, in_record, record_of
from cait.weights.layout import transpose_linear
from cait.weights.trailer import append_record

TARGETS = {"paddle": WEIGHTS, "safetensors": SAFETENSORS, "torch": TORCH}


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


def _link_or_copy(source: pathlib.Path, target: pathlib.Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def check_target(path: pathlib.Path, suffix: str, force: bool) -> None:
    """Whether `write_any` may write there.

    Raises:
        UsageError: it has another suffix, is there and `force` is not set, or is no checkpoint that could be replaced.
    """
    if path.suffix != suffix:
        raise UsageError(f"{path}: must end in {suffix}, as --to says")
    if path.exists() and not force:
        raise UsageError(f"{path}: is there already; --force replaces it")
    check_output(path)


def write_any(
    tensors: dict[str, np.ndarray], path: pathlib.Path, force: bool = False, record: InputRecord | None = None
) -> None:
    """Writes tensors in PyTorch's layout as the kind of file that the suffix of `path` names, whole or not at all.

    Args:
        tensors: by name.
        path: of the file.
        force: replace a checkpoint that is there.
        record: of the file that the tensors are from; a `.pth` file has no place for it.

    Raises:
        UsageError: the file is there and `force` is not set, or torch is needed and not installed.
    """
    check_target(path, path.suffix, force)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == WEIGHTS:
        content = {name: paddle.to_tensor(value) for name, value in transpose_linear(tensors).items()}
        save_tensors(content, [path], in_record(record))
    elif path.suffix == SAFETENSORS:
        from safetensors.numpy import save

        with replacing(path) as temporary:
            temporary.write_bytes(save(tensors, metadata={"format": "pt"} | in_metadata(record)))
    else:
        try:
            import torch
        except ImportError as error:
            raise UsageError("--to torch needs torch, which is not installed; --to safetensors does not") from error
        with replacing(path) as temporary:
            torch.save({"model": {name: torch.from_numpy(value) for name, value in tensors.items()}}, temporary)
