"""In which precision a model is trained and evaluated: float32, or mixed (Micikevicius et al., ICLR 2018).

Mixed precision is a matter of GPUs: PaddlePaddle has none on the CPU, where only the wiring of it can be tested. The
weights stay in float32 at both levels.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import paddle
from paddle import nn

from cait.errors import UsageError
from cait.precision import mixed

INITIAL_LOSS_SCALE = 2.0**16


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
        self._options: dict[str, Any] = {"dtype": dtype, "level": level} if self.is_mixed else {}
        if self.is_mixed and level == "O2":  # with float32 weights, Paddle would otherwise stay in float32
            self._options |= {"use_promote": False, "custom_black_list": {"layer_norm"}}
        self.scaler = paddle.amp.GradScaler(enable=dtype == "float16", init_loss_scaling=INITIAL_LOSS_SCALE)

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Context in which a model computes so."""
        with mixed(enable=self.is_mixed, **self._options):
            yield

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
