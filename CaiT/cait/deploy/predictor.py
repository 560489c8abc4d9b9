"""Runs a bundle with Paddle Inference. Knows files and arrays, and nothing of the model's code."""

import dataclasses
import os
import pathlib

import numpy as np
from paddle import inference

from cait.deploy.bundle import PARAMETERS, Description, find_program, read_description
from cait.device import has_gpu
from cait.errors import CaitError, UsageError

TOLERANCE = 3e-5  # fp32: largest difference of a logit, relative to the largest one, at least to 1
LOW_TOLERANCE = 0.05  # fp16 and bf16: of the range of the logits


def allowed_difference(logits: np.ndarray, precision: str) -> float:
    """How far logits may be off from `logits` in a precision."""
    if precision == "fp32":
        return TOLERANCE * max(1.0, float(np.abs(logits).max()))
    return LOW_TOLERANCE * float(logits.max() - logits.min())


@dataclasses.dataclass(frozen=True)
class Engine:
    """How Paddle Inference runs a program.

    Attributes:
        use_gpu: on the first GPU, or on the CPU.
        onednn: on the CPU, with oneDNN's kernels.
        cpu_threads: on the CPU.
        precision: fp32; bf16, on a processor or GPU that has it; fp16, on a GPU.
    """

    use_gpu: bool = False
    onednn: bool = True
    cpu_threads: int = os.cpu_count() or 1
    precision: str = "fp32"


def why_not(engine: Engine) -> str:
    """Why this machine cannot run an engine; empty if it can."""
    if engine.use_gpu:
        return "" if has_gpu() else "a GPU was asked for, but there is none, or this PaddlePaddle is the CPU build"
    if engine.precision == "fp16":
        return "fp16 needs a GPU"
    if engine.precision == "bf16" and not engine.onednn:
        return "bf16 on the CPU needs oneDNN"
    if engine.precision == "bf16" and not processor_has_bf16():
        return "this processor has no bf16 instructions"
    return ""


def processor_has_bf16(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether the processor says that it has AVX-512 or AMX instructions for bf16."""
    path = pathlib.Path(cpuinfo)
    words = set(path.read_text().split()) if path.is_file() else set()
    return bool(words & {"avx512_bf16", "amx_bf16"})


def _config(folder: pathlib.Path, engine: Engine) -> inference.Config:
    program = find_program(folder)
    config = inference.Config(str(program), str(folder / PARAMETERS))
    if program.suffix == ".json":  # without these two, creating a predictor with memory optimisation fails
        config.enable_new_ir()
        config.enable_new_executor()
    config.enable_memory_optim()
    config.disable_glog_info()
    if engine.use_gpu:
        kinds = {"fp32": "Float32", "fp16": "Half", "bf16": "Bfloat16"}
        config.enable_use_gpu(256, 0, getattr(inference.PrecisionType, kinds[engine.precision]))
        return config
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(engine.cpu_threads)
    if engine.onednn:
        config.enable_mkldnn()
        if engine.precision == "bf16":
            config.enable_mkldnn_bfloat16()
    elif hasattr(config, "disable_mkldnn"):  # PaddlePaddle 3 has oneDNN on unless told otherwise
        config.disable_mkldnn()
    return config


class Predictor:
    """Normalised images in, logits out.

    Args:
        folder: of the bundle.
        engine: how to run it.
        verify: answer the bundle's self-test first.

    Attributes:
        description: what stands in `inference.yaml`.

    Raises:
        UsageError: this machine cannot run such an engine.
        CaitError: the bundle is not whole, was changed, or does not answer its self-test as it should.
    """

    def __init__(self, folder: str | os.PathLike, engine: Engine, verify: bool = True):
        if why_not(engine):
            raise UsageError(why_not(engine))
        self.folder = pathlib.Path(folder)
        self.description: Description = read_description(folder)
        self.engine = engine
        try:
            self._predictor = inference.create_predictor(_config(self.folder, engine))
        except Exception as error:  # Paddle raises almost anything on a program it cannot load
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise CaitError(f"{folder}: Paddle Inference cannot load the bundle ({reason[0]})") from error
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])
        if verify:
            self._self_test()

    def _self_test(self) -> None:
        expected = np.asarray(self.description.self_test_logits)
        difference = np.abs(self(self.description.self_test_input())[0] - expected).max()
        limit = allowed_difference(expected, self.engine.precision)
        if not difference <= limit:  # NaN fails too
            raise CaitError(f"{self.folder}: the self-test differs by {difference:.2e}, allowed are {limit:.2e}")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits [B, classes] of normalised images [B, channels, height, width], both float32."""
        self._input.copy_from_cpu(np.ascontiguousarray(images, "float32"))
        self._predictor.run()
        return self._output.copy_to_cpu()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, float64 inside."""
    exponentials = np.exp(logits.astype("float64") - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
