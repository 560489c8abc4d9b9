"""One evaluation, one prediction: the loops and nothing else."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import paddle
from paddle import nn
from paddle.nn import functional as F

from cait.data.loader import BadImage, Batch, ImageLoader
from cait.data.normalize import Normalize
from cait.distributed import collectives
from cait.errors import CaitError
from cait.records.log import progress
from cait.train.losses import cross_entropy
from cait.train.mixed_precision import Precision
from cait.train.totals import Totals


class EvalResult(NamedTuple):
    """Of one data set: mean loss, accuracies (0-1), the images they are shares of, seconds, images not readable."""

    loss: float
    acc1: float
    acc5: float
    num_images: int
    seconds: float
    num_unreadable: int = 0

    def counts(self) -> dict[str, float]:
        """The counts of images that the accuracies are made of, and the loss unrounded."""
        correct = {
            "correct_at_1": round(self.acc1 * self.num_images),
            "correct_at_5": round(self.acc5 * self.num_images),
        }
        return {"num_images": self.num_images} | correct | {"loss": self.loss, "unreadable": self.num_unreadable}

    def words(self, name: str = "Validation") -> str:
        """The result as the log shows it."""
        return (
            f"{name} Loss: {self.loss:.4f}, {name} Acc@1: {self.acc1:.4f}, {name} Acc@5: {self.acc5:.4f}, "
            f"time: {self.seconds:.2f}"
        )


class Classifier(NamedTuple):
    """A model with what it needs to classify a batch of a loader."""

    model: nn.Layer
    normalize: Normalize
    precision: Precision

    def logits(self, batch: Batch) -> paddle.Tensor:
        """The logits [B, classes] of a batch, in the precision of its images."""
        return self.precision.run(self.model, self.normalize(batch.images))


@paddle.no_grad()
def evaluate(
    classifier: Classifier,
    loader: ImageLoader,
    log: logging.Logger,
    *,
    report_freq: int = 100,
    head: str = "Val",
    see: Callable[[paddle.Tensor, paddle.Tensor], None] = lambda logits, labels: None,
    bad_is_wrong: bool = True,
) -> EvalResult:
    """Cross-entropy and accuracy over the whole data set, from counts of images; log lines start with `head`.

    Each process has its share of the images, without any of them twice, and may have more batches than another, or
    none: they meet at the end alone, so that the lines on the way tell of this process's share. The loss of an image
    is computed and summed in float64, so that the sum does not depend on who had which. `see` gets the logits and
    labels of every batch, such as `ConfusionMatrix.add`.

    Images that the loader leaves out have no loss. They count as wrong in the accuracies if `bad_is_wrong`, and
    otherwise not at all; the log tells how many there are in all processes.

    Raises:
        CaitError: the loss is not finite, no image could be read, or the loader raised it in one of the processes; all
            raise it.
    """
    classifier.model.eval()
    totals, started, error = Totals(), time.perf_counter(), None
    try:
        for step, batch in enumerate(progress(loader, log, len(loader), head)):
            logits = classifier.logits(batch).astype("float64")
            totals.add(cross_entropy(logits, batch.labels), logits, batch.labels)
            see(logits, batch.labels)
            if step % report_freq == 0:
                loss, acc1, acc5, _ = totals.read()
                log.info(
                    f"{head} Step[{step:04d}/{len(loader):04d}], Avg Loss: {loss:.4f}, "
                    f"Avg Acc@1: {acc1:.4f}, Avg Acc@5: {acc5:.4f}"
                )
    except CaitError as found:
        error = found
    collectives.raise_first(error)
    num_bad = _report_images(loader, log, head, bad_is_wrong)
    numbers = totals.read(over_processes=True, more_wrong=num_bad if bad_is_wrong else 0)
    result = EvalResult(*numbers, time.perf_counter() - started, num_bad)
    if not math.isfinite(result.loss):
        raise CaitError(f"the loss is {result.loss} at validation: the weights give logits that are not finite")
    return result


def _report_images(loader: ImageLoader, log: logging.Logger, head: str, bad_is_wrong: bool) -> int:
    """Warns of the images of all processes that could not be read, or were scaled; how many could not be read.

    Raises:
        CaitError: none of them could be read.
    """
    bad = [image for images in collectives.gather([tuple(image) for image in loader.bad]) for image in images]
    if bad:
        _, _, first = min(bad)
        if len(bad) == len(loader.dataset):
            raise CaitError(f"{head}: none of the {len(bad)} images could be read, the first: {first}")
        words = "count as wrong" if bad_is_wrong else "are left out"
        log.warning(
            f"{head}: {len(bad)} of {len(loader.dataset)} images cannot be read and {words}, the first: {first}"
        )
    if num_scaled := collectives.total(loader.num_scaled):
        log.warning(
            f"{head}: {num_scaled} grey images of 16 bits were scaled to 8, where timm and torchvision cut all values "
            "above 255; -o DATA.DEEP_GREY=clip gives their pixels"
        )
    return len(bad)


class Prediction(NamedTuple):
    """Of one image: its name, (class index, probability) with the likeliest first, or why it could not be read."""

    name: str
    classes: list[tuple[int, float]]
    error: str


@paddle.no_grad()
def predict(classifier: Classifier, loader: ImageLoader, log: logging.Logger, *, top_k: int) -> Iterator[Prediction]:
    """Yields what the model makes of each image, in their order, with softmax probabilities of `top_k` classes.

    The loader must neither shuffle nor share its images with other processes. Those that it leaves out come in their
    places, without classes.
    """
    names, num_bad = loader.dataset.source.names, 0
    classifier.model.eval()
    for batch in progress(loader, log, len(loader), "Pred"):
        probabilities = F.softmax(classifier.logits(batch).astype("float32"), axis=1)
        values, classes = paddle.topk(probabilities, k=min(top_k, probabilities.shape[1]), axis=1)
        for index, row_classes, row_values in zip(batch.indices.tolist(), classes.tolist(), values.tolist()):
            while num_bad < len(loader.bad) and loader.bad[num_bad].index < index:
                yield _not_predicted(names, loader.bad[num_bad])
                num_bad += 1
            yield Prediction(names[index], list(zip(row_classes, row_values)), "")
    for image in loader.bad[num_bad:]:
        yield _not_predicted(names, image)


def _not_predicted(names: Sequence[str], image: BadImage) -> Prediction:
    return Prediction(names[image.index], [], image.error)
