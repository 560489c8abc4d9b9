"""The archives of CIFAR-10 and CIFAR-100, read as data: their pickles run nothing, and nothing is written to disk.

An archive is a tar file of pickles, most of them by Python 2, each a dict of `data`, uint8 [images, 3072], and labels.
Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import gzip
import math
import pathlib
import pickle
import re
import tarfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import numpy as np

from cait.data.sources import ArraySource
from cait.errors import CaitError
from cait.files import check_readable, plain_pickle

ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
_META = {"cifar10": ("batches.meta", "label_names"), "cifar100": ("meta", "fine_label_names")}
_FLAGS = {("cifar10", "train"): "data_batch", ("cifar10", "test"): "test_batch"}  # in the names of files
_FLAGS |= {("cifar100", split): split for split in ("train", "test")}
CLASSES = {"cifar10": 10, "cifar100": 100}
SIDE, CHANNELS = 32, 3
MAX_ARCHIVE_BYTES = 256 << 20  # unpacked; the published ones have 187 MB
MAX_FILES = 100
MAX_HEADER_BYTES = 1 << 20  # of all that lies between the files; a header may say that it is of any length
_GZIP = b"\x1f\x8b"
# What reading a damaged archive of pickles raises.
_BROKEN = (
    *(OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, OverflowError),
    *(tarfile.TarError, pickle.PickleError, zlib.error, RecursionError),
)


def cifar_archive(root: pathlib.Path, dataset: str) -> pathlib.Path:
    """The archive of CIFAR in a folder, or the path itself if it is a file.

    Raises:
        CaitError: it is not there.
    """
    path = root if root.is_file() else root / ARCHIVES[dataset]
    if not path.is_file():
        raise CaitError(f"{path}: no such file; put the archive {ARCHIVES[dataset]} there")
    check_readable(path)
    return path


def read_cifar(archive: pathlib.Path, dataset: str, split: str) -> ArraySource:
    """The `train` or `test` images of a CIFAR archive, in the order of its files' names.

    Raises:
        CaitError: the file is no such archive.
    """
    flag, classes = _FLAGS[dataset, split], CLASSES[dataset]
    labels: list[int] = []
    images: list[np.ndarray] = []
    try:
        for _, content in sorted(_members(archive, lambda name: flag in name)):
            batch = _read_dict(content)
            found = _images(batch.get("data"))
            labels += _labels(batch.get("labels", batch.get("fine_labels")), len(found), classes)
            images += list(found)
    except _BROKEN as error:
        raise CaitError(f"{archive}: not a {dataset} archive ({_reason(error)})") from error
    if not images:
        raise CaitError(f"{archive}: holds no {split} images")
    return ArraySource([f"{archive.name}:{split}/{index}" for index in range(len(images))], labels, images)


def cifar_class_names(archive: pathlib.Path, dataset: str) -> list[str]:
    """The class names that stand in a CIFAR archive.

    Raises:
        CaitError: the file is no such archive.
    """
    member, key = _META[dataset]
    try:
        [(_, content)] = _members(archive, lambda name: pathlib.PurePosixPath(name).name == member)
        names = [_text(name) for name in _read_dict(content)[key]]
    except _BROKEN as error:
        raise CaitError(f"{archive}: holds no class names of {dataset} ({_reason(error)})") from error
    if not all(isinstance(name, str) and name.isprintable() for name in names):
        raise CaitError(f"{archive}: holds class names of {dataset} that are no text")
    return names


def _reason(error: BaseException) -> str:
    return str(error)[:200] or type(error).__name__


class _Unpacked:
    """An unpacked archive, of which no more is read than the bounds of this module."""

    def __init__(self, file: BinaryIO):
        self.file, self.tell, self.unread = file, file.tell, MAX_HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        """For headers."""
        if not 0 <= size <= self.unread:
            raise tarfile.ReadError(f"more than {MAX_HEADER_BYTES} bytes of headers")
        self.unread -= size
        return self.file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        if whence or not self.tell() - tarfile.RECORDSIZE <= place <= MAX_ARCHIVE_BYTES:  # going back unpacks it anew
            raise tarfile.ReadError(f"a place outside of {MAX_ARCHIVE_BYTES} bytes, or far back")
        return self.file.seek(place)


def _members(archive: pathlib.Path, is_wanted: Callable[[str], bool]) -> list[tuple[str, bytes]]:
    """Names and contents of the wanted files of an archive."""
    found = []
    with open(archive, "rb") as packed:
        is_packed = packed.read(len(_GZIP)) == _GZIP
        packed.seek(0)
        with cast(BinaryIO, gzip.GzipFile(fileobj=packed) if is_packed else packed) as file:
            unpacked = _Unpacked(file)
            with tarfile.open(fileobj=unpacked, mode="r:") as tar:  # type: ignore[call-overload]
                for count, member in enumerate(tar):
                    if count >= MAX_FILES or not 0 <= member.size <= MAX_ARCHIVE_BYTES - member.offset_data:
                        raise tarfile.ReadError(f"more than {MAX_FILES} files or {MAX_ARCHIVE_BYTES} bytes")
                    if member.isreg() and not member.issparse() and is_wanted(member.name):
                        found.append((member.name, _content(file, member)))
            while file.read(MAX_HEADER_BYTES):  # to the end, where gzip's checksum of the whole stands
                unpacked.seek(file.tell())
    return found


def _content(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)
    content = file.read(member.size)
    if len(content) != member.size:
        raise tarfile.ReadError("unexpected end of data")
    return content


def _read_dict(content: bytes) -> dict[str, Any]:
    """A dict of a pickle of NumPy arrays and lists; its keys are text in whichever Python it was written."""
    value = plain_pickle.load(content, _Numpy(len(content)).functions(), "only arrays, lists and text are loaded")
    if not isinstance(value, dict):
        raise pickle.UnpicklingError("no dict")
    return {_text(key): item for key, item in value.items()}


def _text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _images(data: Any) -> np.ndarray:
    """uint8 [images, height, width, channels] from rows of [channels, height, width]."""
    values = data.values if isinstance(data, _Array) else None
    if values is None or values.dtype != np.uint8 or values.shape[1:] != (CHANNELS * SIDE * SIDE,):
        raise ValueError(f"its data is no array of rows of {CHANNELS * SIDE * SIDE} bytes")
    return values.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)


def _labels(labels: Any, count: int, classes: int) -> list[int]:
    if isinstance(labels, _Array) and labels.values is not None and labels.values.dtype.kind in "iu":
        labels = labels.values.tolist()
    if not isinstance(labels, list) or len(labels) != count:
        raise ValueError("its labels are not as many as its images")
    if not all(type(label) is int and 0 <= label < classes for label in labels):
        raise ValueError(f"its labels are not whole numbers from 0 to {classes - 1}")
    return labels


class _Dtype:
    """Stands for a NumPy dtype of plain numbers."""

    def __init__(self, name: Any, *_: Any):
        if not re.fullmatch("[iuf][1248]|b1", name := _text(name)) or name == "f1":
            raise pickle.UnpicklingError("an array of something that is no number")
        self.dtype = np.dtype(name)

    def set_state(self, state: Any) -> None:
        """The version, the byte order, and what only dtypes of other things have."""
        order = _text(state[1])
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("an array of something that is no number")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for a NumPy array; `values` is None until its state is known."""

    def __init__(self, encode: Callable[[str, str], bytes], values: np.ndarray | None = None):
        self._encode, self.values = encode, values

    def set_state(self, state: Any) -> None:
        """The version, the shape, the dtype, whether it is in Fortran's order, and the bytes."""
        _, shape, dtype, is_fortran, content = state
        if self.values is not None:
            raise pickle.UnpicklingError("an array that is filled twice")
        if isinstance(content, str):  # of Python 2
            content = self._encode(content, "latin1")
        self.values = _array(content, dtype, shape, "F" if is_fortran is True else "C")


def _array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if type(content) not in (bytes, bytearray) or type(dtype) is not _Dtype:
        raise pickle.UnpicklingError("an array without bytes")
    if type(shape) is not tuple or not all(type(size) is int and size >= 0 for size in shape):
        raise pickle.UnpicklingError("an array whose shape is no tuple of whole numbers")
    if math.prod(shape) * dtype.dtype.itemsize != len(content):
        raise pickle.UnpicklingError("an array whose shape does not fit its bytes")
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)  # type: ignore[call-overload]


class _Numpy:
    """What stands for the functions that pickles of arrays call, for one pickle.

    Args:
        budget: bytes that text may be encoded into; a pickle may name one long text often.
    """

    def __init__(self, budget: int):
        self.budget = budget

    def functions(self) -> dict:
        """For `plain_pickle.load`; NumPy moved them in its version 2."""
        found: dict = {("numpy", "ndarray"): None, ("numpy", "dtype"): _Dtype, ("_codecs", "encode"): self._encode}
        for package in ("numpy.core", "numpy._core"):
            found[f"{package}.multiarray", "_reconstruct"] = lambda *_: _Array(self._encode)
            found[f"{package}.multiarray", "scalar"] = self._scalar
            found[f"{package}.numeric", "_frombuffer"] = self._frombuffer
        return found

    def _encode(self, text: Any, encoding: Any) -> bytes:
        """How Python 3 writes bytes for Python 2."""
        if type(text) is not str or encoding != "latin1":
            raise pickle.UnpicklingError("text in an encoding that is not Latin-1")
        self.budget -= len(text)
        if self.budget < 0:
            raise pickle.UnpicklingError("more text than the file has")
        return text.encode("latin-1")

    def _frombuffer(self, content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
        if order not in ("C", "F"):
            raise pickle.UnpicklingError("an array in an unknown order")
        return _Array(self._encode, _array(content, dtype, shape, order))

    def _scalar(self, dtype: Any, content: Any) -> Any:
        if isinstance(content, str):
            content = self._encode(content, "latin1")
        return _array(content, dtype, (), "C").item()
