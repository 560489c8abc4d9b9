"""Batches of images, read ahead by worker processes, or by a thread."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import sys
import traceback
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import paddle

from cait.command import stops
from cait.data.dataset import ImageDataset
from cait.data.normalize import Erased
from cait.data.sampler import EpochBatchSampler
from cait.errors import CaitError

BATCHES_AHEAD = 2  # that are read while one is computed, without reading processes


class BadImage(NamedTuple):
    """An image that could not be read: its place in the data set, its label, and the sentence that says why."""

    index: int  # type: ignore[assignment]  # it hides the method of tuples
    label: int
    error: str


class Batch(NamedTuple):
    """A batch of B images.

    Attributes:
        images: uint8 [B, height, width, C].
        labels: int64 [B].
        indices: int64 [B], the images' places in the data set.
        erased: pixels that `Normalize` replaces, if any.
    """

    images: paddle.Tensor
    labels: paddle.Tensor
    indices: paddle.Tensor
    erased: Erased | None = None


@dataclasses.dataclass
class _Told:
    """What comes with the arrays of a batch. It is no sequence, so that Paddle sends it as it is.

    Attributes:
        num_images, num_places: that the arrays hold; 0 where theirs only fill a place.
        bad: images that could not be read.
        failure: why the whole batch could not be read, if so.
        num_scaled: images that were scaled from 16 bits to 8.
    """

    num_images: int
    num_places: int
    bad: list[BadImage]
    failure: str = ""
    num_scaled: int = 0


def _blank() -> list[np.ndarray]:
    """The arrays of a batch without images: Paddle hangs on sending an empty array from a worker."""
    pixels, number = np.zeros((1, 1, 1, 1), "uint8"), np.zeros(1, "int64")
    return [pixels, number, number, number, np.zeros((1, 1), "float32")]


def collate(samples: list[tuple]) -> list:
    """Samples of `ImageDataset` -> [images, labels, indices, places, values of erased pixels, what comes with them].

    Images that could not be read are left out of the arrays. Where none is left, or no pixel is erased, the arrays
    hold something all the same.
    """
    good = [sample for sample in samples if sample[0] is not None]
    bad = [BadImage(sample[2], sample[1], sample[3]) for sample in samples if sample[0] is None]
    if not good:
        return [*_blank(), _Told(0, 0, bad)]
    images, labels, indices = zip(*[sample[:3] for sample in good])
    arrays = [np.stack(images), np.asarray(labels, "int64"), np.asarray(indices, "int64")]
    num_pixels = arrays[0].shape[1] * arrays[0].shape[2]
    erased = [(number * num_pixels + sample[4][0], sample[4][1]) for number, sample in enumerate(good) if sample[4:]]
    places, values = (np.concatenate(parts) for parts in zip(*erased)) if erased else ((), ())
    num_places = len(places)
    if not num_places:
        places, values = _blank()[3:]
    return [*arrays, places, values, _Told(len(good), num_places, bad)]


def _start_worker(_: int) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None
    stops.end_with_parent(parent.pid)


class _BatchReader(paddle.io.Dataset):
    """The keys of a batch -> what `collate` makes of its samples. It never raises: Paddle's threads would hang.

    Whatever is raised, by a bug or for want of memory, is the failure of the batch, which `ImageLoader` raises.
    """

    def __init__(self, dataset: ImageDataset):
        super().__init__()
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, keys: list[tuple[int, ...]]) -> list:
        scaled_before = self.dataset.num_scaled
        try:
            *arrays, told = collate([self.dataset[key] for key in keys])
            told.num_scaled = self.dataset.num_scaled - scaled_before
            return [*arrays, told]
        except Exception as error:
            return [*_blank(), _Told(0, 0, [], _failure(error))]


def _failure(error: Exception) -> str:
    """Why a batch could not be read."""
    if isinstance(error, MemoryError):
        return "there is not the memory to read a batch: lower DATA.BATCH_SIZE or DATA.NUM_WORKERS"
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}, line {place.lineno}"
    return f"a batch of images could not be read: {type(error).__name__}: {error} ({where})"


class _WholeBatches(paddle.io.BatchSampler):
    """For Paddle, the keys of a batch are one sample."""

    def __init__(self, sampler: EpochBatchSampler):
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list]:
        return ([keys] for keys in self.sampler)


def _only(batches: list) -> list:
    (batch,) = batches
    return batch


class ImageLoader:
    """Iterates over the batches of an epoch.

    Args:
        dataset: the images.
        sampler: which of them make which batch.
        num_workers: reading processes; 0 reads in this one.
        skip_bad_images: leave out images that cannot be read, and append them to `bad`; otherwise they raise.
        shared_memory: the processes send batches through it, or else through pipes.

    Attributes:
        bad: the images left out in this iteration.
        num_scaled: images of this iteration that were scaled from 16 bits to 8.
        num_read: batches of this epoch that are behind, those included of which nothing could be read.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        sampler: EpochBatchSampler,
        num_workers: int,
        skip_bad_images: bool = False,
        shared_memory: bool = True,
    ):
        self.dataset = dataset
        self.skip_bad_images = skip_bad_images
        self.bad: list[BadImage] = []
        self.num_scaled = 0
        self.num_read = 0
        self._start: tuple[int, list[str]] = 0, []
        self._sampler = sampler
        self._reader = _BatchReader(dataset)
        self._num_workers = min(num_workers, len(sampler))
        self._shared_memory = shared_memory

    @property
    def errors(self) -> list[str]:
        """One line for each image left out in this epoch, also before it was broken off."""
        return self._start[1] + [image.error for image in self.bad]

    def set_epoch(self, epoch: int, num_read: int = 0, errors: Sequence[str] = ()) -> None:
        """Chooses the epoch, from 1, whose order and random choices the next iteration uses.

        Args:
            num_read, errors: the attributes as they were where the epoch was broken off; it goes on from there.
        """
        self._start = num_read, list(errors)
        self._sampler.set_epoch(epoch, num_read)

    def __len__(self) -> int:
        return len(self._sampler)

    @property
    def most_batches(self) -> int:
        """Batches of an epoch in the process that has most of them."""
        return self._sampler.most_batches

    def __iter__(self) -> Iterator[Batch]:
        """Raises CaitError: an image cannot be read and is not to be left out, or reading failed altogether."""
        self.num_read, self.num_scaled, self.bad = self._start[0], 0, []
        with contextlib.closing(self._by_processes() if self._num_workers else self._by_thread()) as batches:
            for images, labels, indices, places, values, told in batches:
                if told.failure:
                    raise CaitError(told.failure)
                if told.bad and not self.skip_bad_images:
                    raise CaitError(told.bad[0].error)
                self.num_read += 1
                self.bad = self.bad + told.bad
                self.num_scaled += told.num_scaled
                if told.num_images:
                    yield Batch(images, labels, indices, Erased(places, values) if told.num_places else None)

    def _by_processes(self) -> Generator[list, None, None]:
        loader = paddle.io.DataLoader(
            self._reader,
            batch_sampler=_WholeBatches(self._sampler),
            num_workers=self._num_workers,
            collate_fn=_only,
            return_list=True,
            worker_init_fn=_start_worker,
            use_shared_memory=self._shared_memory,
        )
        batches: Any = None
        try:
            with stops.held(*stops.STOPS):  # until the processes that are started here hold them themselves
                batches = self._started(loader)
            yield from batches
        finally:
            # Where the iteration is left before its end: Paddle's thread would keep the processes for ever.
            if hasattr(batches, "_try_shutdown_all"):
                batches._try_shutdown_all()

    def _started(self, loader: paddle.io.DataLoader) -> Iterator[list]:
        try:
            return iter(loader)
        except OSError as error:
            sys.unraisablehook = lambda _: None  # the half of Paddle's object complains when it is taken down
            reason = error.strerror or error
            raise CaitError(
                f"the processes that read images cannot be started ({reason}): /dev/shm or memory is full; "
                "-o DATA.NUM_WORKERS=0 does without"
            ) from error

    def _by_thread(self) -> Generator[list, None, None]:
        """Reads ahead in a thread of this process. Paddle's own hangs where reading raises."""
        pool = concurrent.futures.ThreadPoolExecutor(1, "reader")
        keys = iter(self._sampler)
        try:
            waiting = collections.deque(
                pool.submit(self._reader.__getitem__, each) for each in itertools.islice(keys, BATCHES_AHEAD)
            )
            while waiting:
                *arrays, told = waiting.popleft().result()
                waiting.extend(pool.submit(self._reader.__getitem__, each) for each in itertools.islice(keys, 1))
                yield [*map(paddle.to_tensor, arrays), told]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
