"""From the config to the loaders of a job."""

import logging
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from cait.data import cifar, sources
from cait.data import dataset as ds
from cait.data.augment import THREE_AUGMENT, Augmentation, ColorJitter, RandomErasing, parse_rand_augment, three_augment
from cait.data.class_names import Classes, evaluated_classes, shown_classes, trained_classes
from cait.data.decoding import formats
from cait.data.fast import FastTrainTransform, prepare_fast_reader
from cait.data.image_files import image_files
from cait.data.list_files import check_some_exist
from cait.data.loader import ImageLoader
from cait.data.pixels import loops_or_reason
from cait.data.sampler import EpochBatchSampler
from cait.data.shared_memory import Sending, how_to_send
from cait.data.transforms import EvalTransform, TrainTransform
from cait.distributed import collectives
from cait.errors import CaitError, UsageError


class Loaders(NamedTuple):
    """The classes, what the log says of the data, and the loaders that a job needs, the others None."""

    classes: Classes
    notes: list[str]
    train: ImageLoader | None = None
    val: ImageLoader | None = None
    test: ImageLoader | None = None

    def to_train(self) -> ImageLoader:
        """The loader of training images, which a job that trains has."""
        assert self.train is not None
        return self.train

    def to_evaluate(self) -> ImageLoader:
        """The loader of validation images, which a job that evaluates has."""
        assert self.val is not None
        return self.val

    def to_predict(self) -> ImageLoader:
        """The loader of images to predict, which a job that predicts has."""
        assert self.test is not None
        return self.test

    def log_notes(self, log: logging.Logger) -> None:
        """Warns of what the notes say."""
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
    classes = (shown_classes if config.PRED else evaluated_classes if config.EVAL else trained_classes)(config)
    notes = classes.notes
    sending = _sending(config)
    if sending.note:
        notes.append(sending.note)
    loops_or_reason()  # which are built and loaded here, before the reading processes are started
    formats()  # so are Pillow's readers
    if config.PRED:
        return Loaders(classes, notes, test=_loader(config, _test_source(config, root, notes.append), sending))
    val = None
    if config.EVAL or config.VALIDATE_FREQ:
        skip_bad = config.EVALUATE.ON_BAD_IMAGE != "error"
        val = _loader(config, _source(config, root, "val", classes), sending, skip_bad, collectives.world_size())
    if config.EVAL:
        return Loaders(classes, notes, val=val)
    train = _train_loader(config, _source(config, root, "train", classes), sending)
    return Loaders(classes, notes, val=val, train=train)


def _test_source(config, root: pathlib.Path, note: Callable[[str], None]) -> ds.Source:
    """The images to predict."""
    dataset = config.DATA.DATASET
    if config.PREDICT.IMAGE:
        return sources.FileSource([config.PREDICT.IMAGE], [sources.NO_LABEL])
    if dataset in cifar.ARCHIVES:
        return cifar.read_cifar(cifar.cifar_archive(root, dataset), dataset, "test")
    if dataset == "folder":
        if not (root / "test").is_dir():
            raise CaitError(f"{root / 'test'}: no such folder; put the images there, or name one by PREDICT.IMAGE=FILE")
        names = image_files(root / "test", note)
        return sources.FileSource(names, [sources.NO_LABEL] * len(names))
    path = root / "test_list.txt"
    return _some_exist(sources.read_test_list(path, root), path, root)


def _source(config, root: pathlib.Path, split: str, classes: Classes) -> ds.Source:
    """The images to train or to evaluate on, with the labels of the model."""
    dataset = config.DATA.DATASET
    source: sources.Source
    if dataset in cifar.ARCHIVES:
        source = cifar.read_cifar(cifar.cifar_archive(root, dataset), dataset, "train" if split == "train" else "test")
    elif dataset == "folder":
        source = sources.read_folder(root, split, classes.of_data or classes.names, classes.notes.append)
    else:
        path, num_labels = root / f"{split}_list.txt", max(config.MODEL.NUM_CLASSES, len(classes.index or ()))
        source = _some_exist(sources.read_list(path, root, num_labels), path, root)
    source.labels = classes.relabel(source.labels, root)
    return source


def _some_exist(source: ds.Source, path: pathlib.Path, root: pathlib.Path) -> ds.Source:
    check_some_exist(source.names, str(path), f"its lines are relative to {root}")
    return source


def _sending(config) -> Sending:
    height, width = config.DATA.IMAGE_SIZE
    batch_size = max(config.DATA.BATCH_SIZE, config.DATA.BATCH_SIZE_EVAL or 0)
    return how_to_send(config.DATA.NUM_WORKERS, batch_size * height * width * config.MODEL.IN_CHANNELS)


def _loader(config, source: ds.Source, sending: Sending, skip_bad: bool = True, num_processes: int = 1) -> ImageLoader:
    transform = EvalTransform(tuple(config.DATA.IMAGE_SIZE), config.DATA.CROP_PCT)
    deep_grey = config.DATA.DEEP_GREY
    dataset = ds.ImageDataset(source, transform, config.MODEL.IN_CHANNELS, config.SEED, deep_grey=deep_grey)
    batch_size = config.DATA.BATCH_SIZE_EVAL or config.DATA.BATCH_SIZE
    shares = {"num_processes": num_processes, "rank": collectives.rank() if num_processes > 1 else 0}
    sampler = EpochBatchSampler(len(dataset), batch_size, shuffle=False, seed=config.SEED, **shares)
    return ImageLoader(dataset, sampler, sending.num_workers, skip_bad, sending.shared_memory)


def _train_loader(config, source: ds.Source, sending: Sending) -> ImageLoader:
    aug = config.AUG
    kind = TrainTransform
    if config.DATA.READER == "fast":
        prepare_fast_reader()
        kind = FastTrainTransform
    transform = kind(
        tuple(config.DATA.IMAGE_SIZE), tuple(aug.CROP_SCALE), tuple(aug.CROP_RATIO), aug.HFLIP, _train_steps(config)
    )
    erasing = RandomErasing(aug.RANDOM_ERASING, aug.ERASING_MODE, aug.ERASING_COUNT) if aug.RANDOM_ERASING else None
    deep_grey = config.DATA.DEEP_GREY
    dataset = ds.ImageDataset(source, transform, config.MODEL.IN_CHANNELS, config.SEED, erasing, deep_grey)
    sampler = EpochBatchSampler(
        len(dataset),
        config.DATA.BATCH_SIZE,
        shuffle=True,
        seed=config.SEED,
        repeats=aug.REPEATED_AUG,
        num_processes=collectives.world_size(),
        rank=collectives.rank(),
        accum_iter=config.TRAIN.ACCUM_ITER,
    )
    skip_bad = config.DATA.ON_BAD_IMAGE == "skip"
    return ImageLoader(dataset, sampler, sending.num_workers, skip_bad, sending.shared_memory)


def _train_steps(config) -> tuple[Augmentation, ...]:
    aug = config.AUG
    steps: list[Augmentation] = []
    if aug.AUTO_AUGMENT == THREE_AUGMENT:
        steps.append(three_augment)
    elif aug.AUTO_AUGMENT:
        fill = tuple(min(255, round(255 * mean)) for mean in config.DATA.MEAN)
        steps.append(parse_rand_augment(aug.AUTO_AUGMENT, fill))
    if aug.COLOR_JITTER:
        steps.append(ColorJitter(aug.COLOR_JITTER))
    return tuple(steps)
