"""What a config says of a training step: what becomes of a batch, its loss, its optimizer, its learning rate."""

from collections.abc import Callable

from yacs.config import CfgNode

from cait.data.class_names import Classes, compare_with_teacher
from cait.errors import UsageError
from cait.train.losses import distillation, label_smoothing_cross_entropy, soft_target_cross_entropy
from cait.train.mixup import Mixup, plain_labels
from cait.train.schedule import learning_rate
from cait.train.teacher import build_teacher, build_teacher_names, with_teacher


def check_recipe(config: CfgNode) -> None:
    """Checks what no single key of the config shows.

    Raises:
        UsageError: keys that exclude each other.
    """
    if config.TRAIN.FREEZE != "none" and not config.MODEL.PRETRAINED and not config.TRAIN.RESUME:
        raise UsageError(f"TRAIN.FREEZE={config.TRAIN.FREEZE} would freeze random weights; it needs -pretrained")
    if (config.AUG.MIXUP or config.AUG.CUTMIX) and config.DATA.BATCH_SIZE == 1:
        raise UsageError("AUG.MIXUP and AUG.CUTMIX mix the images of a batch: DATA.BATCH_SIZE must be above 1")


def build_mix_and_criterion(config: CfgNode, classes: Classes) -> tuple[Callable, Callable]:
    """Builds what mixes a batch, and the loss that fits it."""
    aug, distill, smoothing = config.AUG, config.DISTILL, config.TRAIN.SMOOTHING
    mix, criterion = plain_labels, label_smoothing_cross_entropy(smoothing)
    if aug.MIXUP or aug.CUTMIX:
        mix = Mixup(config.MODEL.NUM_CLASSES, aug.MIXUP, aug.CUTMIX, aug.MIX_PROB, aug.SWITCH_PROB, smoothing)
        criterion = soft_target_cross_entropy
    if distill.TYPE != "none":
        mix = with_teacher(mix, build_teacher(config))
        if names := build_teacher_names(config):
            compare_with_teacher(classes, config.DISTILL.TEACHER, names)
        criterion = distillation(criterion, distill.TYPE, distill.ALPHA, distill.TAU)
    return mix, criterion


def epoch_learning_rate(config: CfgNode, epoch: int, base_lr: float) -> float:
    """The learning rate of an epoch, from 1.

    Start and end are those of the config, as in DeiT, but never above a peak that a small batch made lower.

    DeiT's `main.py` steps its schedule after an epoch by the number of that epoch, from 0: the second epoch has the
    rate of the first one again.
    """
    train = config.TRAIN
    start, end = min(train.WARMUP_START_LR, base_lr), min(train.END_LR, base_lr)
    place = max(0, epoch - 2) if train.LR_EPOCH_LATER else epoch - 1
    return learning_rate(place, train.NUM_EPOCHS, base_lr, start, end, train.WARMUP_EPOCHS)
