"""Finds images that cannot be read before training does: a short check, and a check of all images."""

import concurrent.futures
import functools
import itertools
import logging
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from cait.data import cifar, sources
from cait.data import dataset as ds
from cait.data.decoding import SCALE, unreadable
from cait.data.image_files import list_images
from cait.distributed import collectives
from cait.errors import CaitError
from cait.machine.processor import usable_cores

CHUNK = 1000  # images that wait for a thread at a time
NAMED = 20  # bad images that the look before training names
SECONDS_A_LINE = 30  # between two lines on the progress, where there is no terminal
ANY_LABEL = 10**9  # no list has a label as high
MODE = "RGB"  # to which images are decoded; grey ones need no more than that


class Look(NamedTuple):
    """A short look at images: how many files it looked for, how many it decoded, and a sentence on each bad one."""

    num_asked: int
    num_decoded: int
    bad: list[str]


def look(source: ds.Source, mode: str, seconds: float, deep_grey: str = SCALE) -> Look:
    """Looks for so many seconds: half of them at whether files exist, in the others it decodes some of them.

    Images are taken in a mixed order, which is the same at every call.

    Args:
        source: of the images; those that have no file of their own are passed over.
        mode: "L" or "RGB", as which they are decoded.
        seconds: that it may take.
        deep_grey: as for `in_mode`.
    """
    if not isinstance(source, sources.FileSource):
        return Look(len(source.names), len(source.names), [])
    started = time.monotonic()
    order = np.random.default_rng(0).permutation(len(source.names)).tolist()
    bad, num_asked, num_decoded = {}, 0, 0
    for index in itertools.takewhile(lambda _: time.monotonic() < started + seconds / 2, order):
        num_asked += 1
        try:
            os.stat(source.names[index])
        except OSError as error:
            bad[index] = unreadable(source.names[index], error)
    for index in itertools.takewhile(lambda _: time.monotonic() < started + seconds, order):
        if index not in bad:
            num_decoded += 1
            if why_not := ds.error_of(source, index, mode, deep_grey):
                bad[index] = why_not
    return Look(num_asked, num_decoded, [bad[index] for index in sorted(bad)])


def before_training(
    sets: Mapping[str, ds.ImageDataset], seconds: float, strict: Mapping[str, str], log: logging.Logger
) -> None:
    """A look at the data sets of a run, in process 0, for so many seconds in all. The log tells what was found.

    Args:
        sets: by the words for the log, such as "training".
        seconds: that it may take; 0: no look.
        strict: the sets that must have no bad image, each with the advice on how to go on with them all the same.
        log: of the run.

    Raises:
        CaitError: a bad image is in a strict set; all processes raise it.
    """
    if seconds:
        collectives.raise_first(_looked(sets, seconds, strict, log) if collectives.rank() == 0 else None)


def _looked(sets, seconds, strict, log) -> CaitError | None:
    fatal, advice = [], []
    for name, dataset in sets.items():
        num_asked, num_decoded, bad = look(dataset.source, dataset.mode, seconds / len(sets), dataset.deep_grey)
        words = f"looked for {num_asked} of {len(dataset)} {name} images, and decoded {num_decoded}"
        log.info(f"{words}: {len(bad)} cannot be read" if bad else f"{words}: found no unreadable one")
        for error in bad[:NAMED]:
            log.warning(error)
        if len(bad) > NAMED:
            log.warning("and %d more", len(bad) - NAMED)
        fatal += bad if name in strict else []
        advice += [strict[name]] if name in strict and bad else []
    if not fatal:
        return None
    advice = ["`prepare_data.py check` names all such images", *advice]
    return CaitError(f"{len(fatal)} images cannot be read, the first: {fatal[0]}; {'; '.join(advice)}")


class _Report:
    """Where the lines of a check go, and how many of them are about something wrong beside unreadable images."""

    def __init__(self, say: Callable[[str], None]):
        self.say, self.faults = say, 0

    def fault(self, error: CaitError) -> None:
        """Says what is wrong, and counts it."""
        self.say(str(error))
        self.faults += 1


def check_data(root: pathlib.Path, dataset: str, say: Callable[[str], None] = tqdm.write) -> None:
    """Decodes every image of a data folder, with all cores, and names what cannot be read and what is left out.

    Args:
        root: the data folder, or the archive of CIFAR.
        dataset: as DATA.DATASET.
        say: gets every line of the report.

    Raises:
        CaitError: images cannot be read, or a list, an archive or the layout of the folders is wrong, all of which was
            said; or there is no data.
    """
    if not root.exists():
        raise CaitError(f"{root}: no such data folder; --data-path=FOLDER names it")
    report, total, bad = _Report(say), 0, 0
    for split in ("train", "val", "test"):
        try:
            source = _source(root, dataset, split, report)
        except CaitError as error:
            report.fault(error)
            continue
        if source is None:
            continue
        say(f"{split}: {len(source.names)} images")
        errors = 0
        for sentence in filter(None, _errors(source, split, say)):
            say(sentence)
            errors += 1
        say(f"{split}: {errors} of {len(source.names)} images cannot be read")
        total, bad = total + len(source.names), bad + errors
    if not total and not report.faults:
        raise CaitError(f"{root}: holds nothing that -dataset={dataset} reads; dataset/README.md shows what it needs")
    if bad or report.faults:
        more = f"; {report.faults} other faults are named above" if report.faults else ""
        raise CaitError(f"{root}: {bad} of {total} images cannot be read{more}")


def _source(root: pathlib.Path, dataset: str, split: str, report: _Report) -> ds.Source | None:
    """The images of a split; None, which is said, if it is not there."""
    if dataset in cifar.ARCHIVES:
        if split == "val":
            return None
        return cifar.read_cifar(cifar.cifar_archive(root, dataset), dataset, split)
    if dataset == "folder":
        return _folder(root, split, report)
    path = root / f"{split}_list.txt"
    if not path.is_file():
        report.say(f"{split}: there is no {path}")
        return None
    return sources.read_test_list(path, root) if split == "test" else sources.read_list(path, root, ANY_LABEL)


def _folder(root: pathlib.Path, split: str, report: _Report) -> ds.Source | None:
    folder = root / split
    if not folder.is_dir():
        report.say(f"{split}: there is no {folder}")
        return None
    listing = list_images(folder)
    for path in listing.left_out:
        report.say(f"{path}: is no image, and left out")
    for path in listing.hidden:
        report.say(f"{path}: is hidden, and left out")
    if split != "test":
        for name in sources.empty_folders(folder, listing):
            report.say(f"{folder / name}: the folder holds no images, and is left out")
        try:
            sources.labelled_images(folder, listing, sources.class_folders(root))
        except CaitError as error:  # the images can be read all the same, or cannot
            report.fault(error)
    return sources.FileSource(listing.images, [sources.NO_LABEL] * len(listing.images))


def _errors(source: ds.Source, split: str, say: Callable[[str], None]) -> Iterator[str]:
    """Why each image cannot be read, in order; empty if it can."""
    count, told = len(source.names), time.monotonic()
    with (
        concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool,  # Pillow decodes without the GIL
        tqdm(total=count, desc=split, disable=None) as bar,
    ):
        for start in range(0, count, CHUNK):
            indices = range(start, min(start + CHUNK, count))
            for error in pool.map(functools.partial(ds.error_of, source, mode=MODE), indices):
                bar.update()
                yield error
            if bar.disable and time.monotonic() > told + SECONDS_A_LINE:
                told = time.monotonic()
                say(f"{split}: {indices.stop} of {count}")
