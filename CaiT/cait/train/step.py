"""One optimizer step: forward, backward, the sum over the processes, the check, clipping, the update."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle import nn

from cait.data.loader import Batch
from cait.data.normalize import Normalize
from cait.data.sampler import batch_generator, derive_seed
from cait.distributed import collectives
from cait.errors import CaitError
from cait.train.mixed_precision import Precision
from cait.train.mixup import plain_labels
from cait.train.not_finite import explain
from cait.train.optim import clip_gradients, gradient_norm
from cait.train.totals import Totals

LOSS_IS = "the loss is"
Criterion = Callable[[paddle.Tensor, Any], paddle.Tensor]  # (logits, targets) -> mean loss
Mix = Callable[[paddle.Tensor, paddle.Tensor, np.random.Generator], tuple[paddle.Tensor, Any]]


class Place(NamedTuple):
    """Where in a run a step is: the epoch, from 1, the step in it, from 0, and the number of its first batch."""

    epoch: int
    step: int
    first_batch: int


@dataclasses.dataclass
class TrainStep:
    """Moves the weights once on the batches that all processes have for a step.

    The gradients of the batches, weighted by their numbers of images, make one step, so that it equals the step on one
    large batch, also where the last batch is smaller. Drop path and dropout are seeded by (seed, epoch, step, process),
    the mixing of a batch by (seed, epoch, number of the batch, process).

    Attributes:
        model: images [B, C, height, width] -> logits [B, classes].
        normalize: the loader's uint8 batch -> images.
        criterion: (logits, targets) -> mean loss.
        optimizer: with its learning rate set.
        mix: (images, labels, random generator) -> (images, targets), such as `Mixup`.
        precision: of the model.
        grad_clip: largest global norm of the gradients, or None.
        seed: of all that is random.
        after_step: called after every update of the weights, such as `ModelEma.update`.
        grad_norm: of the last update, before clipping.
    """

    model: nn.Layer
    normalize: Normalize
    criterion: Criterion
    optimizer: paddle.optimizer.Optimizer
    mix: Mix = plain_labels
    precision: Precision = dataclasses.field(default_factory=Precision)
    grad_clip: float | None = None
    seed: int = 0
    after_step: Callable[[], None] = lambda: None
    grad_norm: float = 0.0

    def run(self, batches: Sequence[Batch], place: Place, num_images: int, totals: Totals) -> None:
        """Makes the step, unless its gradients overflow in float16.

        Args:
            batches: of this process, which may have none.
            place: of the step.
            num_images: that all processes have in this step.
            totals: gets losses and accuracies, which are against the labels, mixed or not.

        Raises:
            CaitError: a loss or the norm of the gradients is not finite in one of the processes; all raise it.
        """
        losses = self._backward(batches, place, num_images, totals)
        collectives.sum_gradients(self.model.parameters())
        self.precision.unscale(self.optimizer)
        *values, norm = paddle.stack([*losses, gradient_norm(self.model.parameters()).astype("float64")]).tolist()
        overflows = not math.isfinite(norm) and self.precision.may_overflow  # the same in all processes
        self._check(values, 0.0 if overflows else norm, batches, place)
        if self.grad_clip is not None and not overflows:
            clip_gradients(self.model.parameters(), norm, self.grad_clip)
        self.precision.step(self.optimizer)
        self.optimizer.clear_grad(set_to_zero=False)  # with zeros, each gradient is filled and then added to
        if not overflows:
            self.grad_norm = norm
            self.after_step()

    def _backward(self, batches: Sequence[Batch], place: Place, num_images: int, totals: Totals) -> list[paddle.Tensor]:
        """Adds the gradients of this process's batches; the mean loss [] of each, which stays on the device."""
        paddle.seed(derive_seed(self.seed, place.epoch, place.step, collectives.rank()))
        losses = []
        for number, batch in enumerate(batches, place.first_batch):
            loss, logits = self._forward(batch, place.epoch, number)
            self.precision.backward(loss * (batch.labels.shape[0] / num_images))
            totals.add(loss, logits, batch.labels)
            losses.append(loss.detach().astype("float64"))
        return losses

    def _forward(self, batch: Batch, epoch: int, number: int) -> tuple[paddle.Tensor, paddle.Tensor]:
        rng = batch_generator(self.seed, epoch, number, collectives.rank())
        images, targets = self.mix(self.normalize(batch.images, batch.erased), batch.labels, rng)
        logits = self.precision.run(self.model, images)
        return self.criterion(logits, targets), logits

    def _forward_again(self, batches: Sequence[Batch], place: Place) -> None:
        paddle.seed(derive_seed(self.seed, place.epoch, place.step, collectives.rank()))
        for number, batch in enumerate(batches, place.first_batch):
            self._forward(batch, place.epoch, number)

    def _check(self, losses: Sequence[float], norm: float, batches: Sequence[Batch], place: Place) -> None:
        wrong = _not_finite(losses, norm)
        if not collectives.total(bool(wrong)):
            return
        where = f"epoch {place.epoch}, step {place.step}, learning rate {self.optimizer.get_lr():.3g}"
        why = f"{wrong} at {where}; {explain(self.model, functools.partial(self._forward_again, batches, place))}"
        collectives.raise_first(CaitError(why) if wrong else None, is_cause=LOSS_IS in wrong)


def _not_finite(losses: Sequence[float], norm: float) -> str:
    """What of a step is not finite, in words; empty if all is."""
    for value in losses:
        if not math.isfinite(value):
            return f"{LOSS_IS} {value}"
    return "" if math.isfinite(norm) else f"the norm of the gradients is {norm}"
