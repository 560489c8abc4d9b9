"""The processes of a run: their number, what they tell each other. In one process nothing is communicated.

Gradients are summed by one all-reduce in an optimizer step, and not by `paddle.DataParallel`, which averages over
processes: with unequal last batches, or images left out, processes hold unequal shares of a step, and where one has
nothing left DataParallel's others would wait for it for ever. It would also synchronise every accumulated batch, and it
silently leaves out gradients that are not contiguous. The price is that sums do not overlap the backward pass.
"""

import contextlib
import io
import os
import time
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

import paddle
from paddle import distributed

from cait.command.run import outcome
from cait.distributed.watchdog import Watchdog
from cait.errors import CaitError, UsageError

REASON_SECONDS = 5.0  # a collective fails where another process is gone, which the watchdog knows and says by then
_of_this_process: Watchdog | None = None  # from `joined` on, where there are several processes
BUCKET_ELEMENTS = 2**24  # 64 MB of float32, which is what the sum of the gradients needs at a time


def world_size() -> int:
    """Number of processes."""
    return distributed.get_world_size()


def rank() -> int:
    """Returns the number of this process, from 0."""
    return distributed.get_rank()


def local_size() -> int:
    """Number of the processes on this machine, as those who started them say."""
    return int(os.environ.get("PADDLE_LOCAL_SIZE", world_size()))


class _SharedError(CaitError):
    """The error of one process, raised in all of them."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Context in which the processes work together: they end together, and when one fails, all fail for its reason.

    With more than one process, leaving by an exception ends this process.
    """
    if world_size() == 1:
        yield
        return
    with contextlib.redirect_stderr(io.StringIO()):  # the flags that differ from Paddle's defaults
        distributed.init_parallel_env()
    global _of_this_process
    _of_this_process = watchdog = _watchdog()
    try:
        yield
        watchdog.finish()
    except BaseException as error:
        known = outcome(error)
        if known is None:
            time.sleep(REASON_SECONDS)
            traceback.print_exc()
            known = f"{type(error).__name__}: {error}", 1
        message, exit_code = known
        if isinstance(error, Exception) and not isinstance(error, _SharedError):
            message += f" (process {rank()} of {world_size()})"
        watchdog.fail(message, exit_code)


def _watchdog() -> Watchdog:
    """The watchdog of this process, connected."""
    is_first_here = os.environ.get("PADDLE_LOCAL_RANK", os.environ.get("PADDLE_RANK_IN_NODE", str(rank()))) == "0"
    watchdog = Watchdog(rank(), world_size(), is_first_here)
    host = os.environ["PADDLE_TRAINER_ENDPOINTS"].split(",")[0].rpartition(":")[0]
    ports: list[int | None] = []
    distributed.all_gather_object(ports, watchdog.listen() if rank() == 0 else None)
    port = ports[0]
    try:
        if rank() > 0 and port is not None:
            watchdog.connect(host, port)
        watchdog.join()
    except OSError as error:
        raise CaitError(f"process {rank()}: no connection with process 0 at {host}:{port} ({error})") from error
    return watchdog


def sum_over_processes(values: paddle.Tensor) -> paddle.Tensor:
    """The element-wise sum of `values` over all processes."""
    if world_size() > 1:
        _meet()
        distributed.all_reduce(values)
    return values


def total(count: int) -> int:
    """The sum of a count over all processes."""
    return sum(gather(count))


def gather(value: Any) -> list[Any]:
    """The plain values of all processes, by rank: what JSON holds; of several processes, tuples become lists.

    They do not go through the GPU: Paddle holds Python's lock while it waits there for a number (`Tensor.item`), and
    waits for all that the GPU was given before.
    """
    return [value] if _of_this_process is None else _of_this_process.gather(value)


def wait_for_all() -> None:
    """Returns once every process is here."""
    gather(None)


def check_same(values: dict[str, Any]) -> None:
    """Raises UsageError, naming the first one that differs, unless all processes have the same values."""
    for other, theirs in enumerate(gather(values)):
        for name, value in values.items():
            if theirs.get(name) != value:
                words = f"{name} is {value} in process {rank()}, but {theirs.get(name)} in process {other}"
                raise UsageError(f"{words}: all must be started alike, and read the same files")


def raise_first(error: CaitError | None, is_cause: bool = True) -> None:
    """Called by all processes, each with its error or None: raises the first process's error in all of them.

    Args:
        is_cause: whether the error is one that others may follow from; those come first.
    """
    if world_size() == 1:
        if error is not None:
            raise error
        return
    found = gather(None if error is None else (not is_cause, rank(), str(error), error.exit_code))
    found = [entry for entry in found if entry is not None]
    if found:
        _, origin, message, exit_code = min(found)
        raise _SharedError(f"{message} (process {origin} of {world_size()})", exit_code)


def _meet() -> None:
    """Waits for all on the CPU: gloo, which sums there, gives up on a process that comes 30 s after the others."""
    if paddle.device.get_device() == "cpu":
        wait_for_all()


@paddle.no_grad()
def broadcast(tensors: Iterable[paddle.Tensor]) -> None:
    """Gives every process the values of process 0."""
    _meet()
    for tensor in tensors if world_size() > 1 else ():
        distributed.broadcast(tensor, src=0)


@paddle.no_grad()
def sum_gradients(parameters: Iterable[paddle.Tensor]) -> None:
    """Replaces the gradients by their sums over all processes; where a process has none, it adds zeros.

    The order of summing is the same in all processes, so that they stay equal bit by bit.
    """
    _meet()
    bucket: list[paddle.Tensor] = []
    num_elements = 0
    for parameter in parameters if world_size() > 1 else ():
        if parameter.stop_gradient:
            continue
        num_elements += parameter.size
        if bucket and num_elements > BUCKET_ELEMENTS:
            _sum_bucket(bucket)
            bucket, num_elements = [], parameter.size
        bucket.append(parameter)
    if bucket:
        _sum_bucket(bucket)


def _sum_bucket(parameters: list[paddle.Tensor]) -> None:
    gradients = [paddle.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = paddle.concat([gradient.reshape([-1]) for gradient in gradients])
    distributed.all_reduce(flat)
    for parameter, part in zip(parameters, flat.split([parameter.size for parameter in parameters])):
        parameter.grad = part.reshape(parameter.shape)
