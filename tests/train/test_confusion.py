"""The confusion matrix and the accuracy of each class."""

import csv

import numpy as np
import paddle

from cait.train import jobs
from cait.train.confusion import ConfusionMatrix, write_confusion


def test_counts_and_files(tmp_path):
    matrix = ConfusionMatrix(3)
    matrix.add(paddle.to_tensor([[1.0, 0, 0], [0, 2, 0], [0, 1, 0]]), paddle.to_tensor([0, 1, 0]))
    matrix.add(paddle.to_tensor([[1.0, 0, 0]]), paddle.to_tensor([0]))
    assert matrix.read().tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    write_confusion(tmp_path, matrix.read(), ["a", "b, or c", "d"])
    with open(tmp_path / "per_class.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row.values())[1:] for row in rows] == [
        ["a", "3", "2", "0.6667"], ["b, or c", "1", "1", "1.0000"], ["d", "0", "0", ""],
    ]  # fmt: skip
    with open(tmp_path / "confusion.csv", encoding="utf-8-sig", newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["label", "0", "1", "2"] and table[1] == ["0", "2", "1", "0"]


def test_an_evaluation_writes_them_on_request(tiny_config, tiny_weights, tmp_path):
    config = {"EVAL": True, "MODEL__PRETRAINED": str(tiny_weights[2])}
    jobs.run(tiny_config(**config))
    assert not list((tmp_path / "run").glob("*.csv"))
    result = jobs.evaluate(tiny_config(**config, EVALUATE__CONFUSION=True))
    counts = np.loadtxt(tmp_path / "run" / "confusion.csv", delimiter=",", skiprows=1, dtype="int64")[:, 1:]
    assert counts.sum() == 20 and counts.trace() == result.counts()["correct_at_1"] == round(result.acc1 * 20)
