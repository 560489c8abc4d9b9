"""Runs a bundle with Paddle Inference. Knows files and arrays, and nothing of the model's code."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile

import numpy as np
import paddle
from paddle import inference

from cait.deploy.bundle import Description, read_description, verified
from cait.deploy.bundle_folder import DESCRIPTION, bundle_folder
from cait.deploy.bundle_schema import CLASS_ATTENTION, LOGITS
from cait.deploy.engine import Engine
from cait.deploy.engine_config import choose_program, paddle_config, why_not
from cait.errors import CaitError, UsageError

TOLERANCE = 3e-5  # fp32: largest difference of a logit, relative to the largest one, at least to 1
LOW_TOLERANCE = 0.05  # fp16 and bf16: of the range of the logits


def allowed_difference(logits: np.ndarray, precision: str) -> float:
    """Returns how much logits may differ from `logits` in a precision; 0 if these are not finite."""
    exact = np.asarray(logits, "float64")
    if not exact.size or not np.isfinite(exact).all():
        return 0.0
    if precision == "fp32":
        return TOLERANCE * max(1.0, float(np.abs(exact).max()))
    return LOW_TOLERANCE * float(exact.max() - exact.min())


def distances(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """By how much each value is off, float64 [as `expected`], never NaN.

    Infinite where either value is not finite, even if both are the same, and everywhere if the shapes differ: no such
    answer is within `allowed_difference`.
    """
    found, expected = np.asarray(found, "float64"), np.asarray(expected, "float64")
    if not expected.size:
        return np.array([np.inf])
    off = np.full(expected.shape, np.inf)
    if found.shape != expected.shape:
        return off
    finite = np.isfinite(found) & np.isfinite(expected)
    off[finite] = np.abs(found[finite] - expected[finite])
    return off


class Predictor:
    """Normalised images in, logits out.

    Args:
        folder: of the bundle.
        engine: how to run it.
        self_test: answer the bundle's self-test first.
        description: what `read_description` gave for the folder; None: it is read now.

    Attributes:
        description: what stands in `inference.yaml`.
        engine: as given, with the precision that is used.
        program: a line that tells which program runs, and why.
        paddle_config: Paddle's own, which knows what is really switched on.

    Raises:
        UsageError: this machine cannot run such an engine.
        CaitError: the bundle is not whole, was changed, or does not answer its self-test as it should.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        engine: Engine,
        self_test: bool = True,
        description: Description | None = None,
    ):
        self.folder = bundle_folder(folder)
        self.description = description or read_description(folder)
        self.engine = dataclasses.replace(engine, precision=engine.precision or self.description.precision)
        if reason := why_not(self.engine):
            if not engine.precision and not why_not(dataclasses.replace(engine, precision="fp32")):
                reason += f": the bundle is meant for {self.engine.precision}, but --precision=fp32 runs it too"
            raise UsageError(reason)
        files, self.program = choose_program(self.engine, self.description)
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(verified(self.folder, self.description, files))
                scratch = None
                if engine.tensorrt:  # for what it makes of the program
                    scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
                self.paddle_config = paddle_config(self.folder, files, self.engine, self.description, scratch)
                self._predictor = inference.create_predictor(self.paddle_config)
            self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
            handles = [self._predictor.get_output_handle(name) for name in self._predictor.get_output_names()]
        except CaitError:
            raise
        except Exception as error:  # Paddle raises almost anything on a program it cannot load
            versions = f"{self.description.versions.get('paddle')} and this is {paddle.__version__}"
            raise CaitError(
                f"{folder}: Paddle Inference cannot load the bundle ({last_line(error)}); it was made with "
                f"PaddlePaddle {versions}: use the same one, or export the model again"
            ) from error
        if len(handles) != len(self.description.outputs):
            outputs = f"{len(handles)} outputs, and {DESCRIPTION} names {len(self.description.outputs)}"
            raise CaitError(f"{folder}: the program has {outputs}; export the model anew")
        self._outputs = dict(zip(self.description.outputs, handles))
        if self_test:
            self._self_test()

    def _self_test(self) -> None:
        expected = np.asarray(self.description.self_test_logits, "float64")
        try:
            found = self(self.description.self_test_input())
        except Exception as error:  # as above: the program may be anything
            reason = f"the program fails in the self-test ({last_line(error)}); export the model anew"
            raise CaitError(f"{self.folder}: {reason}") from error
        largest = float(distances(found, expected[None]).max())
        limit = allowed_difference(expected, self.engine.computes_in)
        if largest > limit:
            how = f"differs by {largest:.2e}" if np.isfinite(largest) else "gives or expects what is no finite logits"
            raise CaitError(f"{self.folder}: the self-test {how}, allowed are {limit:.2e}; export the model anew")
        if CLASS_ATTENTION in self._outputs:
            self._check_attention(self._outputs[CLASS_ATTENTION].shape()[2:])

    def _check_attention(self, shape: list[int]) -> None:
        """Demands of the last axes of the maps, [heads, 1 + patches], what the description says."""
        (rows, columns), heads = self.description.grid, self.description.heads or shape[0]
        if list(shape) != [heads, 1 + rows * columns]:
            words = f"{heads} heads and a grid of {rows}x{columns} patches, and its program gives maps of {list(shape)}"
            raise CaitError(f"{self.folder}: {DESCRIPTION} says {words}; export the model anew")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits [B, classes] of normalised images [B, channels, height, width], both float32."""
        return self.outputs(images, [LOGITS])[LOGITS]

    def outputs(self, images: np.ndarray, names: list[str] | None = None) -> dict[str, np.ndarray]:
        """The named outputs of the bundle, or all of them; see `Description.outputs` for their shapes."""
        self._input.copy_from_cpu(np.ascontiguousarray(images, "float32"))
        self._predictor.run()
        return {name: self._outputs[name].copy_to_cpu() for name in names or self._outputs}


def last_line(error: Exception) -> str:
    """Returns the last line of an error of Paddle, which follows pages of others."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, float64 inside."""
    exponentials = np.exp(logits.astype("float64") - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
