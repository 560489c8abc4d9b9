"""The processes of a run: their number, and sums over them. In one process nothing is communicated."""

import paddle
from paddle import distributed


def world_size() -> int:
    """Number of processes."""
    return distributed.get_world_size()


def rank() -> int:
    """Which of the processes this one is, from 0."""
    return distributed.get_rank()


def sum_over_processes(values: paddle.Tensor) -> paddle.Tensor:
    """The element-wise sum of `values` over all processes."""
    if world_size() > 1:
        distributed.all_reduce(values)
    return values
