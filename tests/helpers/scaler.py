"""A stand-in for Paddle's GradScaler, which does nothing on CPUs."""

import numpy as np
import paddle


class Scaler:
    """What GradScaler does on a GPU, as far as training calls it."""

    def __init__(self, enable, init_loss_scaling):
        self.enabled, self.scale_value, self.calls = enable, init_loss_scaling, []

    def is_enable(self):
        return self.enabled

    def scale(self, loss):
        return loss * self.scale_value if self.enabled else loss

    def unscale_(self, optimizer):
        self.calls.append("unscale")
        for parameter in optimizer._parameter_list:
            if self.enabled and parameter.grad is not None:
                parameter.grad.set_value(parameter.grad / self.scale_value)
        finite = all(bool(paddle.isfinite(parameter.grad).all()) for parameter in optimizer._parameter_list)
        self.overflow = self.enabled and not finite

    def step(self, optimizer):
        self.calls.append("step")
        if not self.overflow:
            optimizer.step()

    def update(self):
        self.calls.append("update")
        self.scale_value *= 0.5 if self.overflow else 1.0

    def state_dict(self):
        return {"scale": np.array([self.scale_value], "float32"), "incr_count": 3} if self.enabled else {}

    def load_state_dict(self, state):
        self.scale_value = state["scale"][0]
