"""Losses whose values are easy to see; test_align.py compares them with the reference's."""

import numpy as np
import paddle
import pytest

from cait import losses

LOGITS = paddle.to_tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
LABELS = paddle.to_tensor([0, 2])


def test_without_smoothing_it_is_the_cross_entropy():
    expected = paddle.nn.functional.cross_entropy(LOGITS, LABELS)
    assert float(losses.label_smoothing_cross_entropy(0.0)(LOGITS, LABELS)) == float(expected)
    one_hot = losses.smooth_labels(LABELS, 3, 0.0)
    assert float(losses.soft_target_cross_entropy(LOGITS, one_hot)) == pytest.approx(float(expected), rel=1e-6)


def test_smoothing_spreads_over_all_classes():
    rows = losses.smooth_labels(LABELS, 3, 0.3).numpy()
    np.testing.assert_allclose(rows, [[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], rtol=1e-6)


def test_distillation_from_oneself():
    assert float(losses.soft_distillation(LOGITS, LOGITS, 3.0)) == pytest.approx(0, abs=1e-7)
    decisions = LOGITS.argmax(axis=-1)
    expected = paddle.nn.functional.cross_entropy(LOGITS, decisions)
    assert float(losses.hard_distillation(LOGITS, LOGITS)) == float(expected)


def test_training_smooths_labels_as_the_config_says(tiny_config, tmp_path):
    from cait import jobs
    from cait.metrics import read_metrics

    values = []
    for smoothing in (0.0, 0.5):
        folder = tmp_path / str(smoothing)
        jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1, TRAIN__SMOOTHING=smoothing, OUTPUT_DIR=str(folder)))
        values.append(read_metrics(folder / "metrics.jsonl")[0]["train_loss"])
    assert values[0] != values[1]
