"""The images that one process prepares per second, compared with `paddle.vision` and timm."""

import argparse
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from cait.bench.measure import measure_in_turn, rate_of
from cait.bench.photos import photos
from cait.bench.report import Report, Table
from cait.command.arguments import positive
from cait.errors import UsageError

SIZE, MEAN, STD = (224, 224), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SCALE = (0.05, 1.0)  # of the crops, in the baseline and so in all
# Without the spread of the magnitude: timm would ask for 0 bits now and then, which recent Pillow refuses.
RECIPE, ERASING = "rand-m9-inc1", 0.25
PADDLE, PILLOW, FAST, OURS = "paddle.vision", "DATA.READER=pillow", "DATA.READER=fast", "this project"
UNIT = "images/s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.add_argument("--images", type=positive, default=64, help="number of JPEG files, which make one batch")


class MemorySource:
    """A `Source` of JPEG files in memory, or of images that are decoded already."""

    def __init__(self, items: list[bytes] | list[Image.Image]):
        self.items = items
        self.names = [f"photo {index}" for index in range(len(items))]
        self.labels = [0] * len(items)

    def open(self, index: int) -> Image.Image:
        """The image, decoded or about to be."""
        item = self.items[index]
        return Image.open(io.BytesIO(item)) if isinstance(item, bytes) else item

    def encoded(self, index: int) -> bytes | None:
        """The file, where there is one."""
        item = self.items[index]
        return item if isinstance(item, bytes) else None


def run(args: argparse.Namespace) -> Report:
    """Measures training input from JPEG files, the augmentation of decoded images, and evaluation input."""
    import paddle

    threads = paddle.get_num_threads() if hasattr(paddle, "get_num_threads") else None
    files = photos(args.images)
    notes = [f"One process; each contestant makes {args.images} images of 500 x 375 pixels ready, and the batch."]
    tables = [_training(files, args.rounds, notes), _recipe(files, args.rounds, notes), _evaluation(files, args.rounds)]
    sizes = {"images": args.images, "mean_bytes": sum(map(len, files)) / len(files), "threads": threads}
    return Report("input", args.command, [table for table in tables if table], sizes, notes)


def reader(items: list, transform, erasing=None) -> Callable[[], list]:
    """A batch as training and evaluation read it: the project's data set and its collating."""
    from cait.data.dataset import ImageDataset
    from cait.data.loader import collate

    dataset = ImageDataset(MemorySource(items), transform, 3, 0, erasing)
    epochs = iter(range(1 << 30))

    def read() -> list:
        epoch = next(epochs)
        return collate([dataset[(epoch, index)] for index in range(len(items))])

    return read


def _decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _vision(files: list[bytes], *steps: Any) -> Callable[[], list]:
    from paddle.vision import transforms

    compose = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean=MEAN, std=STD)])
    return lambda: [compose(_decode(data)) for data in files]


def _training(files: list[bytes], rounds: int, notes: list[str]) -> Table:
    from paddle.vision import transforms

    from cait.data.fast import FastTrainTransform, prepare_fast_reader
    from cait.data.transforms import TrainTransform

    work = {
        PADDLE: _vision(files, transforms.RandomResizedCrop(SIZE, scale=SCALE)),
        PILLOW: reader(files, TrainTransform(SIZE, SCALE)),
    }
    try:
        prepare_fast_reader()
        work[FAST] = reader(files, FastTrainTransform(SIZE, SCALE))
        notes.append(f"{FAST}: {_difference(files):.2f} of 255 is the mean difference of a pixel from {PILLOW}.")
    except UsageError as error:
        notes.append(str(error))
    return _table("training: JPEG file to a flipped crop", work, len(files), rounds, PADDLE, {PILLOW: 1.2, FAST: 2.5})


def _table(
    title: str, work: Mapping[str, Callable], images: int, rounds: int, baseline: str, goals: dict[str, float]
) -> Table:
    contestants = {name: rate_of(call, images) for name, call in work.items()}
    return Table(title, measure_in_turn(title, contestants, UNIT, rounds), baseline, goals)


def _difference(files: list[bytes]) -> float:
    """Mean difference of a pixel between the two readers, of the same crops."""
    from cait.data.fast import FastTrainTransform
    from cait.data.transforms import TrainTransform

    batches = [reader(files, kind(SIZE, SCALE))()[0] for kind in (TrainTransform, FastTrainTransform)]
    return float(np.abs(batches[0].astype("int16") - batches[1]).mean())


def _recipe(files: list[bytes], rounds: int, notes: list[str]) -> Table | None:
    """The recipe's augmentation of decoded images, and of files, against timm's."""
    from cait.data.augment import RandomErasing, parse_rand_augment
    from cait.data.transforms import TrainTransform

    try:
        import torch
        from timm.data import create_transform
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        notes.append(f"timm cannot be imported, so that the whole recipe was not compared ({error}).")
        return None
    torch.set_num_threads(1)
    theirs = create_transform(
        SIZE[0],
        is_training=True,
        scale=SCALE,
        auto_augment=RECIPE,
        interpolation="bicubic",
        color_jitter=None,
        re_prob=ERASING,
        re_mode="pixel",
        mean=MEAN,
        std=STD,
    )
    fill = tuple(round(255 * mean) for mean in MEAN)
    ours = TrainTransform(SIZE, SCALE, steps=(parse_rand_augment(RECIPE, fill),))
    images = [_decode(data) for data in files]
    work = {
        "timm": lambda: torch.stack([theirs(image) for image in images]),
        OURS: reader(images, ours, RandomErasing(ERASING)),
        "timm, with decoding": lambda: torch.stack([theirs(_decode(data)) for data in files]),
        f"{OURS}, with decoding": reader(files, ours, RandomErasing(ERASING)),
    }
    title = "whole recipe: decoded image to an augmented crop"
    return _table(title, work, len(files), rounds, "timm", {OURS: 1.5})


def _evaluation(files: list[bytes], rounds: int) -> Table:
    from paddle.vision import transforms

    from cait.data.transforms import EvalTransform

    work = {
        PADDLE: _vision(files, transforms.Resize(SIZE[0], "bicubic"), transforms.CenterCrop(SIZE)),
        OURS: reader(files, EvalTransform(SIZE)),
    }
    return _table("evaluation: JPEG file to the crop at the centre", work, len(files), rounds, PADDLE, {OURS: 1.2})
