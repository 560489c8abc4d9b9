"""Images on disk to classes and probabilities: reading runs ahead of the predictor, in constant memory."""

import collections
import concurrent.futures
import contextlib
import glob
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from cait.data.image_files import Listing, image_files, images_of, is_hidden, to_stderr
from cait.data.list_files import check_some_exist, read_paths
from cait.data.transforms import normalisation
from cait.deploy.autolog import Stopwatch
from cait.deploy.bundle import Description
from cait.deploy.pixel_reader import MAX_PIXELS, PixelReader
from cait.deploy.predictor import softmax
from cait.errors import CaitError

READERS = 2


class Result(NamedTuple):
    """Of one image: its path, (class index, probability) with the likeliest first, or why it could not be read."""

    path: str
    classes: list[tuple[int, float]]
    error: str


def find_images(path: str, note: Callable[[str], None] = to_stderr) -> list[str]:
    """The images that a file, a folder, a list file (`.txt`) or a glob pattern names.

    The lines of a list are `path` or `path label`, as in `test_list.txt`. A path that does not exist from the working
    directory is relative to the folder of the list.

    Args:
        path: of a file or folder, if there is one of that name; otherwise a pattern.
        note: gets a sentence on the files that are left out, if there are any.

    Raises:
        CaitError: nothing is there, or a folder cannot be listed.
        UsageError: a path in a list begins with `~` and the name of no user.
    """
    if os.path.isdir(path):
        return image_files(path, note)
    if os.path.isfile(path):
        if not path.lower().endswith(".txt"):
            return [path]
        folder = pathlib.Path(path).parent
        names = read_paths(pathlib.Path(path), [pathlib.Path(), folder])
        check_some_exist(names, path, f"its lines are relative to the working directory or to {folder}")
        return names
    return _matching(path, note)


def _matching(pattern: str, note: Callable[[str], None]) -> list[str]:
    """The images that a pattern matches. What of it is the name of a folder is no pattern, whatever it holds."""
    base, rest = pathlib.Path(), list(pathlib.Path(pattern).parts)
    while rest and (base / rest[0]).is_dir():
        base /= rest.pop(0)
    listing = Listing()
    start = glob.escape(str(base)) if base.parts else ""
    for path in glob.iglob(os.path.join(start, *rest), recursive=True):
        if not os.path.isdir(path) and not any(map(is_hidden, pathlib.Path(path).relative_to(base).parts)):
            listing.add(path)
    if not listing.images and not listing.left_out:
        raise CaitError(
            f"{pattern}: no such image, folder, list or pattern; name one of your own, or make images to try with by "
            "`python CaiT/prepare_data.py digits` (dataset/digits/val)"
        )
    return images_of(listing.sorted(), pattern, note)


class Reader:
    """An image file -> normalised float32 [channels, height, width], as the bundle wants it.

    Args:
        description: of the bundle.
        apply_exif: turn the image as its EXIF orientation says; training and evaluation do not.
        max_pixels: of an image; more is refused before it is decoded.

    Attributes:
        pixels: (file, name of it for errors) -> what the model sees, uint8 [height, width, channels].
    """

    def __init__(self, description: Description, apply_exif: bool, max_pixels: int = MAX_PIXELS):
        (height, width), channels = description.image_size, description.channels
        self.pixels = PixelReader(
            (height, width), description.crop_pct, channels, apply_exif, max_pixels, description.deep_grey
        )
        scale_shift = normalisation(description.mean, description.std)
        self.scale, self.shift = (value.astype("float32") for value in scale_shift)

    def __call__(self, path: str) -> np.ndarray:
        """Raises UnreadableImage, naming the file, if it is no image, damaged or too large."""
        return self.read(path, path)

    def read(self, file: str | BinaryIO, name: str) -> np.ndarray:
        """The same for an open file, which errors call by the name."""
        return self.normalised(self.pixels(file, name))

    def normalised(self, pixels: np.ndarray) -> np.ndarray:
        """Normalises the result of `pixels`, or a batch of them, to float32 [..., channels, height, width]."""
        return np.moveaxis(pixels.astype("float32") * self.scale + self.shift, -1, -3)


def read_ahead(paths: Iterable[str], read: Callable[[str], np.ndarray], depth: int) -> Iterator[tuple[str, object]]:
    """Yields (path, what `read` gives or the CaitError it raised) in order, at most `depth` images ahead.

    Reading begins with the call, not with the first that is asked for.
    """
    remaining = iter(paths)
    pool = concurrent.futures.ThreadPoolExecutor(READERS)  # Pillow decodes and resizes without the GIL
    waiting = collections.deque(pool.submit(_attempt, read, path) for path in itertools.islice(remaining, depth))

    def in_order() -> Iterator[tuple[str, object]]:
        with pool:
            while waiting:
                done = waiting.popleft().result()
                waiting.extend(pool.submit(_attempt, read, path) for path in itertools.islice(remaining, 1))
                yield done

    return in_order()


def _attempt(read: Callable[[str], np.ndarray], path: str) -> tuple[str, object]:
    try:
        return path, read(path)
    except CaitError as error:
        return path, error


def classify(
    predict: Callable[[np.ndarray], np.ndarray],
    read: Reader,
    paths: Sequence[str],
    batch_size: int,
    top_k: int,
    stopwatch: Stopwatch | None = None,
    images: Iterator[tuple[str, object]] | None = None,
) -> Iterator[Result]:
    """Classifies images in batches and yields their results in order; an unreadable one does not stop the others.

    Args:
        predict: normalised images [B, channels, height, width] -> logits [B, classes].
        read: path -> normalised image [channels, height, width].
        paths: of the images.
        batch_size: images a call of `predict`; the last one may be smaller.
        top_k: classes of each result.
        stopwatch: times the stages. Reading then does not run ahead, so that each stage has the machine for itself.
        images: what `read_ahead` gives for the paths, where reading has begun already; not with a stopwatch.
    """
    stage = stopwatch.stage if stopwatch else contextlib.nullcontext
    if images is None:
        ahead = 2 * batch_size
        images = (_attempt(read, path) for path in paths) if stopwatch else read_ahead(paths, read, ahead)
    for _ in range(0, len(paths), batch_size):
        with stage("preprocess"):
            chunk = list(itertools.islice(images, batch_size))
            good = [value for _, value in chunk if isinstance(value, np.ndarray)]
            batch = np.stack(good) if good else None
        if batch is None:
            yield from (_result(path, cast(CaitError, error), top_k) for path, error in chunk)
            continue
        with stage("inference"):
            logits = predict(batch)
        with stage("postprocess"):
            rows = iter(softmax(logits))
            values = [value if isinstance(value, CaitError) else next(rows) for _, value in chunk]
            results = [_result(path, value, top_k) for (path, _), value in zip(chunk, values)]
        yield from results


def _result(path: str, value: np.ndarray | CaitError, top_k: int) -> Result:
    """Of probabilities [classes], or of the error."""
    if isinstance(value, CaitError):
        return Result(path, [], str(value))
    return Result(path, likeliest(value, top_k), "")


def likeliest(probabilities: np.ndarray, top_k: int) -> list[tuple[int, float]]:
    """(class index, probability) of the likeliest classes of [classes], the first of equals first."""
    best = np.argsort(-probabilities, kind="stable")[:top_k]
    return [(int(index), float(probabilities[index])) for index in best]


def as_arrays(results: Sequence[list[tuple[int, float]]]) -> dict[str, np.ndarray]:
    """`class_id` int64 and `prob` float64, both [images, classes of each], of the `classes` of results.

    An image that could not be read has the class -1 and the probability 0, so that all others keep their places.
    """
    width = max(map(len, results))
    pairs = np.array([classes or [(-1, 0.0)] * width for classes in results], "float64")
    return {"class_id": pairs[..., 0].astype("int64"), "prob": pairs[..., 1]}
