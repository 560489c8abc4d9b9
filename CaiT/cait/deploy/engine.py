"""Describes how Paddle Inference runs a program, and which ways no machine has. It needs no PaddlePaddle."""

import dataclasses

from cait.machine.processor import usable_cores


@dataclasses.dataclass(frozen=True)
class Engine:
    """How Paddle Inference runs a program.

    Attributes:
        use_gpu: on the first GPU, or on the CPU.
        onednn: on the CPU, with oneDNN's kernels.
        cpu_threads: on the CPU.
        precision: fp32; bf16, on a processor or GPU that has it; fp16, on a GPU. None: that of the bundle.
        tensorrt: on a GPU, with TensorRT where PaddlePaddle was built with it and its libraries are installed.
        max_batch_size: images a call, at most; TensorRT plans with it.
        fused: on the CPU with oneDNN, prefer the bundle's fused program, where this machine has its operators.
    """

    use_gpu: bool = False
    onednn: bool = True
    cpu_threads: int = usable_cores()
    precision: str | None = "fp32"
    tensorrt: bool = False
    max_batch_size: int = 1
    fused: bool = True

    @property
    def computes_in(self) -> str:
        """The precision, of an engine that has one; a predictor gives its engine that of the bundle."""
        assert self.precision is not None
        return self.precision


def why_never(engine: Engine) -> str:
    """Why no machine can run an engine; empty if one can."""
    if engine.use_gpu:
        return ""
    if engine.tensorrt:
        return "TensorRT runs on a GPU only"
    if engine.precision == "fp16":
        return "fp16 needs a GPU"
    if engine.precision == "bf16" and not engine.onednn:
        return "bf16 on the CPU needs oneDNN"
    return ""
