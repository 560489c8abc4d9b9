"""The numbers of a run and their picture."""

import numpy as np
import pytest
from PIL import Image

from cait.errors import CaitError
from cait.records.metrics import plot_learning_curves, read_metrics, write_metrics
from runs import ROWS


def test_rows_return_as_they_were(tmp_path):
    write_metrics(tmp_path / "metrics.jsonl", ROWS)
    assert read_metrics(tmp_path / "metrics.jsonl") == ROWS


@pytest.mark.parametrize("line, words", [('{"epo', "is not JSON"), ("[1]", "must be an object"), ("{}", "`epoch`")])
def test_a_broken_line_is_named(tmp_path, line, words):
    (tmp_path / "metrics.jsonl").write_text(f'{{"epoch": 1}}\n{line}')
    with pytest.raises(CaitError, match=f"line 2 .*{words}"):
        read_metrics(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1]])
def test_the_picture_has_curves(tmp_path, rows):
    plot_learning_curves({"a run": rows}, tmp_path / "curves.png", "a run")
    with Image.open(tmp_path / "curves.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] > 1000
    blue = (pixels[..., 2] > 150) & (pixels[..., 0] < 80)  # the first curve's colour
    assert blue.sum() > 20


def test_several_runs_share_the_axes_and_differ_in_colour(tmp_path):
    runs = {"_first": ROWS, "a $ second": ROWS[:2], "二\udce9": [{"epoch": 1, "train_loss": 1.0, "lr": None}]}
    plot_learning_curves(runs, tmp_path / "curves.png", "runs")
    with Image.open(tmp_path / "curves.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype("int64")
    for colour in ((31, 119, 180), (255, 127, 14), (44, 160, 44)):  # matplotlib's first three
        assert (np.abs(pixels - colour).max(axis=-1) < 20).sum() > 20
