"""In which precision a model computes: float32, or mixed with half precision (Micikevicius et al., ICLR 2018).

Mixed precision is a matter of GPUs: PaddlePaddle has none on the CPU, where only the wiring of it can be tested. The
weights stay in float32 at both levels. What never leaves float32 is told in `cait.model`.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import paddle
from paddle import nn
from paddle.base import core, framework
from paddle.distributed.fleet.utils import recompute

from cait.errors import UsageError

INITIAL_LOSS_SCALE = 2.0**16


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
    """Whether operations are cast at this moment, by `Precision` or by an `auto_cast` of the user's."""
    return paddle.in_dynamic_mode() and framework._dygraph_tracer()._amp_level != core.AmpLevel.O0


def like(x: paddle.Tensor, other: paddle.Tensor) -> paddle.Tensor:
    """`x` in the type of `other`, without a cast in an exported program, which oneDNN's bfloat16 could not change."""
    return x if x.dtype == other.dtype else x.astype(other.dtype)


_current: contextvars.ContextVar["Precision | None"] = contextvars.ContextVar("precision", default=None)


def recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)` of which only the arguments are kept: the backward pass computes it again, alike.

    Paddle's own `recompute` restores the state of mixed precision but for `use_promote`: at O2 the second pass would be
    in float32, and the gradients those of another pass than the loss.
    """
    precision = _current.get()
    if precision is None:
        return recompute(function, *arguments)

    def alike(*arguments):
        with precision.autocast():
            return function(*arguments)

    return recompute(alike, *arguments)


class Precision:
    """How a step computes: `with autocast()`, `backward(loss)`, `unscale(optimizer)`, `step(optimizer)`.

    In float16 the loss is scaled so that small gradients do not vanish. A step whose gradients overflow is left out and
    the scale is lowered; it rises again after many good steps.

    Args:
        dtype: "float32", "float16" or "bfloat16".
        level: "O1": the operations that Paddle lists as safe; "O2": all but norms and those that it lists as unsafe.
    """

    def __init__(self, dtype: str = "float32", level: str = "O1"):
        self.is_mixed = dtype != "float32"
        self._options = {"dtype": dtype, "level": level} if self.is_mixed else {}
        if self.is_mixed and level == "O2":  # with float32 weights, Paddle would otherwise stay in float32
            self._options |= {"use_promote": False, "custom_black_list": {"layer_norm"}}
        self.scaler = paddle.amp.GradScaler(enable=dtype == "float16", init_loss_scaling=INITIAL_LOSS_SCALE)

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Context in which a model computes so."""
        token = _current.set(self)
        try:
            with paddle.amp.auto_cast(enable=self.is_mixed, **self._options):
                yield
        finally:
            _current.reset(token)

    def run(self, model: nn.Layer, images: paddle.Tensor) -> paddle.Tensor:
        """The model's logits in the precision of the images, computed in this one."""
        with self.autocast():
            logits = model(images)
        return logits.astype(images.dtype) if self.is_mixed else logits

    def backward(self, loss: paddle.Tensor) -> None:
        """Adds the gradients of the loss, scaled."""
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer: paddle.optimizer.Optimizer) -> None:
        """Takes the scale out of the gradients, once in a step."""
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: paddle.optimizer.Optimizer) -> None:
        """Moves the weights, unless the gradients are not finite and were scaled."""
        self.scaler.step(optimizer)
        self.scaler.update()

    @property
    def may_overflow(self) -> bool:
        """Whether gradients that are not finite are the scale's fault, which a lower one will mend."""
        return self.scaler.is_enable() and float(self.scaler.state_dict()["scale"][0]) > 1.0

    def state(self) -> dict[str, Any]:
        """The state of the scale as plain values; empty where nothing is scaled."""
        state = dict(self.scaler.state_dict())
        return state | {"scale": [float(state["scale"][0])]} if state else {}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on with a saved scale; from the initial one where the run before had none."""
        if state:
            self.scaler.load_state_dict(state)


def build_precision(config, evaluation: bool = False) -> Precision:
    """The precision of training, or of evaluation and prediction, that a config asks for.

    Raises:
        UsageError: mixed precision on a device that has none.
    """
    if not (config.AMP_EVAL if evaluation else config.AMP):
        return Precision()
    if reason := why_not_mixed(config.AMP_DTYPE):
        raise UsageError(f"{'AMP_EVAL' if evaluation else 'AMP'}: {reason}")
    return Precision(config.AMP_DTYPE, config.AMP_LEVEL)


def why_not_mixed(dtype: str) -> str:
    """Why the device in use cannot compute in mixed precision with float16 or bfloat16; empty if it can."""
    if "gpu" not in paddle.device.get_device():
        return "mixed precision needs a GPU; this is the CPU"
    check = {"float16": paddle.amp.is_float16_supported, "bfloat16": paddle.amp.is_bfloat16_supported}
    return "" if check[dtype]() else f"this GPU has no {dtype}, another AMP_DTYPE is needed"
