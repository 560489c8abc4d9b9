"""Batches of images, read ahead by worker processes."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import paddle

from cait.data.dataset import ImageDataset
from cait.data.sampler import EpochBatchSampler
from cait.errors import CaitError


class Batch(NamedTuple):
    """images uint8 [B, height, width, C]; labels int64 [B]; indices int64 [B], the images' places in the data set."""

    images: paddle.Tensor
    labels: paddle.Tensor
    indices: paddle.Tensor


def collate(samples: list[tuple]) -> list:
    """Samples of `ImageDataset` -> [images, labels, indices, number of images, *errors].

    The unreadable are left out. Where nothing is left, the arrays hold a blank image all the same, for Paddle hangs
    on sending an empty array from a worker.
    """
    good = [sample[:3] for sample in samples if sample[0] is not None]
    errors = [error for _, _, _, error in samples if error]
    images, labels, indices = zip(*good or [(np.zeros((1, 1, 1), "uint8"), 0, 0)])
    return [np.stack(images), np.asarray(labels, "int64"), np.asarray(indices, "int64"), len(good), *errors]


class ImageLoader:
    """Iterates over the batches of an epoch.

    Args:
        dataset: the images.
        batch_size: images a batch; the last one may be smaller.
        shuffle: a new order every epoch.
        seed: of the order.
        num_workers: reading processes; 0 reads in this one.
        skip_bad_images: leave out images that cannot be read, and append why to `errors`; otherwise they raise.

    Attributes:
        errors: one line for each image left out in the last iteration.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        shuffle: bool,
        seed: int,
        num_workers: int,
        skip_bad_images: bool = False,
    ):
        self.dataset = dataset
        self.skip_bad_images = skip_bad_images
        self.errors: list[str] = []
        self._sampler = EpochBatchSampler(len(dataset), batch_size, shuffle, seed)
        self._loader = paddle.io.DataLoader(
            dataset,
            batch_sampler=self._sampler,
            num_workers=min(num_workers, len(self._sampler)),
            collate_fn=collate,
            return_list=True,
        )

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch, from 1, whose order and random choices the next iteration uses."""
        self._sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Batch]:
        self.errors = []
        for images, labels, indices, num_images, *errors in self._loader:
            if errors and not self.skip_bad_images:
                raise CaitError(errors[0])
            self.errors += errors
            if num_images:
                yield Batch(images, labels, indices)
