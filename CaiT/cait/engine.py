"""One epoch of training, one evaluation, one prediction: the loops and nothing else."""

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import NamedTuple

import paddle
from paddle import nn
from paddle.nn import functional as F
from paddle.nn.utils import clip_grad_norm_

from cait import dist
from cait.data.loader import Batch, ImageLoader
from cait.data.sampler import derive_seed
from cait.errors import CaitError
from cait.log import progress


class TrainResult(NamedTuple):
    """Of one epoch: mean loss, accuracy (0-1), seconds, optimizer steps, images a second."""

    loss: float
    acc1: float
    seconds: float
    num_steps: int
    images_per_second: float


class EvalResult(NamedTuple):
    """Of one data set: mean loss, accuracies (0-1), number of images, seconds."""

    loss: float
    acc1: float
    acc5: float
    num_images: int
    seconds: float


def topk_hits(logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    """Which of the five likeliest classes is the label: [B, classes], [B] -> bool [B, min(5, classes)]."""
    _, best = paddle.topk(logits, k=min(5, logits.shape[1]), axis=1)
    return best == labels.unsqueeze(1)


class _Totals:
    """Sums over images of [loss, correct at 1, correct at 5, images], kept on the device.

    Float64 holds the counts exactly, and reading them only when a line is logged does not stall a GPU.
    """

    def __init__(self):
        self.sums = paddle.zeros([4], dtype="float64")

    def add(self, loss: paddle.Tensor, logits: paddle.Tensor, labels: paddle.Tensor) -> None:
        """Adds a batch: mean loss [], logits [B, classes], labels [B]."""
        size = labels.shape[0]
        hits = topk_hits(logits.detach(), labels).astype("float64")
        parts = [loss.detach().astype("float64") * size, hits[:, 0].sum(), hits.sum()]
        self.sums += paddle.stack([*parts, paddle.full([], size, "float64")])

    def read(self, over_processes: bool = False) -> tuple[float, float, float, int]:
        """Mean loss, accuracy at 1 and at 5, number of images."""
        sums = dist.sum_over_processes(self.sums.clone()) if over_processes else self.sums
        loss, correct1, correct5, images = sums.tolist()
        return loss / images, correct1 / images, correct5 / images, int(images)


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, size)):
        yield group


class _StepClock:
    """Average seconds of reading and of a whole step, and images a second, since the last log line."""

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
        """The words that TIPC's parsers look for."""
        batch = self.batch_seconds / self.steps
        return (
            f"avg_reader_cost: {self.reader_seconds / self.steps:.5f} sec avg_batch_cost: {batch:.5f} sec "
            f"ips: {self.images / self.batch_seconds:.5f} samples/s eta: {timedelta(seconds=int(batch * steps_left))}"
        )


def train_one_epoch(
    model: nn.Layer,
    loader: ImageLoader,
    normalize: Callable[[paddle.Tensor], paddle.Tensor],
    criterion: Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor],
    optimizer: paddle.optimizer.Optimizer,
    log: logging.Logger,
    *,
    epoch: int,
    num_epochs: int,
    accum_iter: int = 1,
    grad_clip: float | None = None,
    report_freq: int = 100,
    seed: int = 0,
) -> TrainResult:
    """Trains on every image of the loader once.

    Gradients of `accum_iter` batches, weighted by their sizes, make one optimizer step, so that it equals the step
    on one large batch, also for a smaller last batch. Drop path and dropout are seeded by (seed, epoch, step).

    Args:
        model: images [B, C, height, width] -> logits.
        normalize: the loader's uint8 batch -> images.
        criterion: (logits, labels) -> mean loss.
        optimizer: with its learning rate set.
        log: gets a line every `report_freq` steps.
        epoch: from 1, as logged.
        grad_clip: largest global norm of the gradients, or None.

    Raises:
        CaitError: the mean loss is not finite at a log line or at the end, or no image could be read.
    """
    model.train()
    loader.set_epoch(epoch)
    num_steps = math.ceil(len(loader) / accum_iter)
    head = f"Epoch[{epoch:03d}/{num_epochs:03d}]"
    totals, clock, started, step = _Totals(), _StepClock(), time.perf_counter(), -1
    groups = progress(_groups(loader, accum_iter), log, num_steps, head)
    for step, batches in enumerate(groups):
        clock.data_ready()
        paddle.seed(derive_seed(seed, epoch, step))
        images_in_step = sum(batch.labels.shape[0] for batch in batches)
        for batch in batches:
            logits = model(normalize(batch.images))
            loss = criterion(logits, batch.labels)
            (loss * (batch.labels.shape[0] / images_in_step)).backward()
            totals.add(loss, logits, batch.labels)
        if grad_clip is not None:
            clip_grad_norm_(model.parameters(), grad_clip)
        optimizer.step()
        optimizer.clear_grad()
        clock.step_done(images_in_step)
        if step % report_freq == 0 or step == num_steps - 1:
            loss_mean, acc1, _, _ = totals.read()
            _check_finite(loss_mean, f"epoch {epoch}, step {step}, learning rate {optimizer.get_lr():.3g}")
            words = clock.words(num_steps - 1 - step + (num_epochs - epoch) * num_steps)
            clock.reset()
            log.info(
                f"{head}, Step[{step:04d}/{num_steps:04d}], Avg Loss: {loss_mean:.4f}, Avg Acc: {acc1:.4f}, "
                f"loss: {loss_mean:.4f} {words}"
            )
    if step < 0:
        raise CaitError(f"no image of epoch {epoch} could be read: {loader.errors[0]}")
    loss_mean, acc1, _, images = totals.read(over_processes=True)
    _check_finite(loss_mean, f"epoch {epoch}, learning rate {optimizer.get_lr():.3g}")
    seconds = time.perf_counter() - started
    return TrainResult(loss_mean, acc1, seconds, step + 1, images / seconds)


@paddle.no_grad()
def evaluate(
    model: nn.Layer,
    loader: ImageLoader,
    normalize: Callable[[paddle.Tensor], paddle.Tensor],
    log: logging.Logger,
    *,
    report_freq: int = 100,
) -> EvalResult:
    """Cross-entropy and accuracy over the whole data set, from counts of images.

    Raises:
        CaitError: the loss is not finite.
    """
    model.eval()
    totals, started = _Totals(), time.perf_counter()
    for step, batch in enumerate(progress(loader, log, len(loader), "Val")):
        logits = model(normalize(batch.images)).astype("float32")
        totals.add(F.cross_entropy(logits, batch.labels), logits, batch.labels)
        if step % report_freq == 0:
            loss, acc1, acc5, _ = totals.read()
            log.info(
                f"Val Step[{step:04d}/{len(loader):04d}], Avg Loss: {loss:.4f}, "
                f"Avg Acc@1: {acc1:.4f}, Avg Acc@5: {acc5:.4f}"
            )
    result = EvalResult(*totals.read(over_processes=True), time.perf_counter() - started)
    _check_finite(result.loss, "validation: the weights give logits that are not finite")
    return result


def _check_finite(loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise CaitError(f"the loss is {loss} at {where}")


@paddle.no_grad()
def predict(
    model: nn.Layer,
    loader: ImageLoader,
    normalize: Callable[[paddle.Tensor], paddle.Tensor],
    log: logging.Logger,
    *,
    top_k: int,
) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Yields (image name, [(class index, softmax probability), ...]) with the `top_k` likeliest classes first."""
    model.eval()
    for batch in progress(loader, log, len(loader), "Pred"):
        probabilities = F.softmax(model(normalize(batch.images)).astype("float32"), axis=1)
        values, classes = paddle.topk(probabilities, k=min(top_k, probabilities.shape[1]), axis=1)
        for index, row_classes, row_values in zip(batch.indices.tolist(), classes.tolist(), values.tolist()):
            yield loader.dataset.source.names[index], list(zip(row_classes, row_values))
