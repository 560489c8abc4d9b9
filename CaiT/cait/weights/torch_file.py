"""Reads the tensors of a PyTorch checkpoint without torch, and runs no code that it holds.

The format since torch 1.6 is a zip archive of `NAME/data.pkl`, a pickle whose tensors refer to raw storages in
`NAME/data/KEY`. Source: torch/serialization.py, torch/_utils.py.
"""

import math
import os
import pickle
import zipfile
from typing import Any, NamedTuple

import numpy as np

from cait.errors import CaitError
from cait.files import check_readable, plain_pickle
from cait.weights.state_dict import named_tensors

_DTYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # torch's magic number, pickled


MAX_PICKLE_BYTES = 64 << 20
MAX_DIMENSIONS = 32
MOST_OF_FILE = 4  # tensors may share storages, such as tied weights; together they are at most so many times the file
_REFUSED = (
    "only tensors and containers are loaded; save the weights alone, in float32: "
    "torch.save({'model': model.state_dict()}, NEW)"
)


def _count(value: Any) -> int:
    """A size, a stride or an offset: nothing but a plain number, for those of numpy wrap around."""
    if type(value) is not int or value < 0:
        raise pickle.UnpicklingError("a tensor with a size, stride or offset that is no whole number from 0")
    return value


def _counts(values: Any) -> tuple[int, ...]:
    if type(values) is not tuple or len(values) > MAX_DIMENSIONS:
        raise pickle.UnpicklingError("a tensor whose shape is no tuple of a few numbers")
    return tuple(_count(value) for value in values)


class _Storage(NamedTuple):
    values: np.ndarray  # [size]; a tensor, which may have more dimensions, is none


def _rebuild_tensor(storage: Any, offset: int, shape: tuple, stride: tuple, *_) -> np.ndarray:
    """`torch._utils._rebuild_tensor_v2`: a strided view of a storage."""
    if type(storage) is not _Storage:
        raise pickle.UnpicklingError("a tensor without a storage")
    values = storage.values
    offset, shape, stride = _count(offset), _counts(shape), _counts(stride)
    if len(shape) != len(stride):
        raise pickle.UnpicklingError("a tensor whose shape and strides do not go together")
    if 0 in shape:
        return np.zeros(shape, values.dtype)
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride))
    if last >= values.size or math.prod(shape) > values.size:
        raise pickle.UnpicklingError("a tensor that reaches beyond its storage")
    steps = [step * values.itemsize if size > 1 else 0 for size, step in zip(shape, stride)]
    return np.lib.stride_tricks.as_strided(values[offset:], shape, steps)


def _rebuild_parameter(data: Any, *_) -> np.ndarray:
    if not isinstance(data, np.ndarray):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return data


class _Settings:
    """In place of an `argparse.Namespace`, the command line that DeiT and timm save beside the weights.

    It takes no arguments, as `Namespace.__new__` gets none, and keeps nothing of its state.
    """

    def set_state(self, state: Any) -> None:
        """Leaves the settings out; what they consist of was read as data before."""


class _Archive:
    """A checkpoint's archive; reads what the pickle refers to, and keeps count of it."""

    def __init__(self, archive: zipfile.ZipFile, file_bytes: int):
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("the archive holds no data.pkl" if not pickles else "the archive holds several data.pkl")
        if len(set(names)) != len(names):
            raise ValueError("the archive holds a name twice")
        self._archive, self._folder = archive, pickles[0].removesuffix("data.pkl")
        self._unread, self._tensor_bytes = file_bytes, MOST_OF_FILE * file_bytes
        is_big = f"{self._folder}byteorder" in names and self._read("byteorder", 16) != b"little"
        self._byte_order = ">" if is_big else "<"
        self._storages: dict[str, bytes] = {}

    def content(self) -> Any:
        """Returns the content of the pickle, with arrays in place of tensors."""
        functions = {
            ("collections", "OrderedDict"): dict,
            ("argparse", "Namespace"): _Settings,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
            **{("torch", name): None for name in _DTYPES},
        }
        return plain_pickle.load(self._read("data.pkl", MAX_PICKLE_BYTES), functions, _REFUSED, self._storage)

    def _read(self, name: str, limit: int | None = None) -> bytes:
        """A file of the archive. All that are read are together no longer than the archive, or they overlap in it."""
        info = self._archive.getinfo(f"{self._folder}{name}")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:  # torch never compresses
            raise pickle.UnpicklingError(f"a compressed file, {name[:50]}")
        if info.file_size > (self._unread if limit is None else min(limit, self._unread)):
            raise pickle.UnpicklingError(f"a file that is too long, {name[:50]}")
        self._unread -= info.file_size
        return self._archive.read(info)

    def _storage(self, pid: Any) -> _Storage:
        if type(pid) is not tuple or len(pid) != 5:
            raise pickle.UnpicklingError("a reference to something that is no tensor storage")
        kind, dtype, key, _, size = pid
        if kind != "storage" or not isinstance(dtype, plain_pickle.Name) or type(key) is not str:
            raise pickle.UnpicklingError("a reference to something that is no tensor storage")
        if key not in self._storages:
            self._storages[key] = self._read(f"data/{key}")
        read_as = np.dtype(_DTYPES[dtype.name]).newbyteorder(self._byte_order)  # type: ignore[arg-type]
        values = np.frombuffer(self._storages[key], read_as)
        if values.size < _count(size):
            raise pickle.UnpicklingError("a storage shorter than it says")
        return _Storage(values)

    def _tensor(self, *arguments: Any) -> np.ndarray:
        tensor = _rebuild_tensor(*arguments)
        self._tensor_bytes -= tensor.nbytes
        if self._tensor_bytes < 0:
            raise pickle.UnpicklingError(f"tensors of more than {MOST_OF_FILE} times the file's size")
        return tensor.copy()


def kind_of_file(path: str | os.PathLike) -> str:
    """Returns the kind of a file by its first bytes: `safetensors`, `html` or `other`."""
    with open(path, "rb") as file:
        start = file.read(512)
    if start[8:9] == b"{":  # after the length of the header, eight bytes that may be anything
        return "safetensors"
    return "html" if start.lstrip()[:1] == b"<" else "other"


def read_torch_file(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The named tensors of a `.pth` file, without what is wrapped around them (`cait.weights.state_dict`).

    Raises:
        CaitError: the file is missing, cannot be read or is no checkpoint, has the format from before torch 1.6, or its
            pickle asks for more than tensors and containers.
    """
    check_readable(path)
    try:
        with open(path, "rb") as file:
            start = file.read(len(_LEGACY_START))
        if start == _LEGACY_START:
            raise CaitError(
                f"{path}: in PyTorch's format from before 1.6; save it anew with a current PyTorch: "
                "torch.save(torch.load(OLD, map_location='cpu'), NEW)"
            )
        with zipfile.ZipFile(path) as archive:
            content = _Archive(archive, os.path.getsize(path)).content()
    except CaitError:
        raise
    except Exception as error:  # a damaged archive or pickle raises almost anything
        reason = str(error)[:300] or type(error).__name__
        raise CaitError(f"{path}: not a PyTorch checkpoint that can be read: {reason}") from error
    return named_tensors(content, path)
