"""Mixup and cutmix: every image of a batch is mixed with the one that stands opposite, and so are the targets.

Papers: mixup (Zhang et al. 2017, arXiv 1710.09412), CutMix (Yun et al. 2019, arXiv 1905.04899). Reference: timm
`Mixup` in its mode `batch`, which DeiT trains with.
"""

import dataclasses
import math

import numpy as np
import paddle

from cait.train.losses import smooth_labels


@dataclasses.dataclass(frozen=True)
class Mixup:
    """Images [B, C, height, width], labels int64 [B], generator -> mixed images, targets [B, num_classes].

    The targets are those of soft-target cross-entropy. In a batch of odd size the image in the middle stays as it is.

    Attributes:
        num_classes: width of the targets.
        mixup_alpha: both parameters of the Beta distribution of mixup's share; 0: no mixup.
        cutmix_alpha: the same of cutmix; 0: no cutmix.
        prob: probability that a batch is mixed at all.
        switch_prob: probability of cutmix, where both are on.
        smoothing: of the labels, before they are mixed.
    """

    num_classes: int
    mixup_alpha: float
    cutmix_alpha: float
    prob: float = 1.0
    switch_prob: float = 0.5
    smoothing: float = 0.0

    def __call__(
        self, images: paddle.Tensor, labels: paddle.Tensor, rng: np.random.Generator
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        share = 1.0
        is_cutmix = self.cutmix_alpha > 0 and (self.mixup_alpha == 0 or rng.random() < self.switch_prob)
        alpha = self.cutmix_alpha if is_cutmix else self.mixup_alpha
        if alpha > 0 and rng.random() < self.prob:
            share = float(rng.beta(alpha, alpha))
            if is_cutmix:
                images, share = cutmix(images, share, rng)
            else:
                images = _mixed(images, share)
        return images, _mixed(smooth_labels(labels, self.num_classes, self.smoothing), share)


def _mixed(rows: paddle.Tensor, share: float) -> paddle.Tensor:
    """`share` of each row and the rest of the opposite one: [B, ...] -> same."""
    # Tensors, not Python numbers, which PaddlePaddle 2.6 rounds to float32.
    own, other = (paddle.to_tensor(value, dtype=rows.dtype) for value in (share, 1.0 - share))
    return rows * own + rows.flip([0]) * other


def cutmix(images: paddle.Tensor, share: float, rng: np.random.Generator) -> tuple[paddle.Tensor, float]:
    """Pastes a rectangle of the opposite image into each image.

    Args:
        images: [B, C, height, width].
        share: of the image that shall remain; the rectangle has the shape of the image and a random centre, and what
            of it lies outside is lost.

    Returns:
        The images, and the share that did remain.
    """
    height, width = images.shape[2:]
    cut_height, cut_width = (int(side * math.sqrt(1.0 - share)) for side in (height, width))
    row, column = int(rng.integers(height)), int(rng.integers(width))
    top, bottom = max(0, row - cut_height // 2), min(height, row + (cut_height + 1) // 2)
    left, right = max(0, column - cut_width // 2), min(width, column + (cut_width + 1) // 2)
    inside = np.zeros((1, 1, height, width), bool)
    inside[:, :, top:bottom, left:right] = True
    mixed = paddle.where(paddle.to_tensor(inside), images.flip([0]), images)
    return mixed, 1.0 - (bottom - top) * (right - left) / (height * width)


def plain_labels(
    images: paddle.Tensor, labels: paddle.Tensor, rng: np.random.Generator
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Replaces `Mixup` where nothing is mixed: returns images and labels unchanged."""
    return images, labels
