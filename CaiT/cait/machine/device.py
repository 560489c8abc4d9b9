"""The devices of this machine, and what Paddle is told for them."""

import os

import paddle
from paddle.base import core

from cait.errors import UsageError

# What Paddle is told for each device, unless the user's environment says otherwise.
DEVICE_FLAGS = {
    # Transposes as views make the backward pass copy element by element: 168 ms a step of the demo, 94 without
    # (PaddlePaddle 3.3.1, one core of a 2-core Xeon).
    "cpu": {"FLAGS_use_stride_kernel": False},
    # cuDNN may take another algorithm for the gradient of the patch embedding's weights at every call otherwise, some
    # of which sum in any order: a run would not repeat bit for bit.
    "gpu": {"FLAGS_cudnn_deterministic": True},
}
FOUND_NONE = "this PaddlePaddle is built for GPUs and finds none"


def set_flags(kind: str) -> None:
    """Tells Paddle what DEVICE_FLAGS says of `cpu` or `gpu`; a flag that the user has set in the environment stays."""
    paddle.set_flags({name: value for name, value in DEVICE_FLAGS[kind].items() if name not in os.environ})


def has_gpu() -> bool:
    """Whether there is a GPU and a PaddlePaddle that can use it."""
    return paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0


def device_words() -> str:
    """The device that is in use, for a log, such as `cpu` or `gpu:0`; and that a build for GPUs has found none."""
    return paddle.device.get_device() + (f" ({FOUND_NONE})" if _lacks_gpu() else "")


def why_no_profiler() -> str:
    """Why Paddle's profiler does not work here; empty where it does. That of a build for GPUs asks for their driver."""
    return f"{FOUND_NONE}, and its profiler needs the driver of one, for the CPU too" if _lacks_gpu() else ""


def _lacks_gpu() -> bool:
    return paddle.device.is_compiled_with_cuda() and not has_gpu()


def allow_tf32(allowed: bool) -> None:
    """Whether NVIDIA's libraries may round the factors of float32 products to 10 bits of mantissa (TF32), from now on.

    It is called before the first product: cuBLAS and cuDNN look into the environment when PaddlePaddle first uses them.
    """
    os.environ["NVIDIA_TF32_OVERRIDE"] = str(int(allowed))
    for name in ("set_cublas_switch", "set_cudnn_switch"):  # PaddlePaddle's own, in builds for GPUs
        if hasattr(core, name):
            getattr(core, name)(allowed)


def select_device(wanted: str, tf32: bool = False, num_processes: int = 1) -> None:
    """Chooses the device for all that follows, and whether it may round products of float32, see `allow_tf32`.

    Args:
        wanted: "cpu", "gpu", or "auto": a GPU where there is one.
        num_processes: of a run on this machine; each needs a GPU of its own.

    Raises:
        UsageError: a GPU was asked for and there is none, or fewer than processes.
    """
    if wanted == "gpu" and not has_gpu():
        raise UsageError("DEVICE=gpu: there is no GPU, or this PaddlePaddle is the CPU build")
    device = "gpu" if has_gpu() and wanted != "cpu" else "cpu"
    num_gpus = paddle.device.cuda.device_count() if device == "gpu" else 0
    if device == "gpu" and num_processes > num_gpus:
        raise UsageError(f"{num_processes} processes on a machine with {num_gpus} GPUs: each needs its own")
    allow_tf32(tf32)
    paddle.device.set_device(device)  # of several GPUs the one that the launcher chose for this process
    set_flags(device)
    if device == "cpu":
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"  # a GPU build would look for GPUs
