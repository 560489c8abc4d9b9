"""AdamW and its parameter groups, which parameters are frozen, and the norm of the gradients."""

import re

import paddle
from paddle import nn

from cait.errors import CaitError
from cait.model import CaiT

NO_DECAY = ("pos_embed", "cls_token")
_TRUNK = ("patch_embed", "pos_embed", "blocks")
FROZEN = {  # parts of the model that are not trained; the class token enters in class attention
    "none": (),
    "all_but_class_attention": _TRUNK,
    "all_but_head": (*_TRUNK, "cls_token", "blocks_token_only", "norm"),
}
_STATE_NAME = re.compile(r"(.+)_(moment1|moment2|beta1_pow_acc|beta2_pow_acc)_\d+")


def layer_number(name: str, depth: int, depth_token_only: int) -> int:
    """The layer of a parameter for layer-wise learning rates, from 0 (embedding) to depth + depth_token_only + 1.

    BEiT's rule (`get_num_layer_for_vit`) on CaiT: patch and position embedding and class token, then every
    self-attention block, then every class-attention block, then norm and head.
    """
    section, *rest = name.split(".")
    if section in ("patch_embed", *NO_DECAY):
        return 0
    if section == "blocks":
        return 1 + int(rest[0])
    if section == "blocks_token_only":
        return 1 + depth + int(rest[0])
    return 1 + depth + depth_token_only


def freeze(model: CaiT, what: str) -> None:
    """Takes parameters out of training: they get no gradient, no step and no weight decay.

    Args:
        what: a key of FROZEN.
    """
    for name, parameter in model.named_parameters():
        parameter.stop_gradient = name.split(".")[0] in FROZEN[what]


def is_decayed(name: str, parameter: paddle.Tensor) -> bool:
    """Whether weight decay applies: to matrices, not to biases, norms, LayerScale and the embeddings (DeiT)."""
    return parameter.ndim > 1 and name not in NO_DECAY


def adamw(
    model: CaiT,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    layer_decay: float = 1.0,
) -> paddle.optimizer.AdamW:
    """AdamW over the parameters of the model that are not frozen; its learning rate is set epoch by epoch by `set_lr`.

    Args:
        weight_decay: decoupled, on the tensors of `is_decayed`.
        betas, eps: as in the paper of Adam.
        layer_decay: the learning rate of each layer (`layer_number`) over that of the one above it; the last has the
            whole. The weight decay of a step follows the learning rate.
    """
    # The callback gets Paddle's automatic parameter name, not the structured one.
    decayed = {parameter.name for name, parameter in model.named_parameters() if is_decayed(name, parameter)}
    if layer_decay != 1.0:
        depths = len(model.blocks), len(model.blocks_token_only)
        for name, parameter in model.named_parameters():
            # Not by AdamW's lr_ratio, which PaddlePaddle refuses on a CPU.
            parameter.optimize_attr["learning_rate"] = layer_decay ** (sum(depths) + 1 - layer_number(name, *depths))
    return paddle.optimizer.AdamW(
        learning_rate=0.0,
        beta1=betas[0],
        beta2=betas[1],
        epsilon=eps,
        parameters=[parameter for parameter in model.parameters() if not parameter.stop_gradient],
        weight_decay=weight_decay,
        apply_decay_param_fun=decayed.__contains__,
    )


def build_optimizer(config, model: CaiT) -> paddle.optimizer.AdamW:
    """The optimizer that a config describes."""
    train = config.TRAIN
    return adamw(model, train.WEIGHT_DECAY, tuple(train.BETAS), train.EPS, train.LAYER_DECAY)


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
    """Puts back what `optimizer_state` gave; nothing, if no step had been made.

    Raises:
        CaitError: the state is of another model, or of the same with other parameters frozen.
    """
    if not state:
        return
    automatic = {name: parameter.name for name, parameter in model.named_parameters() if not parameter.stop_gradient}
    unknown = {key.split("/")[0] for key in state} ^ set(automatic)
    if unknown:
        raise CaitError(
            f"optimizer state of another model or another TRAIN.FREEZE: {sorted(unknown)[0]} stands on one side only"
        )
    named = {}
    for key, value in state.items():
        name, accumulator = key.split("/")
        named[f"{automatic[name]}_{accumulator}_0"] = paddle.to_tensor(value)
    optimizer.set_state_dict(named)


def gradient_norm(parameters: list[paddle.Tensor]) -> paddle.Tensor:
    """Global Euclidean norm [] of the gradients; zero where there are none."""
    # Not by paddle.linalg.norm: 47 ms for XXS24 on a CPU with PaddlePaddle 3.3.1, this takes 10.
    squares = [(parameter.grad * parameter.grad).sum() for parameter in parameters if parameter.grad is not None]
    return paddle.stack(squares).sum().sqrt() if squares else paddle.zeros([])


@paddle.no_grad()
def clip_gradients(parameters: list[paddle.Tensor], norm: float, largest: float) -> None:
    """Scales the gradients, whose global norm is `norm`, so that it is at most `largest`.

    The rule is that of `torch.nn.utils.clip_grad_norm_`; the norm is not computed again.
    """
    share = largest / (norm + 1e-6)
    if share < 1.0:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.scale_(share)
