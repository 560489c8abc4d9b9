"""Losses: the mean over the batch of a cross-entropy with hard, smoothed or soft targets, and distillation.

Definitions of DeiT (`losses.py`) and timm (`timm/loss`). Logits are [B, C]; labels int64 [B]; targets [B, C].
"""

from collections.abc import Callable
from typing import Any

import paddle
from paddle.nn import functional as F

Criterion = Callable[[paddle.Tensor, Any], paddle.Tensor]  # (logits, targets) -> mean loss []


def log_softmax(logits: paddle.Tensor) -> paddle.Tensor:
    """`log softmax` along the last axis, whatever its size.

    Not by `F.log_softmax` or `F.cross_entropy`, which stop at -64 on CPUs: a loss of 100 would be 64, and one of logits
    of -inf finite.
    """
    shifted = logits - logits.detach().max(axis=-1, keepdim=True)
    return shifted - shifted.exp().sum(axis=-1, keepdim=True).log()


def cross_entropy(logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    """Mean over the batch of `-log softmax(logits)[label]`."""
    return F.nll_loss(log_softmax(logits), labels)


def soft_target_cross_entropy(logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
    """Mean over the batch of `sum(-target * log softmax(logits))`; the rows of `targets` sum to one."""
    return -(targets * log_softmax(logits)).sum(axis=-1).mean()


def smooth_labels(labels: paddle.Tensor, num_classes: int, smoothing: float) -> paddle.Tensor:
    """One-hot rows [B, C] with `smoothing` spread evenly over all classes, the right one included."""
    dtype = paddle.get_default_dtype()
    # Tensors, not Python numbers, which PaddlePaddle 2.6 rounds to float32.
    share, rest = (paddle.to_tensor(value, dtype=dtype) for value in (1.0 - smoothing, smoothing / num_classes))
    return F.one_hot(labels, num_classes).astype(dtype) * share + rest


def label_smoothing_cross_entropy(smoothing: float) -> Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]:
    """(logits, labels) -> mean cross-entropy against smoothed labels; 0: the plain cross-entropy."""

    def criterion(logits, labels):
        if smoothing == 0.0:
            return cross_entropy(logits, labels)
        return soft_target_cross_entropy(logits, smooth_labels(labels, logits.shape[1], smoothing).astype(logits.dtype))

    return criterion


def hard_distillation(logits: paddle.Tensor, teacher_logits: paddle.Tensor) -> paddle.Tensor:
    """Cross-entropy against the teacher's decision."""
    return cross_entropy(logits, teacher_logits.argmax(axis=-1))


def soft_distillation(logits: paddle.Tensor, teacher_logits: paddle.Tensor, tau: float) -> paddle.Tensor:
    """Kullback-Leibler divergence at temperature `tau`, times tau^2, over all B * C elements, as DeiT defines it."""
    log_student, log_teacher = log_softmax(logits / tau), log_softmax(teacher_logits / tau)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum()
    return divergence * tau**2 / (logits.shape[0] * logits.shape[1])


def distillation(criterion: Criterion, kind: str, alpha: float, tau: float) -> Criterion:
    """(logits, (targets, teacher's logits)) -> `(1 - alpha) * criterion + alpha * distillation` (DeiT `losses.py`).

    Args:
        criterion: (logits, targets) -> loss without a teacher.
        kind: "hard" or "soft".
        alpha: share of the teacher.
        tau: temperature, of the soft kind.
    """

    def distilled(logits, targets):
        targets, teacher_logits = targets
        if kind == "hard":
            taught = hard_distillation(logits, teacher_logits)
        else:
            taught = soft_distillation(logits, teacher_logits, tau)
        return criterion(logits, targets) * (1 - alpha) + taught * alpha

    return distilled
