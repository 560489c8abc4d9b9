"""The learning-rate schedule: its value in every epoch, its peak for a batch size, its text in the log."""

import math


def learning_rate(
    epoch: int, num_epochs: int, base_lr: float, warmup_start_lr: float, end_lr: float, warmup_epochs: int
) -> float:
    """The learning rate of one epoch: linear warm-up, then a cosine over the whole length (timm `CosineLRScheduler`).

    Args:
        epoch: from 0.
        num_epochs: length of the run, warm-up included.
        base_lr: peak.
        warmup_start_lr: value in epoch 0, if there is a warm-up.
        end_lr: value the cosine reaches after the last epoch.
        warmup_epochs: length of the warm-up.
    """
    if epoch < warmup_epochs:
        return warmup_start_lr + epoch * (base_lr - warmup_start_lr) / warmup_epochs
    return end_lr + 0.5 * (base_lr - end_lr) * (1.0 + math.cos(math.pi * epoch / num_epochs))


def learning_rate_text(rate: float) -> str:
    """A learning rate for the log: six decimals, or as many as show three digits of it; never an exponent."""
    decimals = 6 if rate <= 0 else max(6, 2 - math.floor(math.log10(rate)))
    whole, point, fraction = f"{rate:.{decimals}f}".partition(".")
    return whole + point + fraction[:6] + fraction[6:].rstrip("0")


def scaled_learning_rate(base_lr: float, images_per_step: int, reference: int | None) -> float:
    """`base_lr`, meant for `reference` images a step, in proportion to the actual number; None: no scaling."""
    return base_lr if reference is None else base_lr * images_per_step / reference
