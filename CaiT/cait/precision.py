"""The precision of single operations in a model: what stays in float32, and what a second pass computes alike.

`cait.train.mixed_precision` decides in which precision a model is trained and evaluated; `cait.model` tells what never
leaves float32.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import paddle
from paddle.base import core, framework
from paddle.distributed.fleet.utils import recompute


def float32(x: paddle.Tensor) -> paddle.Tensor:
    """The tensor, in float32 where it was in half precision."""
    return x.astype("float32") if x.dtype in (paddle.float16, paddle.bfloat16) else x


def full_precision():
    """Context within which mixed precision is off.

    It does nothing where it is off already, for `auto_cast` takes longer than many an operation; nor while a program is
    traced, which is in float32 anyway.
    """
    return paddle.amp.auto_cast(enable=False) if _is_mixed_now() else contextlib.nullcontext()


def _is_mixed_now() -> bool:
    """Whether operations are cast at this moment, by `mixed` or by an `auto_cast` of the user's."""
    return paddle.in_dynamic_mode() and framework._dygraph_tracer()._amp_level != core.AmpLevel.O0


def like(x: paddle.Tensor, other: paddle.Tensor) -> paddle.Tensor:
    """`x` in the type of `other`, without a cast in an exported program, which oneDNN's bfloat16 could not change."""
    return x if x.dtype == other.dtype else x.astype(other.dtype)


# What `mixed` was entered with, for `recomputed`.
_options: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("mixed precision", default=None)


@contextlib.contextmanager
def mixed(**options: Any) -> Iterator[None]:
    """Context of `paddle.amp.auto_cast(**options)`, which holds in the second pass of `recomputed` as well."""
    token = _options.set(options)
    try:
        with paddle.amp.auto_cast(**options):
            yield
    finally:
        _options.reset(token)


def recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)` of which only the arguments are kept: the backward pass computes it again, alike.

    Paddle's own `recompute` restores the state of mixed precision but for `use_promote`: at O2 the second pass would be
    in float32, and the gradients those of another pass than the loss.
    """
    options = _options.get()
    if options is None:
        return recompute(function, *arguments)

    def alike(*arguments):
        with mixed(**options):
            return function(*arguments)

    return recompute(alike, *arguments)


@contextlib.contextmanager
def default_dtype(dtype: str):
    """Makes float64 or float32 Paddle's default type within the block."""
    before = paddle.get_default_dtype()
    paddle.set_default_dtype(dtype)
    try:
        yield
    finally:
        paddle.set_default_dtype(before)
