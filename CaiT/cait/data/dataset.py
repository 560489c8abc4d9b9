"""Where images and labels come from: list files, class folders, CIFAR archives; and the data set over them."""

import dataclasses
import pathlib
import pickle
import re
import tarfile
import zlib
from collections.abc import Callable
from typing import Protocol

import numpy as np
import paddle
from PIL import Image

from cait.data.augment import RandomErasing
from cait.data.fast import FastTrainTransform
from cait.data.image_files import IMAGE_ERRORS, IMAGE_EXTENSIONS, IMAGE_MODES, image_files, in_mode, unreadable
from cait.errors import CaitError
from cait.files import check_readable, read_text

NO_LABEL = -1


class Source(Protocol):
    """Images by index: `names` for messages and results, `labels` (NO_LABEL: not known), `open`, and the file's bytes.

    `encoded` gives None where an image comes from no file of its own.
    """

    names: list[str]
    labels: list[int]

    def open(self, index: int) -> Image.Image: ...

    def encoded(self, index: int) -> bytes | None: ...


@dataclasses.dataclass
class FileSource:
    """Image files. `names` are their paths."""

    names: list[str]
    labels: list[int]

    def open(self, index: int) -> Image.Image:
        return Image.open(self.names[index])

    def encoded(self, index: int) -> bytes:
        return pathlib.Path(self.names[index]).read_bytes()


@dataclasses.dataclass
class ArraySource:
    """Images held in memory, uint8 [height, width, 3]."""

    names: list[str]
    labels: list[int]
    arrays: list[np.ndarray]

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.arrays[index])

    def encoded(self, index: int) -> None:
        return None


def read_list(path: pathlib.Path, root: pathlib.Path, num_classes: int) -> FileSource:
    """A list file of lines `relative/path label`; the label is the last word, so paths may hold blanks.

    Raises:
        CaitError: the list is missing or empty, or a line is malformed or its label out of range.
    """
    names, labels = [], []
    for number, line in _list_lines(path):
        name, *label = line.rsplit(maxsplit=1)
        if not label or not re.fullmatch(r"[0-9]{1,9}", label[0]):
            raise CaitError(f"{path}: line {number} must be `relative/path label`, not {line!r}")
        label = int(label[0])
        if label >= num_classes:
            raise CaitError(
                f"{path}: line {number} has label {label}, but MODEL.NUM_CLASSES is {num_classes} (labels from 0)"
            )
        names.append(str(root / name))
        labels.append(label)
    return FileSource(names, labels)


def read_test_list(path: pathlib.Path, root: pathlib.Path) -> FileSource:
    """A list file of image paths; a label after the path is allowed and not used.

    Raises:
        CaitError: the list is missing or empty.
    """
    names = []
    for _, line in _list_lines(path):
        labelled = re.fullmatch(r"(.*\S)\s+\d+", line)
        if labelled and labelled[1].lower().endswith(IMAGE_EXTENSIONS):
            line = labelled[1]
        names.append(str(root / line))
    return FileSource(names, [NO_LABEL] * len(names))


def _list_lines(path: pathlib.Path) -> list[tuple[int, str]]:
    if not path.is_file():
        raise CaitError(f"{path}: no such list; dataset/README.md shows what a data folder holds")
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise CaitError(f"{path}: the list is empty")
    return lines


def class_folders(root: pathlib.Path) -> list[str]:
    """Names of the classes: the sorted folder names of `train`, or of `val` where there is no `train`.

    Raises:
        CaitError: neither folder holds any.
    """
    for split in ("train", "val"):
        if (root / split).is_dir():
            names = sorted(p.name for p in (root / split).iterdir() if p.is_dir() and not p.name.startswith("."))
            if names:
                return names
    raise CaitError(f"{root}: needs train/CLASS/IMAGE and val/CLASS/IMAGE")


def read_folder(root: pathlib.Path, split: str, class_names: list[str]) -> FileSource:
    """Images of `root/split/CLASS/`.

    Raises:
        CaitError: the folder is missing, holds no images, or a class that is not in `class_names`.
    """
    names = image_files(root / split)
    index = {name: i for i, name in enumerate(class_names)}
    labels = []
    for name in names:
        class_name = pathlib.Path(name).relative_to(root / split).parts[0]
        if class_name not in index:
            raise CaitError(f"{name}: not in the folder of a class that training knows")
        labels.append(index[class_name])
    return FileSource(names, labels)


# What reading a damaged archive of pickles raises.
BROKEN_ARCHIVE = (
    *(OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError, StopIteration),
    *(tarfile.TarError, pickle.PickleError, zlib.error),
)
CIFAR_ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}


def cifar_archive(root: pathlib.Path, dataset: str) -> pathlib.Path:
    """The archive of CIFAR in a folder, or the path itself if it is a file.

    Raises:
        CaitError: it is not there.
    """
    path = root if root.is_file() else root / CIFAR_ARCHIVES[dataset]
    if not path.is_file():
        raise CaitError(f"{path}: no such file; put the archive {CIFAR_ARCHIVES[dataset]} there")
    check_readable(path)
    return path


def read_cifar(archive: pathlib.Path, dataset: str, split: str) -> ArraySource:
    """The `train` or `test` images of a CIFAR archive.

    Raises:
        CaitError: the file is no such archive.
    """
    reader = {"cifar10": paddle.vision.datasets.Cifar10, "cifar100": paddle.vision.datasets.Cifar100}[dataset]
    try:
        data = reader(data_file=str(archive), mode=split, download=False, backend="pil")
        rows = [data[index] for index in range(len(data))]
    except BROKEN_ARCHIVE as error:
        raise CaitError(f"{archive}: not a {dataset} archive ({error})") from error
    if not rows:
        raise CaitError(f"{archive}: holds no {split} images")
    names = [f"{archive.name}:{split}/{index}" for index in range(len(rows))]
    return ArraySource(names, [int(label) for _, label in rows], [np.asarray(image, "uint8") for image, _ in rows])


class _NoGlobals(pickle.Unpickler):
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"refused to load {module}.{name}")


def cifar_class_names(archive: pathlib.Path, dataset: str) -> list[str]:
    """The class names that stand in a CIFAR archive.

    Raises:
        CaitError: the file is no such archive.
    """
    member, key = {"cifar10": ("batches.meta", "label_names"), "cifar100": ("meta", "fine_label_names")}[dataset]
    try:
        with tarfile.open(archive) as tar:
            found = next(m for m in tar if pathlib.PurePosixPath(m.name).name == member)
            return list(_NoGlobals(tar.extractfile(found)).load()[key])
    except BROKEN_ARCHIVE as error:
        raise CaitError(f"{archive}: holds no class names of {dataset}") from error


class ImageDataset(paddle.io.Dataset):
    """(epoch, index[, repeat]) -> (uint8 [height, width, C] or None, label, index, error text or ""[, erased]).

    Random choices are drawn from (seed, epoch, index, repeat) and from nothing else, so they do not depend on which
    worker reads the image. An image that cannot be read gives None and the reason, for the loader to judge.

    Args:
        source: where the images are.
        transform: (image, random generator) -> uint8 array.
        channels: 3 reads as RGB, 1 as grey.
        seed: of the random choices.
        erasing: what it makes of (shape, random generator), after the transform, is the last item of a sample.
    """

    def __init__(
        self, source: Source, transform: Callable, channels: int, seed: int, erasing: RandomErasing | None = None
    ):
        super().__init__()
        self.source = source
        self.transform = transform
        self.mode = IMAGE_MODES[channels]
        self.seed = seed
        self.erasing = erasing

    def __len__(self) -> int:
        return len(self.source.names)

    def __getitem__(self, key: tuple[int, ...]):
        index = key[1]
        array, error, erased = None, "", ()
        try:
            array, rng = self._pixels(key)
            erased = () if self.erasing is None else (self.erasing(array.shape, rng),)
        except IMAGE_ERRORS as problem:
            error = unreadable(self.source.names[index], problem)
        return array, self.source.labels[index], index, error, *erased

    def _pixels(self, key: tuple[int, ...]) -> tuple[np.ndarray, np.random.Generator]:
        """What the transform makes of an image, and the generator as it left it."""
        index = key[1]
        if isinstance(self.transform, FastTrainTransform) and (data := self.source.encoded(index)) is not None:
            rng = self._generator(key)
            array = self.transform.of_jpeg(data, rng, self.mode)
            if array is not None:
                return array, rng
        rng = self._generator(key)
        with self.source.open(index) as image:
            image = in_mode(image, self.mode)  # ImageNet has CMYK, grey and palette files
        return self.transform(image, rng), rng

    def _generator(self, key: tuple[int, ...]) -> np.random.Generator:
        return np.random.default_rng((self.seed, *key))  # a repeat of 0 draws what its absence does
