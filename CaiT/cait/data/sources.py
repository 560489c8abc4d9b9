"""Where images and labels come from: list files, folders of classes, arrays in memory."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from cait.data.decoding import check_regular, open_image
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
