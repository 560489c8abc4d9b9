"""Why a row of the parameter file cannot run on this machine."""

import functools

from cait.deploy.engine import Engine, why_never
from harness.rows import Row, is_amp


@functools.cache
def num_gpus() -> int:
    """GPUs that PaddlePaddle can use."""
    import paddle  # seconds, and not needed for rows of the CPU

    from cait.machine.device import has_gpu

    return paddle.device.cuda.device_count() if has_gpu() else 0


def why_not_train(row: Row) -> str:
    """Why a row of training cannot run here; empty if it can."""
    if row.is_on_cpu or (row.gpus == "-1" and row.device != "gpu"):
        return "mixed precision needs a GPU, and this row is for the CPU" if is_amp(row.autocast) else ""
    numbers = [int(number) for number in row.numbers.split(",")]
    if num_gpus() <= max(numbers):
        return f"needs GPU {max(numbers)}, and PaddlePaddle can use {num_gpus() or 'none'} here"
    return ""


def why_not_infer(engine: Engine) -> str:
    """Why inference cannot run so here; empty if it can."""
    if not engine.use_gpu and engine.precision == "fp32":
        return why_never(engine)
    from cait.deploy.engine_config import why_not

    return why_not(engine)
