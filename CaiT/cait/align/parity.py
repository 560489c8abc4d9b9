"""The parity gate: what is deployed against what was trained, on the same images."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

import numpy as np
import paddle

from cait.align.verdict import Row
from cait.data.image_files import image_files, spread
from cait.deploy.bundle import ONNX, read_description
from cait.deploy.bundle_folder import STEM, bundle_folder
from cait.deploy.classify import Reader
from cait.deploy.engine import Engine
from cait.deploy.engine_config import choose_program, why_not
from cait.deploy.onnx_file import OnnxPredictor
from cait.deploy.predictor import Predictor, allowed_difference, distances
from cait.errors import CaitError, one_line
from cait.weights.layout import check_tensors, swap_layout
from cait.weights.load import fit_weights, open_weights
from cait.zoo import model_of

STEP = 6
BATCH_SIZE = 16
MAX_IMAGES = 200
CHANGED_CLASSES = {"fp32": 0.0, "fp16": 0.01, "bf16": 0.01}  # allowed share of images whose first class differs
STATIC_PROGRAM, ONNX_RUNTIME = "static program", "ONNX Runtime"
_TENSORRT = Engine(use_gpu=True, tensorrt=True, max_batch_size=BATCH_SIZE)
ENGINES = {
    "Paddle Inference, oneDNN": Engine(fused=False),
    "Paddle Inference, without oneDNN": Engine(onednn=False),
    "Paddle Inference, oneDNN bf16": Engine(precision="bf16", fused=False),
    "Paddle Inference, fused": Engine(),
    "Paddle Inference, fused bf16": Engine(precision="bf16"),
    "Paddle Inference, GPU": Engine(use_gpu=True),
    "Paddle Inference, GPU fp16": Engine(use_gpu=True, precision="fp16"),
    "Paddle Inference, GPU bf16": Engine(use_gpu=True, precision="bf16"),
    "Paddle Inference, GPU with TensorRT": _TENSORRT,
    "Paddle Inference, GPU with TensorRT fp16": dataclasses.replace(_TENSORRT, precision="fp16"),
}
NAMES = (STATIC_PROGRAM, *ENGINES, ONNX_RUNTIME)  # what a bundle can be run by


class Gate:
    """Logits of what a bundle can be run by, against those of the model that it was made from, on the same images.

    Args:
        folder: of the bundle.
        weights: checkpoint that was exported, with or without its suffix.
        images: folder; up to 200 of its images are used, spread over it.

    Raises:
        CaitError: the bundle, the weights or the images are missing or damaged.
    """

    def __init__(self, folder: pathlib.Path, weights: str | os.PathLike, images: pathlib.Path):
        self._folder = bundle_folder(folder)
        self._description = read_description(folder)
        found = open_weights(weights)
        read = Reader(self._description, apply_exif=False)
        self._images = np.stack([read(path) for path in spread(image_files(images), MAX_IMAGES)])
        tensors = swap_layout(found.tensors)
        check_tensors(tensors, None, str(found.file))
        height, width = self._description.image_size
        model = model_of(tensors, (height, width))
        fit_weights(model, found)
        model.eval()
        num_classes, named = model.head.weight.shape[1], len(self._description.class_names)
        if num_classes != named:
            raise CaitError(f"{found.file}: has {num_classes} classes, the bundle {named}")
        self._expected = self._in_batches(lambda part: model(paddle.to_tensor(part)).numpy())

    def why_not(self, name: str) -> str:
        """Why this machine cannot run the bundle by one of NAMES; empty if it can."""
        if name == ONNX_RUNTIME:
            return "" if ONNX in self._description.files else "the bundle was exported without --onnx"
        if name == STATIC_PROGRAM:
            return ""
        engine = ENGINES[name]
        reason = why_not(engine)
        if not reason and "fused" in name:
            files, line = choose_program(engine, self._description)
            reason = line if files[0] == self._description.program else ""
        return one_line(reason)

    def rows(self, name: str) -> list[Row]:
        """By one of NAMES that this machine can run: a row of the logits, and one of the share of images whose first
        class differs. Those of a precision, which have a threshold in common, are a part of the step.

        Raises:
            CaitError: it cannot be loaded.
        """
        precision = ENGINES[name].computes_in if name in ENGINES else "fp32"
        variant, expected, logits = self._description.variant, self._expected, self._in_batches(self._predictor(name))
        difference = distances(logits, expected)
        limit = allowed_difference(expected, precision)
        largest, mean = float(difference.max()), float(difference.mean())
        same = logits.shape == expected.shape and (logits.argmax(1) == expected.argmax(1))
        changed = float(np.mean(np.logical_not(same & np.isfinite(difference).all(1))))
        share = CHANGED_CLASSES[precision]
        what, part = f"{name}, changed classes", f"{precision} classes"
        return [
            Row(variant, STEP, name, largest, mean, limit, largest <= limit, precision),
            Row(variant, STEP, what, changed, changed, share, changed <= share, part),
        ]

    def _predictor(self, name: str) -> Callable[[np.ndarray], np.ndarray]:
        if name == ONNX_RUNTIME:
            return OnnxPredictor(self._folder, self._description)
        if name in ENGINES:
            return Predictor(self._folder, ENGINES[name])
        program = paddle.jit.load(str(self._folder / STEM))
        program.eval()

        def static(part: np.ndarray) -> np.ndarray:
            outputs = program(paddle.to_tensor(part))
            return (outputs[0] if isinstance(outputs, (list, tuple)) else outputs).numpy()

        return static

    def _in_batches(self, predict: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        starts = range(0, len(self._images), BATCH_SIZE)
        with paddle.no_grad():
            return np.concatenate([predict(self._images[start : start + BATCH_SIZE]) for start in starts])


def deployment_rows(
    folder: pathlib.Path, weights: str | os.PathLike, images: pathlib.Path
) -> tuple[list[Row], dict[str, str]]:
    """The rows of everything in NAMES that this machine can run a bundle by, and why not of the others, by name.

    Raises:
        CaitError: as `Gate`.
    """
    gate = Gate(folder, weights, images)
    missing = {name: reason for name in NAMES if (reason := gate.why_not(name))}
    return [row for name in NAMES if name not in missing for row in gate.rows(name)], missing
