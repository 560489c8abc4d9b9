"""What this machine can compute on."""

import paddle


def has_gpu() -> bool:
    """Whether there is a GPU and a PaddlePaddle that can use it."""
    return paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
