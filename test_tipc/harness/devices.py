"""Why a row of the parameter file cannot run on this machine."""

import functools


@functools.cache
def num_gpus() -> int:
    """GPUs that PaddlePaddle can use."""
    import paddle  # seconds, and not needed for rows of the CPU

    from cait.device import has_gpu

    return paddle.device.cuda.device_count() if has_gpu() else 0


def is_amp(autocast: str) -> bool:
    """Whether a value of line 6 asks for mixed precision."""
    return autocast not in ("null", "", "False", "fp32")


def why_not_train(gpus: str, device: str, autocast: str) -> str:
    """Why training cannot run on `gpus` (a row of line 4), as `device`, with that autocast; empty if it can."""
    on_cpu = gpus == "-1" and device != "gpu"
    if on_cpu:
        return "mixed precision needs a GPU, and this row is for the CPU" if is_amp(autocast) else ""
    numbers = [int(number) for number in gpus.rpartition(";")[2].split(",")]
    if num_gpus() <= max(numbers):
        return f"needs GPU {max(numbers)}, and PaddlePaddle can use {num_gpus() or 'none'} here"
    return ""


def why_not_infer(use_gpu: bool, mkldnn: bool, precision: str, tensorrt: bool) -> str:
    """Why inference cannot run so; empty if it can."""
    if not use_gpu and precision == "fp32":
        return ""
    from cait.deploy.inference_engine import Engine, why_not

    return why_not(Engine(use_gpu, mkldnn, precision=precision, tensorrt=tensorrt))
