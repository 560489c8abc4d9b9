"""Runs a bundle with Paddle Inference. Knows files and arrays, and nothing of the model's code."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile

import numpy as np
import paddle
from paddle import inference

from cait.deploy.bundle import PARAMETERS, Description, read_description, verify
from cait.deploy.bundle_folder import bundle_folder
from cait.deploy.bundle_schema import LOGITS
from cait.deploy.inference_engine import Engine, choose_program, paddle_config, why_not
from cait.errors import CaitError, UsageError

TOLERANCE = 3e-5  # fp32: largest difference of a logit, relative to the largest one, at least to 1
LOW_TOLERANCE = 0.05  # fp16 and bf16: of the range of the logits


def allowed_difference(logits: np.ndarray, precision: str) -> float:
    """How far logits may be off from `logits` in a precision."""
    if precision == "fp32":
        return TOLERANCE * max(1.0, float(np.abs(logits).max()))
    return LOW_TOLERANCE * float(logits.max() - logits.min())


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
        if PARAMETERS not in files:  # those were verified with the description
            for name in files:
                verify(folder, self.description, name)
        try:
            with contextlib.ExitStack() as stack:
                scratch = None
                if engine.tensorrt:  # for what it makes of the program
                    scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
                self.paddle_config = paddle_config(self.folder, files, self.engine, self.description, scratch)
                self._predictor = inference.create_predictor(self.paddle_config)
        except Exception as error:  # Paddle raises almost anything on a program it cannot load
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            versions = self.description.versions.get("paddle"), paddle.__version__
            raise CaitError(
                f"{folder}: Paddle Inference cannot load the bundle ({reason[0]}); it was made with PaddlePaddle "
                "{} and this is {}: use the same one, or export the model again".format(*versions)
            ) from error
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        handles = [self._predictor.get_output_handle(name) for name in self._predictor.get_output_names()]
        self._outputs = dict(zip(self.description.outputs, handles))
        if self_test:
            self._self_test()

    def _self_test(self) -> None:
        expected = np.asarray(self.description.self_test_logits)
        difference = np.abs(self(self.description.self_test_input())[0] - expected).max()
        limit = allowed_difference(expected, self.engine.precision)
        if not difference <= limit:  # NaN fails too
            raise CaitError(f"{self.folder}: the self-test differs by {difference:.2e}, allowed are {limit:.2e}")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits [B, classes] of normalised images [B, channels, height, width], both float32."""
        return self.outputs(images, [LOGITS])[LOGITS]

    def outputs(self, images: np.ndarray, names: list[str] | None = None) -> dict[str, np.ndarray]:
        """The named outputs of the bundle, or all of them; see `Description.outputs` for their shapes."""
        self._input.copy_from_cpu(np.ascontiguousarray(images, "float32"))
        self._predictor.run()
        return {name: self._outputs[name].copy_to_cpu() for name in names or self._outputs}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, float64 inside."""
    exponentials = np.exp(logits.astype("float64") - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
