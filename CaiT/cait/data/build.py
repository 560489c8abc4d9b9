"""From the config to the loaders of a job."""

import logging
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from cait import dist
from cait.data import dataset as ds
from cait.data.augment import THREE_AUGMENT, ColorJitter, RandomErasing, Step, parse_rand_augment, three_augment
from cait.data.fast import FastTrainTransform, prepare_fast_reader
from cait.data.image_files import image_files
from cait.data.labels import IMAGENET1K, read_class_names
from cait.data.list_files import check_some_exist
from cait.data.loader import ImageLoader
from cait.data.pixels import loops_or_reason
from cait.data.transforms import EvalTransform, TrainTransform
from cait.errors import CaitError, UsageError


class Loaders(NamedTuple):
    """The loaders that a job needs, the others None, the names of the classes, and what the log says of the files."""

    class_names: list[str]
    notes: list[str]
    train: ImageLoader | None = None
    val: ImageLoader | None = None
    test: ImageLoader | None = None

    def log_notes(self, log: logging.Logger) -> None:
        """Warns of what was left out."""
        for words in self.notes:
            log.warning(words)


def build_loaders(config) -> Loaders:
    """Loaders for the job that the config asks for; only what that job needs is read.

    Raises:
        CaitError: the data is missing or malformed; the message names the file and line.
        UsageError: the data set does not fit the model's classes or channels.
    """
    if config.MODEL.IN_CHANNELS not in (1, 3):
        raise UsageError("images are read with MODEL.IN_CHANNELS 1 (grey) or 3 (RGB)")
    root = pathlib.Path(config.DATA.DATA_PATH)
    needs_root = not (config.PRED and config.PREDICT.IMAGE)
    if needs_root and not root.exists():
        raise CaitError(f"{root}: no such data folder; -data_path=FOLDER names it")
    class_names = build_class_names(config)
    notes: list[str] = []

    def source(split: str) -> ds.Source:
        return _source(config, root, split, class_names, notes.append)

    loops_or_reason()  # which are built and loaded here, before the reading processes are started
    if config.PRED:
        return Loaders(class_names, notes, test=_loader(config, source("test")))
    val = None
    if config.EVAL or config.VALIDATE_FREQ:
        val = _loader(config, source("val"), config.EVALUATE.ON_BAD_IMAGE != "error", dist.world_size())
    if config.EVAL:
        return Loaders(class_names, notes, val=val)
    return Loaders(class_names, notes, val=val, train=_train_loader(config, source("train")))


def build_class_names(config) -> list[str]:
    """Names from DATA.LABELS, else those that come with the data set, else the class indices.

    Raises:
        CaitError: a label file or archive is missing or malformed.
        UsageError: there are more or fewer names than classes.
    """
    root = pathlib.Path(config.DATA.DATA_PATH)
    num_classes = config.MODEL.NUM_CLASSES
    names = None
    if not root.exists():  # one image of -pred, and an export, need no data folder
        pass
    elif config.DATA.DATASET == "folder":
        names = ds.class_folders(root)
    elif config.DATA.DATASET in ds.CIFAR_ARCHIVES:
        names = ds.cifar_class_names(ds.cifar_archive(root, config.DATA.DATASET), config.DATA.DATASET)
    if names is not None and len(names) != num_classes:
        empty = ds.empty_classes(root) if config.DATA.DATASET == "folder" else []
        more = f" (without images, and so left out: {', '.join(empty)})" if empty else ""
        words = f"{len(names)} classes{more}: set -o MODEL.NUM_CLASSES={len(names)}, not {num_classes}"
        raise UsageError(f"{root}: has {words}")
    if config.DATA.LABELS:
        source = pathlib.Path(config.DATA.LABELS)
    elif names is not None:
        return names
    elif (root / "labels.txt").is_file():
        source = root / "labels.txt"
    elif num_classes == 1000 and config.DATA.DATASET == "imagenet2012":
        source = IMAGENET1K
    else:
        return [str(index) for index in range(num_classes)]
    names = read_class_names(source)
    if len(names) != num_classes:
        raise UsageError(f"{source}: names {len(names)} classes, but MODEL.NUM_CLASSES is {num_classes}")
    return names


def _source(config, root: pathlib.Path, split: str, class_names: list[str], note: Callable[[str], None]) -> ds.Source:
    dataset = config.DATA.DATASET
    if split == "test" and config.PREDICT.IMAGE:
        return ds.FileSource([config.PREDICT.IMAGE], [ds.NO_LABEL])
    if dataset in ds.CIFAR_ARCHIVES:
        return ds.read_cifar(ds.cifar_archive(root, dataset), dataset, "train" if split == "train" else "test")
    if dataset == "folder":
        if split == "test":
            names = image_files(root / "test", note)
            return ds.FileSource(names, [ds.NO_LABEL] * len(names))
        return ds.read_folder(root, split, class_names, note)
    path = root / f"{split}_list.txt"
    source = ds.read_test_list(path, root) if split == "test" else ds.read_list(path, root, config.MODEL.NUM_CLASSES)
    check_some_exist(source.names, str(path), f"its lines are relative to {root}")
    return source


def _loader(config, source: ds.Source, skip_bad: bool = True, num_processes: int = 1) -> ImageLoader:
    transform = EvalTransform(tuple(config.DATA.IMAGE_SIZE), config.DATA.CROP_PCT)
    dataset = ds.ImageDataset(source, transform, config.MODEL.IN_CHANNELS, config.SEED)
    batch_size = config.DATA.BATCH_SIZE_EVAL or config.DATA.BATCH_SIZE
    return ImageLoader(
        dataset,
        batch_size,
        shuffle=False,
        seed=config.SEED,
        num_workers=config.DATA.NUM_WORKERS,
        skip_bad_images=skip_bad,
        num_processes=num_processes,
        rank=dist.rank() if num_processes > 1 else 0,
    )


def _train_loader(config, source: ds.Source) -> ImageLoader:
    aug = config.AUG
    kind = TrainTransform
    if config.DATA.READER == "fast":
        prepare_fast_reader()
        kind = FastTrainTransform
    transform = kind(
        tuple(config.DATA.IMAGE_SIZE), tuple(aug.CROP_SCALE), tuple(aug.CROP_RATIO), aug.HFLIP, _train_steps(config)
    )
    erasing = RandomErasing(aug.RANDOM_ERASING, aug.ERASING_MODE, aug.ERASING_COUNT) if aug.RANDOM_ERASING else None
    return ImageLoader(
        ds.ImageDataset(source, transform, config.MODEL.IN_CHANNELS, config.SEED, erasing),
        config.DATA.BATCH_SIZE,
        shuffle=True,
        seed=config.SEED,
        num_workers=config.DATA.NUM_WORKERS,
        skip_bad_images=config.DATA.ON_BAD_IMAGE == "skip",
        repeats=aug.REPEATED_AUG,
        num_processes=dist.world_size(),
        rank=dist.rank(),
    )


def _train_steps(config) -> tuple[Step, ...]:
    aug = config.AUG
    steps: list[Step] = []
    if aug.AUTO_AUGMENT == THREE_AUGMENT:
        steps.append(three_augment)
    elif aug.AUTO_AUGMENT:
        fill = tuple(min(255, round(255 * mean)) for mean in config.DATA.MEAN)
        steps.append(parse_rand_augment(aug.AUTO_AUGMENT, fill))
    if aug.COLOR_JITTER:
        steps.append(ColorJitter(aug.COLOR_JITTER))
    return tuple(steps)
