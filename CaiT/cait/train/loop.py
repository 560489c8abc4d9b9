"""One epoch of training: the loop and nothing else."""

import functools
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle import nn

from cait.data.loader import Batch, ImageLoader
from cait.data.normalize import Normalize
from cait.data.sampler import batch_generator, derive_seed
from cait.distributed import collectives
from cait.errors import CaitError
from cait.precision import Precision
from cait.records.log import progress
from cait.train.mixup import plain_labels
from cait.train.not_finite import clip_gradients, explain, gradient_norm

LOSS_IS = "the loss is"


class TrainResult(NamedTuple):
    """Of one epoch: mean loss, accuracy (0-1), seconds, optimizer steps, images a second, last gradient norm."""

    loss: float
    acc1: float
    seconds: float
    num_steps: int
    images_per_second: float
    grad_norm: float


class EpochState(NamedTuple):
    """Where an epoch was broken off: optimizer steps, batches read, sums over images, images left out, last norm."""

    num_steps: int = 0
    num_read: int = 0
    sums: Sequence[float] = (0.0, 0.0, 0.0, 0.0)
    errors: Sequence[str] = ()
    grad_norm: float = 0.0


def topk_hits(logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    """Which of the five likeliest classes is the label: [B, classes], [B] -> bool [B, min(5, classes)]."""
    _, best = paddle.topk(logits, k=min(5, logits.shape[1]), axis=1)
    return best == labels.unsqueeze(1)


class Totals:
    """Sums over images of [loss, correct at 1, correct at 5, images], kept on the device.

    Float64 holds the counts exactly, and reading them only when a line is logged does not stall a GPU.
    """

    def __init__(self, sums: Sequence[float] = (0.0, 0.0, 0.0, 0.0)):
        self.sums = paddle.to_tensor(list(sums), dtype="float64")

    def add(self, loss: paddle.Tensor, logits: paddle.Tensor, labels: paddle.Tensor) -> None:
        """Adds a batch: mean loss [], logits [B, classes], labels [B]."""
        size = labels.shape[0]
        hits = topk_hits(logits.detach(), labels).astype("float64")
        parts = [loss.detach().astype("float64") * size, hits[:, 0].sum(), hits.sum()]
        self.sums += paddle.stack([*parts, paddle.full([], size, "float64")])

    def read(self, over_processes: bool = False, more_wrong: int = 0) -> tuple[float, float, float, int]:
        """Mean loss, accuracy at 1 and at 5, number of images; `more_wrong` of them were not seen."""
        sums = collectives.sum_over_processes(self.sums.clone()) if over_processes else self.sums
        loss, correct1, correct5, images = sums.tolist()
        counted = images + more_wrong
        return loss / images, correct1 / counted, correct5 / counted, int(counted)


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
    model: nn.Layer,
    loader: ImageLoader,
    normalize: Normalize,
    criterion: Callable[[paddle.Tensor, Any], paddle.Tensor],
    optimizer: paddle.optimizer.Optimizer,
    log: logging.Logger,
    *,
    epoch: int,
    num_epochs: int,
    accum_iter: int = 1,
    grad_clip: float | None = None,
    report_freq: int = 100,
    seed: int = 0,
    mix: Callable[[paddle.Tensor, paddle.Tensor, np.random.Generator], tuple[paddle.Tensor, Any]] = plain_labels,
    after_step: Callable[[], None] = lambda: None,
    start: EpochState | None = None,
    save_steps: int = 0,
    save: Callable[[EpochState], None] = lambda state: None,
    precision: Precision | None = None,
) -> TrainResult:
    """Trains on every image of the loader once.

    Gradients of `accum_iter` batches of every process, weighted by their sizes, make one optimizer step, so that it
    equals the step on one large batch, also for a smaller last batch. Drop path and dropout are seeded by (seed, epoch,
    step, process), the mixing of a batch by (seed, epoch, number of the batch, process). The accuracy is against the
    labels, mixed or not.

    Args:
        model: images [B, C, height, width] -> logits.
        normalize: the loader's uint8 batch -> images.
        criterion: (logits, targets) -> mean loss.
        optimizer: with its learning rate set.
        log: gets a line every `report_freq` steps.
        epoch: from 1, as logged.
        grad_clip: largest global norm of the gradients, or None.
        mix: (images, labels, random generator) -> (images, targets), such as `Mixup`.
        after_step: called after every optimizer step, such as `ModelEma.update`.
        start: where the epoch was broken off; None: at its beginning.
        save_steps: optimizer steps between two calls of `save`; 0: none.
        save: gets the state of the epoch.
        precision: of the model; None: float32.

    Raises:
        CaitError: a loss or the norm of the gradients is not finite, which is looked at before each step; or no image
            could be read.
    """
    precision = precision or Precision()

    def forward(batch: Batch, number: int) -> tuple[paddle.Tensor, paddle.Tensor]:
        rng = batch_generator(seed, epoch, number, collectives.rank())
        images, targets = mix(normalize(batch.images, batch.erased), batch.labels, rng)
        logits = precision.run(model, images)
        return criterion(logits, targets), logits

    def forward_again(step: int, batches: list[Batch]) -> None:
        paddle.seed(derive_seed(seed, epoch, step, collectives.rank()))
        for number, batch in enumerate(batches, step * accum_iter):
            forward(batch, number)

    model.train()
    start = start or EpochState()
    loader.set_epoch(epoch, start.num_read, start.errors)
    num_steps = math.ceil(loader.most_batches / accum_iter)
    head = f"Epoch[{epoch:03d}/{num_epochs:03d}]"
    totals, clock, started, step = Totals(start.sums), _StepClock(), time.perf_counter(), start.num_steps - 1
    grad_norm = start.grad_norm
    groups = progress(_groups(loader, accum_iter), log, num_steps, head, done=start.num_steps)
    images_done = 0
    for step, (batches, images_in_step) in enumerate(groups, start.num_steps):
        clock.data_ready()
        paddle.seed(derive_seed(seed, epoch, step, collectives.rank()))
        losses = []
        for number, batch in enumerate(batches, step * accum_iter):
            loss, logits = forward(batch, number)
            precision.backward(loss * (batch.labels.shape[0] / images_in_step))
            totals.add(loss, logits, batch.labels)
            losses.append(loss.detach().astype("float64"))
        collectives.sum_gradients(model.parameters())
        precision.unscale(optimizer)
        *values, norm = paddle.stack([*losses, gradient_norm(model.parameters()).astype("float64")]).tolist()
        overflows = not math.isfinite(norm) and precision.may_overflow  # the same in all processes
        wrong = _not_finite(values, 0.0 if overflows else norm)
        if collectives.total(bool(wrong)):
            where = f"epoch {epoch}, step {step}, learning rate {optimizer.get_lr():.3g}"
            why = f"{wrong} at {where}; {explain(model, functools.partial(forward_again, step, batches))}"
            collectives.raise_first(CaitError(why) if wrong else None, is_cause=LOSS_IS in wrong)
        if grad_clip is not None and not overflows:
            clip_gradients(model.parameters(), norm, grad_clip)
        precision.step(optimizer)
        optimizer.clear_grad(set_to_zero=False)  # with zeros, each gradient is filled and then added to
        if not overflows:
            grad_norm = norm
            after_step()
        clock.step_done(sum(batch.labels.shape[0] for batch in batches))
        images_done += images_in_step
        if step % report_freq == 0 or step == num_steps - 1:
            loss_mean, acc1, _, _ = totals.read(over_processes=True)
            words = clock.words(num_steps - 1 - step + (num_epochs - epoch) * num_steps)
            clock.reset()
            log.info(
                f"{head}, Step[{step:04d}/{num_steps:04d}], Avg Loss: {loss_mean:.4f}, Avg Acc: {acc1:.4f}, "
                f"loss: {loss_mean:.4f} {words}"
            )
        if save_steps and (step + 1) % save_steps == 0:
            save(EpochState(step + 1, loader.num_read, totals.sums.tolist(), loader.errors, grad_norm))
    if step < 0:
        errors = [words for own in collectives.gather(loader.errors) for words in own]
        raise CaitError(f"no image of epoch {epoch} could be read: {errors[0]}")
    loss_mean, acc1, _, _ = totals.read(over_processes=True)
    seconds = time.perf_counter() - started
    return TrainResult(loss_mean, acc1, seconds, step + 1, images_done / seconds, grad_norm)


def _not_finite(losses: Sequence[float], norm: float) -> str:
    """What of a step is not finite, in words; empty if all is."""
    for value in losses:
        if not math.isfinite(value):
            return f"{LOSS_IS} {value}"
    return "" if math.isfinite(norm) else f"the norm of the gradients is {norm}"
