"""AdamW, its parameter groups, and the learning-rate schedule."""

import math
import re

import paddle
from paddle import nn

from cait.errors import CaitError

NO_DECAY = ("pos_embed", "cls_token")
_STATE_NAME = re.compile(r"(.+)_(moment1|moment2|beta1_pow_acc|beta2_pow_acc)_\d+")


def learning_rate(
    epoch: int, num_epochs: int, base_lr: float, warmup_start_lr: float, end_lr: float, warmup_epochs: int
) -> float:
    """The learning rate of one epoch: linear warm-up, then a cosine over the whole length (timm `CosineLRScheduler`).

    Args:
        epoch: from 0.
        num_epochs: length of the run, warm-up included.
        base_lr: peak.
        warmup_start_lr: value in epoch 0, if there is a warm-up.
        end_lr: value the cosine reaches after the last epoch.
        warmup_epochs: length of the warm-up.
    """
    if epoch < warmup_epochs:
        return warmup_start_lr + epoch * (base_lr - warmup_start_lr) / warmup_epochs
    return end_lr + 0.5 * (base_lr - end_lr) * (1.0 + math.cos(math.pi * epoch / num_epochs))


def scaled_learning_rate(base_lr: float, images_per_step: int, reference: int | None) -> float:
    """`base_lr`, meant for `reference` images a step, in proportion to the actual number; None: no scaling."""
    return base_lr if reference is None else base_lr * images_per_step / reference


def is_decayed(name: str, parameter: paddle.Tensor) -> bool:
    """Whether weight decay applies: to matrices, not to biases, norms, LayerScale and the embeddings (DeiT)."""
    return parameter.ndim > 1 and name not in NO_DECAY


def adamw(
    model: nn.Layer, weight_decay: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> paddle.optimizer.AdamW:
    """AdamW over all parameters of the model; its learning rate is set epoch by epoch with `set_lr`.

    Args:
        weight_decay: decoupled, on the tensors of `is_decayed`.
        betas, eps: as in the paper of Adam.
    """
    # The callback gets Paddle's automatic parameter name, not the structured one.
    decayed = {parameter.name for name, parameter in model.named_parameters() if is_decayed(name, parameter)}
    return paddle.optimizer.AdamW(
        learning_rate=0.0,
        beta1=betas[0],
        beta2=betas[1],
        epsilon=eps,
        parameters=model.parameters(),
        weight_decay=weight_decay,
        apply_decay_param_fun=decayed.__contains__,
    )


def build_optimizer(config, model: nn.Layer) -> paddle.optimizer.AdamW:
    """The optimizer that a config describes."""
    train = config.TRAIN
    return adamw(model, train.WEIGHT_DECAY, tuple(train.BETAS), train.EPS)


def optimizer_state(optimizer: paddle.optimizer.Optimizer, model: nn.Layer) -> dict[str, paddle.Tensor]:
    """The optimizer's state by structured names, such as `blocks.0.attn.qkv.weight/moment1`.

    Paddle's own keys hold automatic parameter names, which change with every layer that is built before the model.
    """
    structured = {parameter.name: name for name, parameter in model.named_parameters()}
    state = {}
    for key, value in optimizer.state_dict().items():
        match = _STATE_NAME.fullmatch(key)
        assert match and match[1] in structured, f"unknown optimizer state {key}"
        state[f"{structured[match[1]]}/{match[2]}"] = value
    return state


def load_optimizer_state(optimizer: paddle.optimizer.Optimizer, model: nn.Layer, state: dict) -> None:
    """Puts back what `optimizer_state` gave.

    Raises:
        CaitError: the state is of another model.
    """
    automatic = {name: parameter.name for name, parameter in model.named_parameters()}
    unknown = {key.split("/")[0] for key in state} ^ set(automatic)
    if unknown:
        raise CaitError(f"optimizer state of another model: {sorted(unknown)[0]} stands on one side only")
    named = {}
    for key, value in state.items():
        name, accumulator = key.split("/")
        named[f"{automatic[name]}_{accumulator}_0"] = paddle.to_tensor(value)
    optimizer.set_state_dict(named)
