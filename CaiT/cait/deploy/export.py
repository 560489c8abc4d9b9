"""Exports a model as a bundle, and proves that Paddle Inference gives with it what the model gives."""

import dataclasses
import pathlib
import platform
import shutil

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from cait.deploy.bundle import (
    CLASS_ATTENTION,
    DESCRIPTION,
    LOGITS,
    ONNX,
    PARAMETERS_SUFFIX,
    PROGRAM_SUFFIXES,
    STEM,
    Description,
    find_program,
    fused_stem,
    write_description,
)
from cait.deploy.fused import PRECISIONS, FusedCaiT
from cait.deploy.inference_engine import Engine, why_not
from cait.deploy.onnx_file import OnnxPredictor, check_tools, write_onnx
from cait.deploy.predictor import Predictor, allowed_difference
from cait.device import has_gpu
from cait.digest import sha256_of
from cait.errors import CaitError, UsageError
from cait.files import writable_folder
from cait.model import CaiT
from cait.ops.library import OperatorsUnavailable

CHECK_BATCHES = (1, 3)  # the batch dimension must really be free


class WithClassAttention(nn.Layer):
    """A model that also returns the maps of its class-attention blocks, as `Description.outputs` says."""

    def __init__(self, model: CaiT):
        super().__init__()
        self.model = model
        self.block_names = [f"blocks_token_only.{index}" for index in range(len(model.blocks_token_only))]

    def forward(self, images):
        logits, maps = self.model.forward_with_attention(images, self.block_names)
        stacked = paddle.concat([maps[name]["softmax"] for name in self.block_names], axis=2)
        return logits, stacked.transpose([0, 2, 1, 3])


def build_description(
    config, class_names: list[str], weights: pathlib.Path, precision: str = "fp32", with_attention: bool = False
) -> Description:
    """What the bundle will say, as far as the config knows it."""
    return Description(
        variant=config.MODEL.NAME,
        image_size=list(config.DATA.IMAGE_SIZE),
        crop_pct=config.DATA.CROP_PCT,
        interpolation="bicubic",
        patch_size=config.MODEL.PATCH_SIZE,
        channels=config.MODEL.IN_CHANNELS,
        mean=list(config.DATA.MEAN),
        std=list(config.DATA.STD),
        class_names=class_names,
        weights=sha256_of(weights),
        versions={"paddle": paddle.__version__, "numpy": np.__version__, "python": platform.python_version()},
        precision=precision,
        outputs=[LOGITS, CLASS_ATTENTION] if with_attention else [LOGITS],
        files={},
        self_test_seed=0,
        self_test_logits=[],
    )


def export(
    model: CaiT, description: Description, folder: pathlib.Path, onnx: bool = False, fused: bool = True
) -> dict[str, float]:
    """Writes the bundle into the folder, and nothing else there.

    The program is made and tried in a subfolder first; what the folder held of an earlier bundle is removed before, so
    that a failed export cannot pass for a good one.

    Args:
        model: with its weights.
        description: its self-test and file checksums are filled in.
        folder: made where needed.
        onnx: write `inference.onnx` too.
        fused: write a program of fused operators too, where this machine can make one; else prints why not.

    Returns:
        Largest difference of an output between the model and each engine, by kind of engine.

    Raises:
        UsageError: this machine cannot try the precision, or has no packages for ONNX.
        CaitError: the folder cannot be written, or the exported program gives other numbers.
    """
    engines = _engines(description.precision)
    fused_model = _fused(model, description) if fused else None
    if onnx:
        check_tools()
    folder = writable_folder(folder)
    for name in _possible_files():
        (folder / name).unlink(missing_ok=True)
    trial = folder / f".{STEM}.tmp"
    shutil.rmtree(trial, ignore_errors=True)  # left by a killed export
    trial.mkdir()
    try:
        layer = WithClassAttention(model) if CLASS_ATTENTION in description.outputs else model
        layer.eval()
        # Images of the self-test, first, and more of their kind, so that batches of several sizes can be tried.
        images = np.concatenate([description.self_test_input(), _more_images(description, max(CHECK_BATCHES) - 1)])
        with paddle.no_grad():
            results = layer(paddle.to_tensor(images))
        arrays = [tensor.numpy() for tensor in (results if isinstance(results, (list, tuple)) else [results])]
        expected = dict(zip(description.outputs, arrays))
        programs = {STEM: layer}
        if fused_model:
            programs[fused_stem(description.precision)] = fused_model
            engines[f"CPU, fused {description.precision}"] = Engine(precision=description.precision)
        written = []
        for stem, network in programs.items():
            _save_program(network, description, trial / stem)
            written += [find_program(trial, stem), trial / f"{stem}{PARAMETERS_SUFFIX}"]
        if onnx:
            written.append(write_onnx(trial, description))
        self_test = [float(value) for value in expected[LOGITS][0]]
        files = {path.name: sha256_of(path) for path in written}
        description = dataclasses.replace(description, files=files, self_test_logits=self_test)
        write_description(trial, description)
        differences = {}
        for name, engine in engines.items():
            predictor = Predictor(trial, engine, self_test=False)
            differences[name] = _compare(name, predictor, images, expected, engine.precision)
        if onnx:
            differences["ONNX Runtime"] = _compare(
                "ONNX Runtime", OnnxPredictor(trial, description), images, expected, "fp32"
            )
        for name in (*files, DESCRIPTION):  # the description last: without it there is no bundle
            (trial / name).replace(folder / name)
        return differences
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _more_images(description: Description, count: int) -> np.ndarray:
    shape = (count, description.channels, *description.image_size)
    return np.random.default_rng(description.self_test_seed + 1).standard_normal(shape).astype("float32")


def _possible_files() -> list[str]:
    """All that any export may have written."""
    suffixes = (*PROGRAM_SUFFIXES, PARAMETERS_SUFFIX)
    stems = [STEM, *map(fused_stem, PRECISIONS)]
    return [DESCRIPTION, ONNX, *(f"{stem}{suffix}" for stem in stems for suffix in suffixes)]


def _fused(model: CaiT, description: Description) -> FusedCaiT | None:
    """The model for CPUs, or nothing and a line that says why."""
    try:
        layer = FusedCaiT(model, description.precision, CLASS_ATTENTION in description.outputs)
    except OperatorsUnavailable as reason:
        print(f"exported without a fused program for CPUs: {reason}")
        return None
    layer.eval()
    return layer


def _save_program(layer: nn.Layer, description: Description, stem: pathlib.Path) -> None:
    spec = InputSpec([None, description.channels, *description.image_size], "float32", "images")
    # full_graph: tracing by bytecode (SOT) breaks off in PaddlePaddle 2.6.
    static = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True)
    paddle.jit.save(static, str(stem))


def _engines(precision: str) -> dict[str, Engine]:
    """What an export is tried with, by name: in fp32 on all this machine has, and in the precision of the bundle.

    Raises:
        UsageError: this machine has no engine of that precision.
    """
    engines = {"CPU, oneDNN": Engine(fused=False), "CPU": Engine(onednn=False)}
    if has_gpu():
        engines["GPU"] = Engine(use_gpu=True)
    if precision != "fp32":
        engine = Engine(use_gpu=has_gpu(), precision=precision, fused=False)
        if reason := why_not(engine):
            raise UsageError(f"--precision={precision} cannot be tried here: {reason}")
        engines[f"{'GPU' if engine.use_gpu else 'CPU, oneDNN'} {precision}"] = engine
    return engines


def _compare(name: str, predictor, images: np.ndarray, expected: dict[str, np.ndarray], precision: str) -> float:
    """Largest difference of any output, at every batch size.

    Raises:
        CaitError: it is larger than the precision explains.
    """
    largest = 0.0
    for size in CHECK_BATCHES:
        for output, array in predictor.outputs(images[:size]).items():
            difference = float(np.abs(array - expected[output][:size]).max())
            limit = allowed_difference(expected[output], precision)
            if not difference <= limit:  # NaN fails too
                raise CaitError(
                    f"the exported program differs from the model by {difference:.2e} on the {name} ({output}), "
                    f"allowed are {limit:.2e}; no bundle was written"
                )
            largest = max(largest, difference)
    return largest
