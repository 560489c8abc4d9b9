"""Exports a model as a bundle, and proves that Paddle Inference computes what the model computes."""

import contextlib
import dataclasses
import os
import pathlib
import platform
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from cait.deploy.bundle import (
    ONNX,
    PARAMETERS_SUFFIX,
    PROGRAM_SUFFIXES,
    Description,
    find_program,
    fused_stem,
    write_description,
)
from cait.deploy.bundle_folder import DESCRIPTION, JOB, STEM, TRIAL, commit, described, finish
from cait.deploy.bundle_schema import CLASS_ATTENTION, LOGITS
from cait.deploy.engine import Engine
from cait.deploy.engine_config import why_not
from cait.deploy.fused import PRECISIONS, FusedCaiT
from cait.deploy.onnx_file import OnnxPredictor, check_tools, write_onnx
from cait.deploy.predictor import Predictor, allowed_difference, distances
from cait.errors import CaitError, UsageError, one_line
from cait.files import naming_what_fails, writable_folder
from cait.files.digest import sha256_of
from cait.files.folder_lock import held
from cait.machine.device import has_gpu
from cait.model import CaiT
from cait.ops.library import OperatorsUnavailable
from cait.weights.input_record import build_record

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
    """Builds the description of a bundle from the config."""
    return Description(
        variant=config.MODEL.NAME,
        image_size=list(config.DATA.IMAGE_SIZE),
        crop_pct=config.DATA.CROP_PCT,
        interpolation="bicubic",
        deep_grey=config.DATA.DEEP_GREY,
        patch_size=config.MODEL.PATCH_SIZE,
        grid=list(build_record(config).grid),
        heads=config.MODEL.NUM_HEADS,
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
    model: CaiT,
    description: Description,
    folder: pathlib.Path,
    onnx: bool = False,
    fused: bool = True,
    force: bool = False,
) -> dict[str, float]:
    """Makes a bundle, proves it, and puts it in the folder. The bundle that is there stays whole until then.

    Args:
        model: with its weights.
        description: its self-test and file checksums are filled in.
        folder: made where needed; other files in it stay.
        onnx: write `inference.onnx` too.
        fused: write a program of fused operators too, where this machine can make one; else prints why not.
        force: replace the bundle of another model, and files that are named as those of a bundle, too.

    Returns:
        Largest difference of an output between the model and each engine, by kind of engine.

    Raises:
        UsageError: this machine cannot try the precision, has no packages for ONNX, or the folder needs `force`.
        CaitError: the folder cannot be written, another export into it is running, or the exported program gives other
            numbers.
    """
    engines = _engines(description.precision)
    if onnx:
        check_tools()
    folder = writable_folder(folder)
    with held(folder, JOB) as note:
        if note:
            print(one_line(note))
        finish(folder)
        if not force:
            _check_replaceable(folder, description)
        trial = folder / TRIAL
        shutil.rmtree(trial, ignore_errors=True)  # left by a killed export
        trial.mkdir()
        try:
            with naming_what_fails(folder):  # while the trial fills the disk: Paddle does not say what it cannot write
                description, images, expected = _write(model, description, trial, onnx, fused)
                differences = _prove(trial, description, engines, images, expected)
            commit(folder, description.files)
        finally:
            shutil.rmtree(trial, ignore_errors=True)
    return differences


def _check_replaceable(folder: pathlib.Path, new: Description) -> None:
    """Raises UsageError if the folder holds another model's bundle, or files that only have the names of a bundle's."""
    advice = "choose another folder, or replace what is there with --force"
    old = described(folder)
    own = {DESCRIPTION, *old["files"]} if old else set()
    for name in _possible_files():
        if os.path.lexists(folder / name) and name not in own:
            raise UsageError(f"{folder / name}: no file of a bundle that export_model.py wrote; {advice}")
    for key in ("variant", "image_size", "channels"):
        if old and old.get(key) != getattr(new, key):
            values = f"{key} {old.get(key)} and not {getattr(new, key)}"
            raise UsageError(f"{folder}: holds the bundle of another model, of {values}; {advice}")
    pair: list[Any] = [old.get("class_names") if old else new.class_names, new.class_names]
    if all(isinstance(names, list) and len(names) == len(new.class_names) for names in pair):
        # Names that were not known, because the data set was not there, are numbers.
        pair = [names for names in pair if names != [str(index) for index in range(len(names))]]
    if len(pair) == 2 and pair[0] != pair[1]:
        raise UsageError(f"{folder}: holds the bundle of a model with other class names; {advice}")


def _write(
    model: CaiT, description: Description, folder: pathlib.Path, onnx: bool, fused: bool
) -> tuple[Description, np.ndarray, dict[str, np.ndarray]]:
    """Writes all files of the bundle; the description, images to try it with, and the model's outputs for them."""
    layer = WithClassAttention(model) if CLASS_ATTENTION in description.outputs else model
    layer.eval()
    # Images of the self-test, first, and more of their kind, so that batches of several sizes can be tried.
    images = np.concatenate([description.self_test_input(), _more_images(description, max(CHECK_BATCHES) - 1)])
    with paddle.no_grad():
        results = layer(paddle.to_tensor(images))
    arrays = [tensor.numpy() for tensor in (results if isinstance(results, (list, tuple)) else [results])]
    expected = dict(zip(description.outputs, arrays))
    programs = {STEM: layer}
    if fused and (fused_model := _fused(model, description)):
        programs[fused_stem(description.precision)] = fused_model
    written = []
    for stem, network in programs.items():
        _save_program(network, description, folder / stem)
        written += [find_program(folder, stem), folder / f"{stem}{PARAMETERS_SUFFIX}"]
    if onnx:
        written.append(write_onnx(folder, description))
    self_test = [float(value) for value in expected[LOGITS][0]]
    files = {path.name: sha256_of(path) for path in written}
    description = dataclasses.replace(description, files=files, self_test_logits=self_test)
    write_description(folder, description)
    return description, images, expected


def _prove(
    folder: pathlib.Path,
    description: Description,
    engines: dict[str, Engine],
    images: np.ndarray,
    expected: dict[str, np.ndarray],
) -> dict[str, float]:
    """Largest differences of the outputs from the expected ones, by engine.

    Raises:
        CaitError: one is larger than the precision explains.
    """
    if description.fused_files(description.precision):
        engines = engines | {f"CPU, fused {description.precision}": Engine(precision=description.precision)}
    differences = {}
    for name, engine in engines.items():
        predictor = Predictor(folder, engine, self_test=False)
        differences[name] = _compare(name, predictor, images, expected, engine.computes_in)
    if ONNX in description.files:
        name = "ONNX Runtime"
        differences[name] = _compare(name, OnnxPredictor(folder, description), images, expected, "fp32")
    return differences


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
        print(f"exported without a fused program for CPUs: {one_line(reason)}")
        return None
    layer.eval()
    return layer


def _save_program(layer: nn.Layer, description: Description, stem: pathlib.Path) -> None:
    spec = InputSpec([None, description.channels, *description.image_size], "float32", "images")
    with _home_in(stem.parent):
        # full_graph: tracing by bytecode (SOT) breaks off in PaddlePaddle 2.6.
        static = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True)
        try:
            paddle.jit.save(static, str(stem))
        finally:
            static.forward.rollback()  # `to_static` has changed the layer itself


@contextlib.contextmanager
def _home_in(folder: pathlib.Path) -> Iterator[None]:
    """Lets Paddle, which writes the code that it traces to `~/.cache`, write it into the folder."""
    kept = {name: os.environ.get(name) for name in ("HOME", "USERPROFILE")}
    os.environ.update(dict.fromkeys(kept, str(folder)))
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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
            difference = float(distances(array, expected[output][:size]).max())
            limit = allowed_difference(expected[output], precision)
            if difference > limit:
                raise CaitError(
                    f"the exported program differs from the model by {difference:.2e} on the {name} ({output}), "
                    f"allowed are {limit:.2e}; no bundle was written"
                )
            largest = max(largest, difference)
    return largest
