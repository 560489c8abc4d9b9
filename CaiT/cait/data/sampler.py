"""Assigns images to batches: a pure function of (seed, epoch), so that a run repeats and resumes."""

import itertools
from collections.abc import Iterator

import numpy as np
import paddle


def derive_seed(*parts: int) -> int:
    """One 31-bit seed from several whole numbers, such as (seed, epoch, step)."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0] >> 1)


def batch_generator(seed: int, epoch: int, number: int, rank: int) -> np.random.Generator:
    """For the random choices of a whole batch, the `number`-th of its epoch in the process `rank`.

    The last word keeps it apart from the generators of the images, which are seeded by (seed, epoch, index, repeat).
    """
    return np.random.default_rng((seed, epoch, number, rank, 1))


class EpochBatchSampler(paddle.io.BatchSampler):
    """Batches of (epoch, index) pairs; the data set draws an image's random choices from that pair alone.

    With repeated augmentation (Hoffer et al. 2020, DeiT's `RASampler`) a drawn image comes `repeats` times in a row,
    differently augmented, as (epoch, index, repeat). An epoch still has as many samples as the data set has images,
    so that it shows one image in `repeats`. DeiT rounds the number of samples down to a multiple of 256, which leaves
    nothing of a small data set; here it is the number of images itself.

    The samples are dealt to the processes in turn: in every step all processes together have the samples of one
    process with the whole batch, and the repeats of an image fall to different ones. No sample comes again to make
    their numbers equal: the last batch may be smaller, and a process may have a batch less than the first one.

    Where several batches make a step, repeats are dealt to these batches too, as if each were that of another process:
    what is mixed with each other, and by the same share, are different images.

    Args:
        num_samples: size of the data set.
        batch_size: images a batch and process.
        shuffle: a new order every epoch, or the order of the data set.
        seed: of the order.
        repeats: samples of a drawn image.
        num_processes, rank: how many processes share the epoch, and which one this is.
        accum_iter: batches of a process that make a step.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        repeats: int = 1,
        num_processes: int = 1,
        rank: int = 0,
        accum_iter: int = 1,
    ):
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.repeats = repeats
        self.num_processes = num_processes
        self.rank = rank
        self.accum_iter = accum_iter if repeats > 1 else 1  # otherwise there is nothing to keep apart
        self.epoch = 0
        self.first_batch = 0

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Chooses the epoch whose batches the next iteration gives, and with which of them, from 0, it starts."""
        self.epoch = epoch
        self.first_batch = first_batch

    def __len__(self) -> int:
        """Batches of a whole epoch and this process."""
        return sum(1 for _ in self._batches(self.rank))

    @property
    def most_batches(self) -> int:
        """Batches of the process that has most of them."""
        return sum(1 for _ in self._batches(0))

    def _batches(self, rank: int) -> Iterator[range]:
        """Where in the order of all samples those of a process's batches stand."""
        stride = self.num_processes * self.accum_iter
        for start in range(0, self.num_samples, stride * self.batch_size):
            end = min(start + stride * self.batch_size, self.num_samples)
            for first in range(start + rank, min(start + stride, end), self.num_processes):
                yield range(first, end, stride)

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        order = np.arange(self.num_samples)
        if self.shuffle:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        for places in itertools.islice(self._batches(self.rank), self.first_batch, None):
            yield [self._key(order, place) for place in places]

    def _key(self, order: np.ndarray, place: int) -> tuple[int, ...]:
        index = int(order[place // self.repeats])
        return (self.epoch, index) if self.repeats == 1 else (self.epoch, index, place % self.repeats)
