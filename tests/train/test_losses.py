"""Losses whose values are easy to see; test_align.py compares them with the reference's."""

import numpy as np
import paddle
import pytest

from cait.train import losses

LOGITS = paddle.to_tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
LABELS = paddle.to_tensor([0, 2])


def test_without_smoothing_it_is_the_cross_entropy():
    expected = paddle.nn.functional.cross_entropy(LOGITS, LABELS)
    assert float(losses.label_smoothing_cross_entropy(0.0)(LOGITS, LABELS)) == pytest.approx(float(expected), rel=1e-6)
    one_hot = losses.smooth_labels(LABELS, 3, 0.0)
    assert float(losses.soft_target_cross_entropy(LOGITS, one_hot)) == pytest.approx(float(expected), rel=1e-6)


def log_softmax(logits):
    """In float64 by NumPy."""
    shifted = np.float64(logits) - np.max(logits, axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


KINDS = {
    "hard": (losses.cross_entropy, lambda labels, soft: labels),
    "smoothed": (losses.label_smoothing_cross_entropy(0.1), lambda labels, soft: labels),
    "soft": (losses.soft_target_cross_entropy, lambda labels, soft: soft),
    "a teacher's decision": (losses.hard_distillation, lambda labels, soft: paddle.nn.functional.one_hot(labels, 5)),
}


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_of_any_size_are_right(kind, scale):
    """Paddle's own log-softmax stops at -64 on CPUs."""
    rng = np.random.default_rng(0)
    values, labels = (rng.standard_normal((7, 5)) * scale).astype("float32"), rng.integers(0, 5, 7)
    soft = rng.dirichlet(np.ones(5), 7).astype("float32")
    criterion, targets_of = KINDS[kind]
    logits = paddle.to_tensor(values, stop_gradient=False)
    loss = criterion(logits, targets_of(paddle.to_tensor(labels), paddle.to_tensor(soft)))
    loss.backward()
    one_hot = np.eye(5)[labels]
    targets = {"smoothed": one_hot * 0.9 + 0.1 / 5, "soft": np.float64(soft)}.get(kind, one_hot)
    expected = -(targets * log_softmax(values)).sum(axis=1).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    gradient = (np.exp(log_softmax(values)) * targets.sum(axis=1, keepdims=True) - targets) / 7
    np.testing.assert_allclose(logits.grad.numpy(), gradient, atol=1e-6)


def test_a_distillation_of_any_size_is_right():
    rng = np.random.default_rng(0)
    student, teacher = (rng.standard_normal((2, 7, 5)) * 300).astype("float32")
    found = losses.soft_distillation(paddle.to_tensor(student), paddle.to_tensor(teacher), 2.0)
    ours, theirs = log_softmax(student / 2), log_softmax(teacher / 2)
    assert float(found) == pytest.approx((np.exp(theirs) * (theirs - ours)).sum() * 4 / 35, rel=1e-6)


@pytest.mark.parametrize("row", [[-np.inf, 0.0], [-np.inf, -np.inf], [np.inf, 0.0], [np.nan, 0.0]])
def test_logits_that_are_not_finite_give_no_finite_loss(row):
    logits, labels = paddle.to_tensor([row, [0.0, 1.0]], dtype="float64"), paddle.to_tensor([0, 1])
    assert not np.isfinite(float(losses.cross_entropy(logits, labels)))
    assert not np.isfinite(float(losses.label_smoothing_cross_entropy(0.1)(logits, labels)))


def test_smoothing_spreads_over_all_classes():
    rows = losses.smooth_labels(LABELS, 3, 0.3).numpy()
    np.testing.assert_allclose(rows, [[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], rtol=1e-6)


def test_distillation_from_oneself():
    assert float(losses.soft_distillation(LOGITS, LOGITS, 3.0)) == pytest.approx(0, abs=1e-7)
    decisions = LOGITS.argmax(axis=-1)
    expected = paddle.nn.functional.cross_entropy(LOGITS, decisions)
    assert float(losses.hard_distillation(LOGITS, LOGITS)) == pytest.approx(float(expected), rel=1e-6)


def test_training_smooths_labels_as_the_config_says(tiny_config, tmp_path):
    from cait.records.metrics import read_metrics
    from cait.train import jobs

    values = []
    for smoothing in (0.0, 0.5):
        folder = tmp_path / str(smoothing)
        jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1, TRAIN__SMOOTHING=smoothing, OUTPUT_DIR=str(folder)))
        values.append(read_metrics(folder / "metrics.jsonl")[0]["train_loss"])
    assert values[0] != values[1]
