"""The alignment ladder: step by step, this CaiT against the reference.

Every rung computes named arrays on our side; a reference (`align_golden`, `align_live`) has the same
names with the values they should have. The verdict is a bound on the largest difference; shapes must be equal and every
value finite. All is computed in Paddle's default type: in float64 a wrong formula stands out from rounding, and float32
shows that a device computes as it should. The reference is in float64 either way.
"""

import contextlib
import io
import logging
import pathlib
from typing import Protocol

import numpy as np
import paddle
from paddle.nn.utils import clip_grad_norm_
from PIL import Image

from cait.align.verdict import MIXED_TARGETS, NORMALISED, STEPS, TOLERANCES, Arrays, Row, compare
from cait.config.read import make_config
from cait.data.normalize import Normalize
from cait.data.transforms import EvalTransform
from cait.files import write_text
from cait.model import CaiT
from cait.records.predictions import write_reprod_log
from cait.train import losses
from cait.train.optim import adamw
from cait.train.schedule import learning_rate
from cait.train.totals import topk_hits
from cait.weights.layout import swap_layout

SMOOTHING, MIXED, TAU, ALPHA = 0.1, 0.3, 3.0, 0.5
NUM_STEPS, TRAINING = 10, {"lr": 1e-3, "weight_decay": 0.05}
SCHEDULES: dict[str, tuple] = {  # epochs, peak, start, end, warm-up
    "paper_400": (400, 5e-4, 1e-6, 1e-5, 5),
    "short_100": (100, 1e-4, 1e-6, 1e-6, 3),
    "finetune_30_const": (30, 5e-6, 5e-6, 5e-6, 0),
}


class Reference(Protocol):
    """What our side is compared with; `steps` says which rungs it can judge."""

    name: str
    steps: tuple[int, ...]

    def our_model(self) -> CaiT: ...
    def images(self) -> np.ndarray: ...
    def labels(self) -> np.ndarray: ...
    def teacher_logits(self) -> np.ndarray: ...
    def mixed_targets(self) -> np.ndarray: ...
    def pictures(self) -> dict[str, tuple[Image.Image, int, float]]: ...
    def expected(self, step: str) -> Arrays: ...


def _tensor(array: np.ndarray) -> paddle.Tensor:
    return paddle.to_tensor(array, paddle.get_default_dtype())


def forward(model: CaiT, images: np.ndarray) -> Arrays:
    """Rung 1: logits, class feature after the last norm, and mean and deviation of every block's output."""
    outputs = []
    hooks = [
        block.register_forward_post_hook(lambda layer, inputs, output: outputs.append(output.numpy()))
        for block in [*model.blocks, *model.blocks_token_only]
    ]
    model.eval()
    with paddle.no_grad():
        logits = model(_tensor(images))
        for hook in hooks:
            hook.remove()
        feature = model.forward_features(_tensor(images))[:, 0]
    moments = [[x.mean(), x.std()] for x in outputs]
    return {"logits": logits.numpy(), "cls_feature": feature.numpy(), "block_mean_std": np.array(moments)}


def preprocessing(pictures: dict[str, tuple[Image.Image, int, float]]) -> Arrays:
    """Rung 2: pixels of the evaluation transform (picture, size and crop share by name), the first ones normalised."""
    pixels = {name: EvalTransform((size, size), pct)(picture) for name, (picture, size, pct) in pictures.items()}
    first = next(iter(pixels.values()))[None]
    data = make_config({}).DATA
    normalize = Normalize(data.MEAN, data.STD, paddle.get_default_dtype())
    return pixels | {NORMALISED: normalize(paddle.to_tensor(first)).numpy()[0]}


def accuracies(logits: np.ndarray, labels: np.ndarray) -> Arrays:
    """Rung 2, metrics: images whose class is the first, and among the first five."""
    hits = topk_hits(paddle.to_tensor(logits), paddle.to_tensor(labels)).numpy()
    return {"correct@1": hits[:, 0].sum(), "correct@5": hits.sum()}


def criteria(labels: np.ndarray, teacher_logits: np.ndarray, mixed_targets: np.ndarray) -> dict:
    """Rung 3: the losses of the recipe by name, each (logits) -> loss."""
    labels, teacher, mixed = paddle.to_tensor(labels), _tensor(teacher_logits), _tensor(mixed_targets)
    hard, soft = (losses.distillation(losses.cross_entropy, kind, ALPHA, TAU) for kind in ("hard", "soft"))
    return {
        "cross_entropy": lambda logits: losses.cross_entropy(logits, labels),
        "label_smoothing_0.1": lambda logits: losses.label_smoothing_cross_entropy(SMOOTHING)(logits, labels),
        "soft_target_mixup_lam0.3_smooth0.1": lambda logits: losses.soft_target_cross_entropy(logits, mixed),
        "hard_distill_a0.5": lambda logits: hard(logits, (labels, teacher)),
        "soft_distill_a0.5_tau3": lambda logits: soft(logits, (labels, teacher)),
    }


def gradients(model: CaiT, images: np.ndarray, criterion) -> tuple[float, Arrays]:
    """The loss and the gradient of every parameter, in PyTorch's layout."""
    model.eval()  # no drop path, no dropout
    loss = criterion(model(_tensor(images)))
    loss.backward()
    found = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    model.clear_gradients()
    return float(loss), swap_layout(found)


def loss_values(model: CaiT, images: np.ndarray, labels: np.ndarray, criteria_by_name: dict) -> Arrays:
    """Rung 3: every loss and the global norm of its gradient, and the targets that mixup makes of the labels."""
    smoothed = losses.smooth_labels(paddle.to_tensor(labels), model.head.weight.shape[1], SMOOTHING)
    values: Arrays = {MIXED_TARGETS: (MIXED * smoothed + (1 - MIXED) * smoothed.flip([0])).numpy()}
    for name, criterion in criteria_by_name.items():
        loss, found = gradients(model, images, criterion)
        norm = np.sqrt(sum((value.astype("float64") ** 2).sum() for value in found.values()))
        values |= {f"{name}/loss": np.array(loss), f"{name}/grad_norm": norm}
    return values


def schedules() -> Arrays:
    """Rung 4: learning rates by epoch."""
    return {
        f"schedule/{name}": np.array([learning_rate(epoch, epochs, *rates) for epoch in range(epochs)])
        for name, (epochs, *rates) in SCHEDULES.items()
    }


def training(model: CaiT, images: np.ndarray, labels: np.ndarray, clip: float | None) -> Arrays:
    """Rung 5: losses of AdamW steps on one batch, and the sum of absolute values of every parameter after them."""
    model.eval()
    optimizer = adamw(model, TRAINING["weight_decay"])
    optimizer.set_lr(TRAINING["lr"])
    images, labels, values = _tensor(images), paddle.to_tensor(labels), []
    for _ in range(NUM_STEPS):
        loss = losses.cross_entropy(model(images), labels)
        loss.backward()
        if clip is not None:
            clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.clear_grad()
        values.append(float(loss))
    prefix = f"adamw_clip{clip}"
    sums = {f"{prefix}/param_abs_sum/{n}": p.abs().sum().numpy() for n, p in model.named_parameters()}
    return {f"{prefix}/losses": np.array(values), **sums}


def our_arrays(reference: Reference, step: int) -> Arrays:
    """Returns the arrays that our side computes on a rung."""
    if step == 1:
        return forward(reference.our_model(), reference.images())
    if step == 2:
        pixels = preprocessing(reference.pictures())
        return pixels | accuracies(reference.teacher_logits(), reference.labels())
    model, images, labels = reference.our_model(), reference.images(), reference.labels()
    if step == 5:
        return training(model, images, labels, None) | training(reference.our_model(), images, labels, 1.0)
    by_name = criteria(labels, reference.teacher_logits(), reference.mixed_targets())
    if step == 3:
        return loss_values(model, images, labels, by_name)
    _, found = gradients(model, images, by_name["cross_entropy"])
    return {f"grad/{name}": value for name, value in found.items()} | schedules()


def climb(reference: Reference, steps: list[int], log_folder: pathlib.Path | None = None) -> list[Row]:
    """Runs the chosen rungs against one reference; with a folder, leaves reprod_log's files and reports there.

    reprod_log's own verdict is not used: it lets NaN and transposed arrays pass.
    """
    rows, dtype = [], paddle.get_default_dtype()
    for step in steps:
        ours, expected = our_arrays(reference, step), reference.expected(STEPS[step])
        rows += compare(reference.name, step, ours, expected, dtype)
        if log_folder is not None:
            stem = f"{reference.name}_{step}_{STEPS[step]}"
            _write_logs(log_folder, stem, ours, expected, TOLERANCES[dtype][STEPS[step]])
    return rows


def _write_logs(folder: pathlib.Path, stem: str, ours: Arrays, expected: Arrays, threshold: float) -> None:
    from reprod_log import ReprodDiffHelper

    helper, infos = ReprodDiffHelper(), []
    for side, arrays in (("paddle", {name: ours.get(name, np.nan) for name in expected}), ("reference", expected)):
        write_reprod_log(folder / f"{stem}_{side}.npy", arrays)
        infos.append(helper.load_info(str(folder / f"{stem}_{side}.npy")))
    # Its report goes to Python's root logger, with two more handlers at every call: they must not stay, nor must
    # those that are there repeat every line on the console.
    shared = logging.getLogger()
    handlers, level = shared.handlers, shared.level
    shared.handlers = []
    try:
        helper.compare_info(*infos)
        with contextlib.redirect_stdout(io.StringIO()):
            helper.report(path=str(folder / f"{stem}_diff.txt"), diff_threshold=threshold)
    except Exception as error:  # it raises where shapes differ, which our own verdict finds as well
        write_text(folder / f"{stem}_diff.txt", f"reprod_log could not compare these files: {error}\n")
    finally:
        for handler in shared.handlers:
            handler.close()
        shared.handlers = handlers
        shared.setLevel(level)
