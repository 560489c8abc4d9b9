"""Finds where a number that is not finite came from, for the message when a run stops at one."""

from collections.abc import Callable

import paddle
from paddle import nn


def _is_finite(value) -> bool:
    tensors = value if isinstance(value, (list, tuple)) else [value]
    tensors = [tensor for tensor in tensors if isinstance(tensor, paddle.Tensor) and tensor.is_floating_point()]
    return all(bool(paddle.isfinite(tensor).all()) for tensor in tensors)


def first_layer_not_finite(model: nn.Layer, forward: Callable[[], object]) -> str | None:
    """The name of the first layer that gives an output that is not finite while `forward` runs; None if none does.

    Args:
        forward: runs the model, without gradients, as in the step in question.
    """
    found: list[str] = []
    hooks = []
    for name, layer in model.named_sublayers():

        def look(layer, inputs, output, name=name):
            if not found and not _is_finite(output):
                found.append(name)

        hooks.append(layer.register_forward_post_hook(look))
    try:
        with paddle.no_grad():
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def explain(model: nn.Layer, forward: Callable[[], object]) -> str:
    """Words on where a loss or gradient that is not finite came from; the gradients are those of the step."""
    layer = first_layer_not_finite(model, forward)
    if layer is not None:
        return f"the first layer whose output is not finite is {layer}"
    for name, parameter in reversed(list(model.named_parameters())):  # in the order of the backward pass
        if parameter.grad is not None and not _is_finite(parameter.grad):
            return f"the outputs of all layers are finite, the first gradient that is not is that of {name}"
    return "the outputs of all layers are finite"
