"""Which class was taken for which: the confusion matrix of an evaluation, and the accuracy of each class."""

import csv
import pathlib
from collections.abc import Iterable

import numpy as np
import paddle

from cait import dist
from cait.files import CSV_ENCODING, writing

CLASS_COLUMNS = ("class_id", "class_name", "num_images", "correct_at_1", "accuracy")


class ConfusionMatrix:
    """Counts of (label, likeliest class) over the images of all processes.

    Args:
        num_classes: C, of the model.
    """

    def __init__(self, num_classes: int):
        self.counts = np.zeros((num_classes, num_classes), "int64")

    def add(self, logits: paddle.Tensor, labels: paddle.Tensor) -> None:
        """Counts a batch: logits [B, C], labels int64 [B]."""
        np.add.at(self.counts, (labels.numpy(), logits.argmax(axis=1).numpy()), 1)

    def read(self) -> np.ndarray:
        """int64 [C, C]: how many images of the class of the row were taken for that of the column."""
        return dist.sum_over_processes(paddle.to_tensor(self.counts)).numpy()


def _write_csv(path: pathlib.Path, rows: Iterable[Iterable]) -> None:
    with writing(path, CSV_ENCODING) as file:
        csv.writer(file).writerows(rows)


def write_confusion(folder: pathlib.Path, counts: np.ndarray, class_names: list[str]) -> None:
    """Writes `confusion.csv`, whose first row and column are class ids, and `per_class.csv`, a line a class.

    A class without images has no accuracy; its field is empty.
    """
    ids = range(len(counts))
    _write_csv(folder / "confusion.csv", [("label", *ids), *((label, *counts[label].tolist()) for label in ids)])
    rows = []
    for label in ids:
        images, correct = int(counts[label].sum()), int(counts[label, label])
        rows.append((label, class_names[label], images, correct, f"{correct / images:.4f}" if images else ""))
    _write_csv(folder / "per_class.csv", [CLASS_COLUMNS, *rows])
