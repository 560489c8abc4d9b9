"""The parity gate: what is deployed against what was trained, on the same images."""

import os
import pathlib

import numpy as np
import paddle

from cait.align import Row, compare
from cait.checkpoint import load_weights
from cait.data.image_files import image_files
from cait.deploy.bundle import STEM, read_description
from cait.deploy.classify import Reader
from cait.deploy.predictor import Engine, Predictor, has_gpu
from cait.errors import CaitError
from cait.exchange import model_of, read_any

STEP = 6
BATCH_SIZE = 16
MAX_IMAGES = 200


def deployment_rows(folder: pathlib.Path, weights: str | os.PathLike, images: pathlib.Path) -> list[Row]:
    """Logits of the bundle's static program and of every engine that this machine has, against those of the model.

    For each, a row of the logits and one of the images whose first class differs, of which none may.

    Args:
        folder: of the bundle.
        weights: checkpoint that was exported.
        images: folder; its first 200 images are used.

    Raises:
        CaitError: the bundle, the weights or the images are missing or damaged.
    """
    description = read_description(folder)
    read = Reader(description, apply_exif=False)
    batch = np.stack([read(path) for path in image_files(images)[:MAX_IMAGES]])
    model = model_of(read_any(weights), tuple(description.image_size))
    load_weights(model, weights)
    model.eval()
    if model.head.weight.shape[1] != len(description.class_names):
        raise CaitError(
            f"{weights}: has {model.head.weight.shape[1]} classes, the bundle {len(description.class_names)}"
        )
    expected = _in_batches(lambda part: model(paddle.to_tensor(part)).numpy(), batch)
    rows = []
    for name, predict in _engines(folder).items():
        logits = _in_batches(predict, batch)
        different = np.array((logits.argmax(1) != expected.argmax(1)).sum())
        ours = {name: logits, f"{name}, images of another class": different}
        reference = {name: expected, f"{name}, images of another class": np.array(0)}
        rows += compare(description.variant, STEP, ours, reference)
    return rows


def _engines(folder: pathlib.Path) -> dict:
    program = paddle.jit.load(str(folder / STEM))
    program.eval()
    engines = {
        "static program": lambda part: program(paddle.to_tensor(part)).numpy(),
        "Paddle Inference, oneDNN": Predictor(folder, Engine(onednn=True)),
        "Paddle Inference, without oneDNN": Predictor(folder, Engine(onednn=False)),
    }
    if has_gpu():
        engines["Paddle Inference, GPU"] = Predictor(folder, Engine(use_gpu=True))
    return engines


def _in_batches(predict, images: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        parts = [predict(images[start : start + BATCH_SIZE]) for start in range(0, len(images), BATCH_SIZE)]
    return np.concatenate(parts)
