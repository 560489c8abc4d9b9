"""Reads the tensors of a PyTorch checkpoint without torch, and runs no code that it holds.

The format since torch 1.6: a zip archive of `NAME/data.pkl`, a pickle whose tensors refer to raw storages in
`NAME/data/KEY`. Source: torch/serialization.py, torch/_utils.py.
"""

import collections
import io
import math
import os
import pickle
import zipfile
from typing import Any, NamedTuple

import numpy as np

from cait.errors import CaitError
from cait.files import check_readable
from cait.state_dict import named_tensors

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


class _StorageType(NamedTuple):
    dtype: str


def _rebuild_tensor(storage: np.ndarray, offset: int, shape: tuple, stride: tuple, *_) -> np.ndarray:
    """`torch._utils._rebuild_tensor_v2`: a strided view of a storage, copied."""
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride))
    if len(shape) != len(stride) or min((offset, *shape, *stride), default=0) < 0:
        raise pickle.UnpicklingError("a tensor with a negative size")
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    if last >= storage.size or math.prod(shape) > storage.size:
        raise pickle.UnpicklingError("a tensor that reaches beyond its storage")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()


def _rebuild_parameter(data: np.ndarray, *_) -> np.ndarray:
    return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): _StorageType(dtype) for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Knows tensors and containers and refuses every other global."""

    def __init__(self, file, archive: zipfile.ZipFile, folder: str, byte_order: str):
        super().__init__(file)
        self.archive, self.folder, self.byte_order = archive, folder, byte_order
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, and only tensors and containers are loaded; save the weights alone, "
                "in float32: torch.save({'model': model.state_dict()}, NEW)"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid):
        kind, storage_type, key, _, size = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError("a reference to something that is no tensor storage")
        if key not in self.storages:
            dtype = np.dtype(storage_type.dtype).newbyteorder(self.byte_order)
            info = self.archive.getinfo(f"{self.folder}/data/{key}")
            if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses; a small file could grow without end
                raise pickle.UnpicklingError("a compressed storage")
            self.storages[key] = np.frombuffer(self.archive.read(info), dtype)
        storage = self.storages[key]
        if storage.size < size:
            raise pickle.UnpicklingError("a storage shorter than it says")
        return storage


def kind_of_file(path: str | os.PathLike) -> str:
    """What the first bytes of a downloaded or given file look like: `safetensors`, `html` or `other`."""
    with open(path, "rb") as file:
        start = file.read(512)
    if start[8:9] == b"{":  # after the length of the header, eight bytes that may be anything
        return "safetensors"
    return "html" if start.lstrip()[:1] == b"<" else "other"


def read_torch_file(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The named tensors of a `.pth` file, without what is wrapped around them (`cait.state_dict`).

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
            content = _unpickle(archive)
    except CaitError:
        raise
    except Exception as error:  # a damaged archive or pickle raises almost anything
        raise CaitError(f"{path}: not a PyTorch checkpoint that can be read: {error}") from error
    return named_tensors(content, path)


def _unpickle(archive: zipfile.ZipFile) -> Any:
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("the archive holds no data.pkl")
    folder = pickles[0].removesuffix("/data.pkl")
    order = archive.read(f"{folder}/byteorder").decode() if f"{folder}/byteorder" in archive.namelist() else "little"
    return _Unpickler(io.BytesIO(archive.read(pickles[0])), archive, folder, "<" if order == "little" else ">").load()
