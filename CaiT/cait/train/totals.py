"""Loss and accuracy over many batches, summed on the device."""

from collections.abc import Sequence

import paddle

from cait.distributed import collectives


def topk_hits(logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    """Marks the label among the five likeliest classes: [B, classes], [B] -> bool [B, min(5, classes)]."""
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
