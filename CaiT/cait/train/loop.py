"""One epoch of training: the loop and nothing else."""

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple

from cait.data.loader import Batch, ImageLoader
from cait.distributed import collectives
from cait.errors import CaitError
from cait.records.log import progress
from cait.train.step import Place, TrainStep
from cait.train.totals import Totals


class EpochPlan(NamedTuple):
    """Which epoch is trained, and what happens on its way.

    Attributes:
        epoch: from 1.
        num_epochs: of the run.
        accum_iter: batches of every process for an optimizer step.
        report_freq: steps from one line of the log to the next.
        save_steps: steps from one call of `save` to the next; 0: none.
    """

    epoch: int
    num_epochs: int
    accum_iter: int = 1
    report_freq: int = 100
    save_steps: int = 0

    @property
    def head(self) -> str:
        """The epoch as lines of the log begin with it."""
        return f"Epoch[{self.epoch:03d}/{self.num_epochs:03d}]"


class EpochState(NamedTuple):
    """Where an epoch was broken off: optimizer steps, batches read, sums over images, images left out, last norm."""

    num_steps: int = 0
    num_read: int = 0
    sums: Sequence[float] = (0.0, 0.0, 0.0, 0.0)
    errors: Sequence[str] = ()
    grad_norm: float = 0.0


class TrainResult(NamedTuple):
    """Of one epoch: mean loss, accuracy (0-1), seconds, optimizer steps, images a second, last gradient norm."""

    loss: float
    acc1: float
    seconds: float
    num_steps: int
    images_per_second: float
    grad_norm: float


def _groups(batches: Iterable[Batch], size: int) -> Iterator[tuple[list[Batch], int]]:
    """The batches of each optimizer step, and the images that all processes together have in it.

    It goes on as long as any process has a batch: one whose images are used up, or cannot be read, gets none.
    """
    iterator = iter(batches)
    while True:
        group = list(itertools.islice(iterator, size))
        num_images = collectives.total(sum(batch.labels.shape[0] for batch in group))
        if not num_images:
            return
        yield group, num_images


class _StepClock:
    """Average seconds of reading and of a whole step, and images a second of this process, since the last log line."""

    def __init__(self):
        self.reset()
        self._last = time.perf_counter()

    def reset(self):
        self.reader_seconds = self.batch_seconds = 0.0
        self.steps = self.images = 0

    def data_ready(self):
        self._ready = time.perf_counter()

    def step_done(self, images: int):
        now = time.perf_counter()
        self.reader_seconds += self._ready - self._last
        self.batch_seconds += now - self._last
        self.steps += 1
        self.images += images
        self._last = now

    def words(self, steps_left: int) -> str:
        """The words that TIPC's parsers look for; they multiply `ips` by the number of GPUs."""
        batch = self.batch_seconds / self.steps
        return (
            f"avg_reader_cost: {self.reader_seconds / self.steps:.5f} sec avg_batch_cost: {batch:.5f} sec "
            f"ips: {self.images / self.batch_seconds:.5f} samples/s eta: {timedelta(seconds=int(batch * steps_left))}"
        )


def train_one_epoch(
    step: TrainStep,
    loader: ImageLoader,
    log: logging.Logger,
    plan: EpochPlan,
    start: EpochState | None = None,
    save: Callable[[EpochState], None] = lambda state: None,
) -> TrainResult:
    """Trains on every image of the loader once.

    Args:
        step: what is trained, and how.
        log: gets a line every `plan.report_freq` steps.
        start: where the epoch was broken off; None: at its beginning.
        save: gets the state of the epoch every `plan.save_steps` steps.

    Raises:
        CaitError: a loss or the norm of the gradients is not finite, which is looked at before each step; or no image
            could be read.
    """
    start = start or EpochState()
    step.model.train()
    step.grad_norm = start.grad_norm
    loader.set_epoch(plan.epoch, start.num_read, start.errors)
    num_steps = math.ceil(loader.most_batches / plan.accum_iter)
    totals, clock, started = Totals(start.sums), _StepClock(), time.perf_counter()
    done, images_done = start.num_steps, 0
    for batches, images_in_step in progress(_groups(loader, plan.accum_iter), log, num_steps, plan.head, done=done):
        clock.data_ready()
        step.run(batches, Place(plan.epoch, done, done * plan.accum_iter), images_in_step, totals)
        clock.step_done(sum(batch.labels.shape[0] for batch in batches))
        images_done += images_in_step
        done += 1
        if (done - 1) % plan.report_freq == 0 or done == num_steps:
            log.info(_line(plan, done, num_steps, totals, clock))
        if plan.save_steps and done % plan.save_steps == 0:
            save(EpochState(done, loader.num_read, totals.sums.tolist(), loader.errors, step.grad_norm))
    if not done:
        errors = [words for own in collectives.gather(loader.errors) for words in own]
        raise CaitError(f"no image of epoch {plan.epoch} could be read: {errors[0]}")
    loss_mean, acc1, _, _ = totals.read(over_processes=True)
    seconds = time.perf_counter() - started
    return TrainResult(loss_mean, acc1, seconds, done, images_done / seconds, step.grad_norm)


def _line(plan: EpochPlan, done: int, num_steps: int, totals: Totals, clock: _StepClock) -> str:
    """The line of the log after `done` steps, in the form that TIPC's parsers read; the clock begins anew."""
    loss_mean, acc1, _, _ = totals.read(over_processes=True)
    words = clock.words(num_steps - done + (plan.num_epochs - plan.epoch) * num_steps)
    clock.reset()
    return (
        f"{plan.head}, Step[{done - 1:04d}/{num_steps:04d}], Avg Loss: {loss_mean:.4f}, Avg Acc: {acc1:.4f}, "
        f"loss: {loss_mean:.4f} {words}"
    )
