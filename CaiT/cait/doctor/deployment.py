"""Checks that what is deployed computes what the model computes: export, all ways to run a bundle, an ONNX teacher."""

import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from cait.bench.exported import GOLDEN, reference_logits, write_bundle
from cait.doctor.report import DIFFERS, FAILED, MISSING, OK, Line, judged
from cait.doctor.settings import Settings
from cait.errors import CaitError
from cait.machine.device import select_device

PRECISIONS = ("fp32", "bf16", "fp16")
NUM_IMAGES = 16


def deployment(settings: Settings) -> Iterator[Line]:
    """Exports the model in every precision, and judges every way to run a bundle by the parity gate."""
    from cait.align import parity
    from cait.deploy.engine import Engine
    from cait.deploy.engine_config import why_not

    check, gates = "deployment", {}
    select_device(settings.device)
    images = _write_images(pathlib.Path(settings.file("images")))
    for precision in PRECISIONS:
        name = f"export in {precision}"
        if reason := why_not(Engine(use_gpu=settings.device == "gpu", precision=precision)):
            yield Line(check, name, MISSING, reason)
            continue
        try:
            folder = bundle(settings, precision)
            gates[precision] = parity.Gate(folder, weights(settings), images)
            yield Line(check, name, OK)
        except CaitError as error:
            yield Line(check, name, FAILED, str(error))
    for name in parity.NAMES if "fp32" in gates else ():
        gate = gates.get("bf16" if name.endswith("fused bf16") else "fp32")  # each bundle has the fused one of its own
        reason = gate.why_not(name) if gate else "there is no bundle in bf16"
        if gate is None or reason:
            yield Line(check, name, MISSING, reason)
            continue
        try:
            logits, classes = gate.rows(name)
        except CaitError as error:
            yield Line(check, name, FAILED, str(error))
            continue
        # Of random weights, half precision may well change the class of an image that has two likely ones.
        changed = f"{classes.max_diff:.0%} of {NUM_IMAGES} classes changed"
        line = judged(check, name, logits.max_diff, logits.threshold, more=changed)
        yield line if classes.passed or not classes.part.startswith("fp32") else line._replace(verdict=DIFFERS)


def bundle(settings: Settings, precision: str) -> pathlib.Path:
    """The folder of the model's bundle in a precision, which is exported where that was not done yet.

    That in fp32 has an ONNX file, where the packages for it are installed.

    Raises:
        CaitError: the export fails.
    """
    from cait.deploy.onnx_file import missing_tools

    folder = pathlib.Path(settings.file(f"bundle-{precision}"))
    if not folder.is_dir():
        if precision == "fp32":
            return write_bundle(folder, pathlib.Path(settings.model), onnx=not missing_tools())
        write_bundle(folder, pathlib.Path(settings.model), precision, weights(settings))
    return folder


def weights(settings: Settings) -> pathlib.Path:
    """The checkpoint of the bundles, without its suffix."""
    return bundle(settings, "fp32") / GOLDEN


def _write_images(folder: pathlib.Path) -> pathlib.Path:
    """A folder of pictures of smooth noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), "uint8"))
        coarse.resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
    return folder


def teacher(settings: Settings) -> Iterator[Line]:
    """The ONNX file of the model as a teacher, against the model itself."""
    import paddle

    from cait.deploy.bundle import ONNX, read_description
    from cait.deploy.onnx_file import missing_tools
    from cait.deploy.predictor import allowed_difference, distances
    from cait.train.teacher import OnnxTeacher

    check, name = "teacher", "ONNX file of the model"
    select_device(settings.device)
    if missing := missing_tools():
        yield Line(check, name, MISSING, f"not installed: {', '.join(missing)} (requirements-onnx.txt)")
        return
    folder = bundle(settings, "fp32")
    description = read_description(folder)
    shape = (settings.batch_size, description.channels, *description.image_size)
    images = np.random.default_rng(1).standard_normal(shape).astype("float32")
    expected = reference_logits(pathlib.Path(settings.model), images)
    made = OnnxTeacher(folder / ONNX)
    found = made(paddle.to_tensor(images)).numpy()
    allowed = allowed_difference(expected, "fp32")
    yield judged(check, name, float(distances(found, expected).max()), allowed, more=f"computed by {made.provider}")
