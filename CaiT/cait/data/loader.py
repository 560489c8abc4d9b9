"""Batches of images, read ahead by worker processes."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import paddle

from cait.data.dataset import ImageDataset
from cait.data.sampler import EpochBatchSampler
from cait.data.transforms import Erased
from cait.errors import CaitError

PARENT_CHECK_SECONDS = 2


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


def collate(samples: list[tuple]) -> list:
    """Samples of `ImageDataset` -> [images, labels, indices, places, values, number of images and of places, *errors].

    The unreadable are left out. Where nothing is left, the arrays hold a blank image all the same, for Paddle hangs
    on sending an empty array from a worker; so they do where no pixel is erased.
    """
    good = [sample for sample in samples if sample[0] is not None]
    errors = [sample[3] for sample in samples if sample[3]]
    images, labels, indices = zip(*[sample[:3] for sample in good] or [(np.zeros((1, 1, 1), "uint8"), 0, 0)])
    arrays = [np.stack(images), np.asarray(labels, "int64"), np.asarray(indices, "int64")]
    num_pixels = arrays[0].shape[1] * arrays[0].shape[2]
    erased = [(number * num_pixels + sample[4][0], sample[4][1]) for number, sample in enumerate(good) if sample[4:]]
    places, values = (np.concatenate(parts) for parts in zip(*erased)) if erased else ((), ())
    num_places = len(places)
    if not num_places:
        places, values = np.zeros(1, "int64"), np.zeros((1, 1), "float32")
    return [*arrays, places, values, len(good), num_places, *errors]


def _end_with_parent(_: int) -> None:
    """Ends this worker soon after the main process: where that was killed, its workers wait for work for ever."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class ImageLoader:
    """Iterates over the batches of an epoch.

    Args:
        dataset: the images.
        batch_size: images a batch; the last one may be smaller.
        shuffle: a new order every epoch.
        seed: of the order.
        num_workers: reading processes; 0 reads in this one.
        skip_bad_images: leave out images that cannot be read, and append why to `errors`; otherwise they raise.
        repeats, num_processes, rank: as for `EpochBatchSampler`.

    Attributes:
        errors: one line for each image left out in this epoch.
        num_read: batches of this epoch that are behind, those included of which nothing could be read.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        shuffle: bool,
        seed: int,
        num_workers: int,
        skip_bad_images: bool = False,
        repeats: int = 1,
        num_processes: int = 1,
        rank: int = 0,
    ):
        self.dataset = dataset
        self.skip_bad_images = skip_bad_images
        self.errors: list[str] = []
        self.num_read = 0
        self._start: tuple[int, list[str]] = 0, []
        self._sampler = EpochBatchSampler(len(dataset), batch_size, shuffle, seed, repeats, num_processes, rank)
        self._loader = paddle.io.DataLoader(
            dataset,
            batch_sampler=self._sampler,
            num_workers=min(num_workers, len(self._sampler)),
            collate_fn=collate,
            return_list=True,
            worker_init_fn=_end_with_parent,
        )

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
        self.num_read, self.errors = self._start
        batches = iter(self._loader)
        try:
            for images, labels, indices, places, values, num_images, num_places, *errors in batches:
                if errors and not self.skip_bad_images:
                    raise CaitError(errors[0])
                self.num_read += 1
                self.errors = self.errors + errors
                if num_images:
                    yield Batch(images, labels, indices, Erased(places, values) if num_places else None)
        finally:
            # Where the iteration is left before its end: Paddle's thread would keep the processes for ever.
            if hasattr(batches, "_try_shutdown_all"):
                batches._try_shutdown_all()
