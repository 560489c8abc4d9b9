"""The parity gate: what is deployed against what was trained, on the same images."""

import os
import pathlib

import numpy as np
import paddle

from cait.align import Row
from cait.checkpoint import load_weights
from cait.checkpoint_files import find_weights
from cait.data.image_files import image_files, spread
from cait.deploy.bundle import ONNX, STEM, Description, read_description
from cait.deploy.bundle_folder import bundle_folder
from cait.deploy.classify import Reader
from cait.deploy.inference_engine import Engine, choose_program, why_not
from cait.deploy.onnx_file import OnnxPredictor
from cait.deploy.predictor import Predictor, allowed_difference, distances
from cait.errors import CaitError
from cait.exchange import model_of, read_any
from cait.lines import one_line

STEP = 6
BATCH_SIZE = 16
MAX_IMAGES = 200
CHANGED_CLASSES = {"fp32": 0.0, "fp16": 0.01, "bf16": 0.01}  # allowed share of images whose first class differs


def deployment_rows(folder: pathlib.Path, weights: str | os.PathLike, images: pathlib.Path) -> list[Row]:
    """Logits of the bundle's static program and of every engine that this machine has, against those of the model.

    For each, a row of the logits and one of the share of images whose first class differs; those of a precision, which
    have a threshold in common, are a part of the step.

    Args:
        folder: of the bundle.
        weights: checkpoint that was exported, with or without its suffix.
        images: folder; up to 200 of its images are used, spread over it.

    Raises:
        CaitError: the bundle, the weights or the images are missing or damaged.
    """
    folder = bundle_folder(folder)
    description = read_description(folder)
    weights = find_weights(weights)
    read = Reader(description, apply_exif=False)
    batch = np.stack([read(path) for path in spread(image_files(images), MAX_IMAGES)])
    engines = _engines(folder, description)
    model = model_of(read_any(weights), tuple(description.image_size))
    load_weights(model, weights)
    model.eval()
    if model.head.weight.shape[1] != len(description.class_names):
        raise CaitError(
            f"{weights}: has {model.head.weight.shape[1]} classes, the bundle {len(description.class_names)}"
        )
    expected = _in_batches(lambda part: model(paddle.to_tensor(part)).numpy(), batch)
    rows = []
    for name, (predict, precision) in engines.items():
        logits = _in_batches(predict, batch)
        difference = distances(logits, expected)
        limit = allowed_difference(expected, precision)
        largest, mean = float(difference.max()), float(difference.mean())
        rows.append(Row(description.variant, STEP, name, largest, mean, limit, largest <= limit, precision))
        same = logits.shape == expected.shape and (logits.argmax(1) == expected.argmax(1))
        changed = float(np.mean(np.logical_not(same & np.isfinite(difference).all(1))))
        share = CHANGED_CLASSES[precision]
        what, part = f"{name}, changed classes", f"{precision} classes"
        rows.append(Row(description.variant, STEP, what, changed, changed, share, changed <= share, part))
    return rows


def _engines(folder: pathlib.Path, description: Description) -> dict:
    """By name: (images -> logits, precision), for every engine that this machine can run; prints which it cannot."""
    program = paddle.jit.load(str(folder / STEM))
    program.eval()

    def static(part: np.ndarray) -> np.ndarray:
        outputs = program(paddle.to_tensor(part))
        return (outputs[0] if isinstance(outputs, (list, tuple)) else outputs).numpy()

    engines = {"static program": (static, "fp32")}
    wanted = {
        "Paddle Inference, oneDNN": Engine(fused=False),
        "Paddle Inference, without oneDNN": Engine(onednn=False),
        "Paddle Inference, oneDNN bf16": Engine(precision="bf16", fused=False),
        "Paddle Inference, fused": Engine(),
        "Paddle Inference, fused bf16": Engine(precision="bf16"),
        "Paddle Inference, GPU": Engine(use_gpu=True),
        "Paddle Inference, GPU fp16": Engine(use_gpu=True, precision="fp16"),
        "Paddle Inference, GPU with TensorRT": Engine(use_gpu=True, tensorrt=True, max_batch_size=BATCH_SIZE),
    }
    for name, engine in wanted.items():
        reason = why_not(engine)
        if not reason and "fused" in name:
            files, line = choose_program(engine, description)
            reason = line if files[0] == description.program else ""
        if reason:
            print(f"skipped: {name}: {one_line(reason)}")
        else:
            engines[name] = (Predictor(folder, engine), engine.precision)
    if ONNX in description.files:
        engines["ONNX Runtime"] = (OnnxPredictor(folder, description), "fp32")
    else:
        print("skipped: ONNX Runtime: the bundle was exported without --onnx")
    return engines


def _in_batches(predict, images: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        parts = [predict(images[start : start + BATCH_SIZE]) for start in range(0, len(images), BATCH_SIZE)]
    return np.concatenate(parts)
