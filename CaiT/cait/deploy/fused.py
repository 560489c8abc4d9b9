"""The network of an exported bundle for CPUs, made of the fused operators."""

import paddle
from paddle import nn

from cait.model import CaiT
from cait.ops.library import OperatorsUnavailable, operators
from cait.ops.pack import pack_blocks, pack_class_blocks, pack_patches

PRECISIONS = ("fp32", "bf16")
MAX_HEADS = 64  # `kMostHeads` of the kernels


class FusedCaiT(nn.Layer):
    """What a `CaiT` computes in evaluation, with its weights packed for the operators of `cait.ops`.

    Images [B, C, height, width] -> logits [B, num_classes], or with `with_attention` these and the class attention
    [B, class-attention blocks, H, 1 + N].

    Args:
        model: with its weights; at most 64 heads.
        precision: "fp32" or "bf16", of the large matrix products; sums, softmax and norms stay in float32.
        with_attention: also return the attention maps.

    Raises:
        OperatorsUnavailable: there are none for such a model or precision, or they cannot be built or loaded here.
    """

    def __init__(self, model: CaiT, precision: str, with_attention: bool = False):
        super().__init__()
        if precision not in PRECISIONS:
            raise OperatorsUnavailable(f"there is none of {precision}")
        if model.blocks[0].attn.num_heads > MAX_HEADS:
            raise OperatorsUnavailable(f"it has room for {MAX_HEADS} heads")
        self.operators = operators()
        self.with_attention = with_attention
        self.norm, self.head = model.norm, model.head
        self.patch_size = model.patch_embed.proj.weight.shape[-1]
        self.num_heads = model.blocks[0].attn.num_heads
        self.hidden_dims = [blocks[0].mlp.fc1.weight.shape[1] for blocks in (model.blocks, model.blocks_token_only)]
        arrays = {"class_token": model.cls_token.numpy().reshape(-1)}
        patches = pack_patches(model.patch_embed.proj, model.pos_embed.numpy()[0], precision)
        arrays["positions"], arrays["patch_panels"] = patches
        arrays["vectors"], arrays["panels"] = pack_blocks(model.blocks, precision)
        arrays["class_vectors"], arrays["class_panels"] = pack_class_blocks(model.blocks_token_only, precision)
        for name, array in arrays.items():
            self.register_buffer(name, paddle.to_tensor(array))

    def forward(self, images):
        run = self.operators
        x = run.cait_patches(images, self.positions, self.patch_panels, self.patch_size)
        x = run.cait_blocks(x, self.vectors, self.panels, self.num_heads, self.hidden_dims[0])
        token, attention = run.cait_class_blocks(
            x, self.class_token, self.class_vectors, self.class_panels, self.num_heads, self.hidden_dims[1]
        )
        logits = self.head(self.norm(token))
        return (logits, attention) if self.with_attention else logits
