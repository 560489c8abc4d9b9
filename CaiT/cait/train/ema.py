"""The exponential moving average of the weights (Polyak averaging; timm `ModelEma`)."""

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import paddle
from paddle import nn


class ModelEma:
    """After every optimizer step: average = decay * average + (1 - decay) * weight, for every tensor of a model.

    The averages are tensors by name, not a second model, which would take automatic parameter names from the first.
    They start as the weights are; there is no warm-up, as in timm and DeiT.

    Args:
        model: whose weights are averaged.
        decay: of the average, in a step.
    """

    def __init__(self, model: nn.Layer, decay: float):
        self.model = model
        self.decay = decay
        self.restart()

    @paddle.no_grad()
    def restart(self) -> None:
        """Makes the averages equal to the weights of the model."""
        tensors = self.model.state_dict()
        self.averages = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        # Kept, for `state_dict` looks at every layer again: 8 ms for XXS24 (PaddlePaddle 2.6.2, a 2-core EPYC).
        self._pairs = [(self.averages[name], tensor) for name, tensor in tensors.items()]

    @paddle.no_grad()
    def update(self) -> None:
        """Moves the averages towards the weights; once for each optimizer step."""
        share = {}
        for average, tensor in self._pairs:
            if tensor.dtype not in share:  # a tensor, not a Python number, which PaddlePaddle 2.6 rounds to float32
                share[tensor.dtype] = paddle.to_tensor(1.0 - self.decay, dtype=tensor.dtype)
            average.lerp_(tensor, share[tensor.dtype])

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Goes on from saved averages of the same model."""
        for name, array in arrays.items():
            self.averages[name].set_value(np.ascontiguousarray(array))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which the model has the averages as its weights; afterwards it has its own again, bit for bit."""
        own = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        try:
            self._fill(self.averages)
            yield
        finally:
            self._fill(own)

    @paddle.no_grad()
    def _fill(self, tensors: Mapping[str, paddle.Tensor]) -> None:
        for name, tensor in self.model.state_dict().items():
            tensor.set_value(tensors[name])
