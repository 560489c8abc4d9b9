"""Exports a model as a bundle, and proves that Paddle Inference gives with it what the model gives."""

import dataclasses
import pathlib
import platform
import shutil

import numpy as np
import paddle
from paddle.static import InputSpec

from cait.deploy.bundle import DESCRIPTION, PARAMETERS, PROGRAMS, STEM, Description, find_program, write_description
from cait.deploy.predictor import Engine, Predictor, allowed_difference
from cait.device import has_gpu
from cait.digest import sha256_of
from cait.errors import CaitError
from cait.files import writable_folder
from cait.model import CaiT

CHECK_BATCHES = (1, 3)  # the batch dimension must really be free


def build_description(config, class_names: list[str], weights: pathlib.Path) -> Description:
    """What the bundle will say, as far as the config knows it."""
    return Description(
        variant=config.MODEL.NAME,
        image_size=list(config.DATA.IMAGE_SIZE),
        crop_pct=config.DATA.CROP_PCT,
        interpolation="bicubic",
        channels=config.MODEL.IN_CHANNELS,
        mean=list(config.DATA.MEAN),
        std=list(config.DATA.STD),
        class_names=class_names,
        weights=sha256_of(weights),
        versions={"paddle": paddle.__version__, "numpy": np.__version__, "python": platform.python_version()},
        files={},
        self_test_seed=0,
        self_test_logits=[],
    )


def export(model: CaiT, description: Description, folder: pathlib.Path) -> dict[str, float]:
    """Writes the bundle into the folder, and nothing else there.

    The program is made and tried in a subfolder first; what the folder held of an earlier bundle is removed before, so
    that a failed export cannot pass for a good one.

    Args:
        model: with its weights.
        description: its self-test and file checksums are filled in.
        folder: made where needed.

    Returns:
        Largest difference of a logit between the model and Paddle Inference, by kind of engine.

    Raises:
        CaitError: the folder cannot be written, or the exported program gives other logits.
    """
    folder = writable_folder(folder)
    for name in (DESCRIPTION, PARAMETERS, *PROGRAMS):
        (folder / name).unlink(missing_ok=True)
    trial = folder / f".{STEM}.tmp"
    shutil.rmtree(trial, ignore_errors=True)  # left by a killed export
    trial.mkdir()
    try:
        model.eval()
        # Images of the self-test, first, and more of their kind, so that batches of several sizes can be tried.
        images = np.concatenate([description.self_test_input(), _more_images(description, max(CHECK_BATCHES) - 1)])
        with paddle.no_grad():
            logits = model(paddle.to_tensor(images)).numpy()
        _save_program(model, description, trial)
        files = {path.name: sha256_of(path) for path in (find_program(trial), trial / PARAMETERS)}
        self_test = [float(value) for value in logits[0]]
        write_description(trial, dataclasses.replace(description, files=files, self_test_logits=self_test))
        differences = _compare(trial, images, logits)
        for name in (*files, DESCRIPTION):  # the description last: without it there is no bundle
            (trial / name).replace(folder / name)
        return differences
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _more_images(description: Description, count: int) -> np.ndarray:
    shape = (count, description.channels, *description.image_size)
    return np.random.default_rng(description.self_test_seed + 1).standard_normal(shape).astype("float32")


def _save_program(model: CaiT, description: Description, folder: pathlib.Path) -> None:
    spec = InputSpec([None, description.channels, *description.image_size], "float32", "images")
    # full_graph: tracing by bytecode (SOT) breaks off in PaddlePaddle 2.6.
    static = paddle.jit.to_static(model, input_spec=[spec], full_graph=True)
    paddle.jit.save(static, str(folder / STEM))


def _compare(folder: pathlib.Path, images: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    engines = {"CPU, oneDNN": Engine(onednn=True), "CPU": Engine(onednn=False)}
    if has_gpu():
        engines["GPU"] = Engine(use_gpu=True)
    limit = allowed_difference(logits, "fp32")
    differences = {}
    for name, engine in engines.items():
        predictor = Predictor(folder, engine, verify=False)
        largest = max(float(np.abs(predictor(images[:size]) - logits[:size]).max()) for size in CHECK_BATCHES)
        if not largest <= limit:  # NaN fails too
            raise CaitError(
                f"the exported program differs from the model by {largest:.2e} on the {name}, allowed are {limit:.2e}; "
                "no bundle was written"
            )
        differences[name] = largest
    return differences
