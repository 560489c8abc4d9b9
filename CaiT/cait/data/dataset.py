"""Where images and labels come from: list files, class folders; and the data set over them."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import paddle
from PIL import Image

from cait.data.augment import RandomErasing
from cait.data.decoding import (
    IMAGE_MODES,
    SCALE,
    UnreadableImage,
    check_regular,
    in_mode,
    is_scaled,
    open_image,
    reading,
)
from cait.data.fast import FastTrainTransform
from cait.data.image_files import Listing, class_entries, holds_image, images_of, list_images, to_stderr
from cait.data.list_files import read_labelled, read_paths
from cait.errors import CaitError

NO_LABEL = -1


class Source(Protocol):
    """Images by index: `names` for messages and results, `labels` (NO_LABEL: not known), `open`, and the file's bytes.

    `open` is called within `cait.data.decoding.reading`. `encoded` gives None where an image comes from no file of its
    own.
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
        return open_image(self.names[index])

    def encoded(self, index: int) -> bytes:
        check_regular(self.names[index])
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
    """A list file of images below `root`, with their labels; see `read_labelled`."""
    return FileSource(*read_labelled(path, root, num_classes))


def read_test_list(path: pathlib.Path, root: pathlib.Path) -> FileSource:
    """A list file of images below `root`; a label after the path is allowed and not used. See `read_paths`."""
    names = read_paths(path, [root])
    return FileSource(names, [NO_LABEL] * len(names))


def class_folders(root: pathlib.Path, splits: Sequence[str] = ("train", "val")) -> list[str]:
    """Names of the classes: the sorted names of the folders with images in `train`, or in `val` without a `train`.

    Args:
        splits: other folders to look into; the first with classes counts.

    Raises:
        CaitError: no such folder holds any, or a folder cannot be listed.
    """
    for split in splits:
        if (root / split).is_dir():
            names = [name for name in class_entries(root / split) if holds_image(root / split / name)]
            if names:
                return names
    raise CaitError(f"{root}: needs {' and '.join(f'{split}/CLASS/IMAGE' for split in splits)}")


def empty_classes(root: pathlib.Path) -> list[str]:
    """Folders of classes without an image, in the split that `class_folders` goes by."""
    folder = root / ("train" if (root / "train").is_dir() else "val")
    return [str(folder / name) for name in class_entries(folder) if not holds_image(folder / name)]


def read_folder(
    root: pathlib.Path, split: str, class_names: list[str], note: Callable[[str], None] = to_stderr
) -> FileSource:
    """Images of `root/split/CLASS/`.

    Args:
        root: the data folder.
        split: the folder in it.
        class_names: in the order of their labels.
        note: gets a sentence on the files and the empty folders that are left out.

    Raises:
        CaitError: the folder is missing, holds no images, or a class that is not in `class_names`.
    """
    folder = root / split
    if not folder.is_dir():
        raise CaitError(f"{folder}: no such folder")
    listing = list_images(folder)
    images_of(listing, str(folder), note)
    if empty := empty_folders(folder, listing):
        more = f", and {len(empty) - 3} more" if len(empty) > 3 else ""
        note(f"{folder}: folders without images are left out: {', '.join(empty[:3])}{more}")
    return labelled_images(folder, listing, class_names)


def labelled_images(folder: pathlib.Path, listing: Listing, class_names: list[str]) -> FileSource:
    """The images of a listing, labelled by the folders of classes in `folder` that they lie in.

    Raises:
        CaitError: an image lies beside these folders, or in one of a class that is not in `class_names`.
    """
    index = {name: i for i, name in enumerate(class_names)}
    labels = []
    for name in listing.images:
        class_name, *below = pathlib.Path(name).relative_to(folder).parts
        if not below:
            raise CaitError(f"{name}: lies beside the folders of the classes; move it into one, or away")
        if class_name not in index:
            raise CaitError(f"{name}: not in the folder of a class that training knows")
        labels.append(index[class_name])
    return FileSource(listing.images, labels)


def empty_folders(folder: pathlib.Path, listing: Listing) -> list[str]:
    """Names of the folders for classes in which the listing of `folder` has no image."""
    used = {pathlib.Path(path).relative_to(folder).parts[0] for path in listing.images}
    return [name for name in class_entries(folder) if name not in used]


def error_of(source: Source, index: int, mode: str, deep_grey: str = SCALE) -> str:
    """Why an image cannot be decoded as "L" or "RGB" (`in_mode`); empty if it can."""
    try:
        with reading(source.names[index]), source.open(index) as image:
            in_mode(image, mode, deep_grey)
    except UnreadableImage as error:
        return str(error)
    return ""


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
        deep_grey: as for `in_mode`.

    Attributes:
        num_scaled: images that this process read and scaled from 16 bits to 8, as `is_scaled` says.
    """

    def __init__(
        self,
        source: Source,
        transform: Callable,
        channels: int,
        seed: int,
        erasing: RandomErasing | None = None,
        deep_grey: str = SCALE,
    ):
        super().__init__()
        self.source = source
        self.transform = transform
        self.mode = IMAGE_MODES[channels]
        self.seed = seed
        self.erasing = erasing
        self.deep_grey = deep_grey
        self.num_scaled = 0

    def __len__(self) -> int:
        return len(self.source.names)

    def __getitem__(self, key: tuple[int, ...]):
        index = key[1]
        label = self.source.labels[index]
        try:
            with reading(self.source.names[index]):
                array, rng = self._pixels(key)
        except UnreadableImage as error:
            return None, label, index, str(error)
        erased = () if self.erasing is None else (self.erasing(array.shape, rng),)
        return array, label, index, "", *erased

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
            self.num_scaled += is_scaled(image, self.deep_grey)
            image = in_mode(image, self.mode, self.deep_grey)  # ImageNet has CMYK, grey and palette files
        return self.transform(image, rng), rng

    def _generator(self, key: tuple[int, ...]) -> np.random.Generator:
        return np.random.default_rng((self.seed, *key))  # a repeat of 0 draws what its absence does
