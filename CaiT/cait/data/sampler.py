"""Which images make which batch: a pure function of (seed, epoch), so that a run repeats and resumes."""

import math
from collections.abc import Iterator

import numpy as np
import paddle


def derive_seed(*parts: int) -> int:
    """One 31-bit seed from several whole numbers, such as (seed, epoch, step)."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0] >> 1)


class EpochBatchSampler(paddle.io.BatchSampler):
    """Batches of (epoch, index) pairs; the data set draws an image's random choices from that pair alone.

    The last batch may be smaller. All batches are for one process: nothing is split between several.

    Args:
        num_samples: size of the data set.
        batch_size: images a batch.
        shuffle: a new order every epoch, or the order of the data set.
        seed: of the order.
    """

    def __init__(self, num_samples: int, batch_size: int, shuffle: bool, seed: int):
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose batches the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.num_samples / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.arange(self.num_samples)
        if self.shuffle:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        for start in range(0, self.num_samples, self.batch_size):
            yield [(self.epoch, int(index)) for index in order[start : start + self.batch_size]]
