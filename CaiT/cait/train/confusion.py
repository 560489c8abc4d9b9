"""The confusion matrix of an evaluation, and the accuracy of each class."""

import csv
import pathlib
from collections.abc import Iterable

import numpy as np
import paddle

from cait.distributed import collectives
from cait.files import CSV_ENCODING, writing

TABLES = ("confusion.csv", "per_class.csv")
CLASS_COLUMNS = ("class_id", "class_name", "num_images", "correct_at_1", "accuracy")


class ConfusionMatrix:
    """Counts of (label, likeliest class) over the images of all processes.

    Args:
        num_classes: C, of the model.
    """

    def __init__(self, num_classes: int):
        self.counts = np.zeros((num_classes, num_classes), "int64")
        self.unreadable = np.zeros(num_classes, "int64")

    def add(self, logits: paddle.Tensor, labels: paddle.Tensor) -> None:
        """Counts a batch: logits [B, C], labels int64 [B]."""
        np.add.at(self.counts, (labels.numpy(), logits.argmax(axis=1).numpy()), 1)

    def add_unreadable(self, labels: Iterable[int]) -> None:
        """Counts images that have a label and no answer."""
        np.add.at(self.unreadable, np.fromiter(labels, "int64"), 1)

    def read_unreadable(self) -> np.ndarray:
        """int64 [C]: how many images of each class had no answer."""
        return collectives.sum_over_processes(paddle.to_tensor(self.unreadable)).numpy()

    def read(self) -> np.ndarray:
        """int64 [C, C]: how many images of the class of the row were taken for that of the column."""
        return collectives.sum_over_processes(paddle.to_tensor(self.counts)).numpy()


def _write_csv(path: pathlib.Path, rows: Iterable[Iterable]) -> None:
    with writing(path, CSV_ENCODING) as file:
        csv.writer(file).writerows(rows)


def write_confusion(
    folder: pathlib.Path, counts: np.ndarray, class_names: list[str], unreadable: np.ndarray | None = None
) -> None:
    """Writes `confusion.csv`, whose first row and column are class ids, and `per_class.csv`, a line a class.

    A class without images has no accuracy; its field is empty. Unreadable images count as wrong, and if there are any
    they are the last column of `confusion.csv`.

    Args:
        folder: of the files.
        counts: as `ConfusionMatrix.read` gives them.
        class_names: in the order of the ids.
        unreadable: as `ConfusionMatrix.read_unreadable` gives them; None: there are none.
    """
    unreadable = np.zeros(len(counts), "int64") if unreadable is None else unreadable
    ids = range(len(counts))
    table = [["label", *ids], *([label, *counts[label].tolist()] for label in ids)]
    if unreadable.any():
        for row, value in zip(table, ["unreadable", *unreadable.tolist()]):
            row.append(value)
    _write_csv(folder / "confusion.csv", table)
    rows = []
    for label in ids:
        images, correct = int(counts[label].sum() + unreadable[label]), int(counts[label, label])
        rows.append((label, class_names[label], images, correct, f"{correct / images:.4f}" if images else ""))
    _write_csv(folder / "per_class.csv", [CLASS_COLUMNS, *rows])
