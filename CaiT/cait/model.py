"""CaiT, the class-attention image transformer, in one file.

Paper: "Going deeper with Image Transformers" (Touvron et al., ICCV 2021, arXiv 2103.17239).
Reference code: facebookresearch/deit `cait_models.py` and timm `timm/models/cait.py`. Every parameter
carries the name it has in the official checkpoints, so converting one is transposing its 2-D tensors.

In mixed precision, attention from logits to softmax, LayerScale and the residual sums stay in float32: half precision
makes NaN of them in deep models (issues 29 and 109 of the reference repository).
Shapes: B images, C channels, N patches, D embedding width, H heads, d = D / H channels a head.
"""

import paddle
from paddle import nn
from paddle.nn import functional as F

from cait.precision import float32, full_precision, like, recomputed

LAYER_NORM_EPSILON = 1e-6


def add_branch(x, gamma, branch, drop_path=lambda x: x):
    """LayerScale and residual sum: x + drop_path(gamma * branch); gamma [D], the others [B, N, D]."""
    with full_precision():
        return x + drop_path(gamma * float32(branch))


class DropPath(nn.Layer):
    """Stochastic depth: in training, drops the whole residual branch of a sample with `drop_prob`.

    Kept branches are divided by the keep probability, as evaluation expects. [B, ...] -> [B, ...].
    """

    def __init__(self, drop_prob: float):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep_prob = 1.0 - self.drop_prob
        keep = paddle.floor(keep_prob + paddle.rand([x.shape[0]] + [1] * (x.ndim - 1), dtype=x.dtype))
        return x * (keep / keep_prob)


class HeadMixing(nn.Linear):
    """A Linear layer over the head axis: [B, H, N, M] -> [B, H, N, M] (paper section 2, talking heads).

    Written as one product of the [H, H] weight with [B, H, N*M]: no transpose of the attention matrix, and
    `transpose_x` instead of a transposed view of the weight, whose gradient DataParallel would not synchronise.
    """

    def forward(self, x, without_bias=False):
        heads, rows, columns = x.shape[1:]  # the batch is -1: a program would compute it before each reshape
        mixed = paddle.matmul(self.weight, x.reshape([-1, heads, rows * columns]), transpose_x=True)
        return (mixed if without_bias else mixed + self.bias.unsqueeze(-1)).reshape([-1, heads, rows, columns])


class TalkingHeadsAttention(nn.Layer):
    """Self-attention among the patches, with the heads mixed before and after the softmax.

    [B, N, D] -> [B, N, D]. With a dict as `maps`, the softmax (its rows sum to one) is stored there as
    `"softmax"` and what follows `proj_w` as `"mixed"`, both [B, H, N, N].
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, attention_dropout: float, dropout: float):
        super().__init__()
        self.query_chunk = None  # see `CaiT.save_memory`
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3, bias_attr=None if qkv_bias else False)
        self.proj = nn.Linear(dim, dim)
        self.proj_l = HeadMixing(num_heads, num_heads)
        self.proj_w = HeadMixing(num_heads, num_heads)
        self.attn_drop = nn.Dropout(attention_dropout)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x, maps=None):
        tokens, dim = x.shape[1:]
        # Output rows of qkv: q | k | v, then head, then channel.
        qkv = self.qkv(x).reshape([-1, tokens, 3, self.num_heads, dim // self.num_heads])
        q, k, v = qkv.transpose([2, 0, 3, 1, 4]).unbind(0)
        if self.training and self.query_chunk:
            parts = (q[:, :, start : start + self.query_chunk] for start in range(0, tokens, self.query_chunk))
            run = recomputed if not q.stop_gradient else lambda attend, *arguments: attend(*arguments)
            out = paddle.concat([run(self._attend, part, k, v) for part in parts], axis=2)
        else:
            out = self._attend(q, k, v, maps)
        return self.proj_drop(self.proj(out.transpose([0, 2, 1, 3]).reshape([-1, tokens, dim])))

    def _attend(self, q, k, v, maps=None):
        """Queries [B, H, n, d], keys and values [B, H, N, d] -> [B, H, n, d]; the rows do not see each other.

        Where the matrix is not dropped or exported (oneDNN adds biases for nothing), the biases stay out of it: the
        softmax takes out what a row has in common, and what is added to a row of `mixed` counts as sums of v.
        """
        apart = not (self.training and self.attn_drop.p) and paddle.in_dynamic_mode()
        with full_precision():
            logits = paddle.matmul(float32(q * self.scale), float32(k), transpose_y=True)
            softmax = F.softmax(self.proj_l(logits, apart), axis=-1)
            mixed = self.proj_w(softmax, apart)
            if apart:  # the gradient of the first bias is zero, not missing
                bias = (self.proj_w.bias + 0.0 * self.proj_l.bias).reshape([-1, 1, 1])
                rest = bias * float32(v).sum(axis=2, keepdim=True)
        if maps is not None:
            maps.update(softmax=softmax, mixed=mixed + bias if apart else mixed)
        out = paddle.matmul(like(self.attn_drop(mixed), v), v)
        return out + like(rest, out) if apart else out


class ClassAttention(nn.Layer):
    """Attention of the class token alone to itself and all patches (paper section 3).

    [B, 1 + N, D], class token first -> [B, 1, D]. With a dict as `maps`, the softmax [B, H, 1, 1 + N] is
    stored there as `"softmax"`.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        bias = None if qkv_bias else False
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias_attr=bias) for _ in range(3))
        self.proj = nn.Linear(dim, dim)

    def _split_heads(self, x):
        tokens, dim = x.shape[1:]
        return x.reshape([-1, tokens, self.num_heads, dim // self.num_heads]).transpose([0, 2, 1, 3])

    def forward(self, x, maps=None):
        q = self._split_heads(self.q(x[:, :1])) * self.scale
        k, v = self._split_heads(self.k(x)), self._split_heads(self.v(x))
        with full_precision():
            softmax = F.softmax(paddle.matmul(float32(q), float32(k), transpose_y=True), axis=-1)
        if maps is not None:
            maps["softmax"] = softmax
        out = paddle.matmul(like(softmax, v), v).transpose([0, 2, 1, 3])
        return self.proj(out.reshape([-1, 1, x.shape[2]]))


class MLP(nn.Layer):
    """Two Linear layers with GELU between them. [B, N, D] -> [B, N, D]."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class SelfAttentionBlock(nn.Layer):
    """Pre-norm block whose two branches are scaled per channel: LayerScale (paper section 2). [B, N, D] -> same."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        dropout: float,
        attention_dropout: float,
        drop_path: float,
        init_values: float,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, epsilon=LAYER_NORM_EPSILON)
        self.attn = TalkingHeadsAttention(dim, num_heads, qkv_bias, attention_dropout, dropout)
        self.norm2 = nn.LayerNorm(dim, epsilon=LAYER_NORM_EPSILON)
        self.mlp = MLP(dim, int(dim * mlp_ratio), dropout)
        self.gamma_1 = _parameter(self, [dim], nn.initializer.Constant(init_values))
        self.gamma_2 = _parameter(self, [dim], nn.initializer.Constant(init_values))
        self.drop_path = DropPath(drop_path)

    def forward(self, x, maps=None):
        x = add_branch(x, self.gamma_1, self.attn(self.norm1(x), maps), self.drop_path)
        return add_branch(x, self.gamma_2, self.mlp(self.norm2(x)), self.drop_path)


class ClassAttentionBlock(nn.Layer):
    """LayerScale block that updates the class token only: ([B, 1, D], [B, N, D]) -> [B, 1, D].

    As in the reference, no dropout and no drop path here.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, qkv_bias: bool, init_values: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, epsilon=LAYER_NORM_EPSILON)
        self.attn = ClassAttention(dim, num_heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, epsilon=LAYER_NORM_EPSILON)
        self.mlp = MLP(dim, int(dim * mlp_ratio), dropout=0.0)
        self.gamma_1 = _parameter(self, [dim], nn.initializer.Constant(init_values))
        self.gamma_2 = _parameter(self, [dim], nn.initializer.Constant(init_values))

    def forward(self, cls_token, patches, maps=None):
        tokens = paddle.concat([cls_token, patches], axis=1)
        cls_token = add_branch(cls_token, self.gamma_1, self.attn(self.norm1(tokens), maps))
        return add_branch(cls_token, self.gamma_2, self.mlp(self.norm2(cls_token)))


class PatchEmbed(nn.Layer):
    """Cuts the image into patches and projects each: [B, C, height, width] -> [B, N, D], row by row."""

    def __init__(self, patch_size: int, in_channels: int, embed_dim: int):
        super().__init__()
        self.proj = nn.Conv2D(in_channels, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images):
        return self.proj(images).flatten(2).transpose([0, 2, 1])


class CaiT(nn.Layer):
    """The whole network: normalised images [B, C, height, width] -> logits [B, num_classes].

    Args:
        image_size: side of a square image, or (height, width), in pixels; multiples of `patch_size`.
        patch_size: side of a patch in pixels.
        in_channels: C.
        num_classes: width of the head.
        embed_dim: D, a multiple of `num_heads`.
        depth: number of self-attention blocks.
        depth_token_only: number of class-attention blocks after them.
        num_heads: H, the same in both kinds of block.
        mlp_ratio: hidden width of the MLPs over D in the self-attention blocks.
        mlp_ratio_token_only: the same in the class-attention blocks.
        qkv_bias: whether query, key and value have a bias.
        dropout: after the position embedding, and in the self-attention blocks after `proj` and in the MLP.
        attention_dropout: on the attention matrix of the self-attention blocks.
        drop_path: stochastic depth of every self-attention block; the same at every depth, as in the paper.
        init_values: initial LayerScale diagonal (`gamma_1`, `gamma_2`).

    Raises:
        ValueError: sizes that do not divide each other.
    """

    def __init__(  # noqa: PLR0913  (the sizes of a CaiT, by the names that timm has for them)
        self,
        image_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 192,
        depth: int = 24,
        depth_token_only: int = 2,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        mlp_ratio_token_only: float = 4.0,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        init_values: float = 1e-5,
    ):
        super().__init__()
        self.recompute = False  # see `save_memory`
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if height % patch_size or width % patch_size:
            raise ValueError(f"image size {height}x{width} is not a multiple of the patch size {patch_size}")
        if embed_dim % num_heads:
            raise ValueError(f"embedding width {embed_dim} is not a multiple of the number of heads {num_heads}")
        self.image_size = (height, width)
        self.grid_size = (height // patch_size, width // patch_size)
        # Mean and standard deviation by channel of what its images are normalised with, where known.
        self.pixel_stats: tuple[list[float], list[float]] | None = None

        self.patch_embed = PatchEmbed(patch_size, in_channels, embed_dim)
        self.cls_token = _parameter(self, [1, 1, embed_dim], _normal())
        self.pos_embed = _parameter(self, [1, self.grid_size[0] * self.grid_size[1], embed_dim], _normal())
        self.pos_drop = nn.Dropout(dropout)
        self.blocks = nn.LayerList(
            SelfAttentionBlock(
                embed_dim, num_heads, mlp_ratio, qkv_bias, dropout, attention_dropout, drop_path, init_values
            )
            for _ in range(depth)
        )
        self.blocks_token_only = nn.LayerList(
            ClassAttentionBlock(embed_dim, num_heads, mlp_ratio_token_only, qkv_bias, init_values)
            for _ in range(depth_token_only)
        )
        self.norm = nn.LayerNorm(embed_dim, epsilon=LAYER_NORM_EPSILON)
        self.head = nn.Linear(embed_dim, num_classes)
        self._init_weights(patch_size * patch_size * in_channels)

    def _init_weights(self, patch_fan_in: int) -> None:
        """Linear weights normal 0.02, their biases 0 (Paddle's default); the patch projection as torch's Conv2d."""
        for layer in self.sublayers():
            if isinstance(layer, nn.Linear):
                _normal()(layer.weight)
        bound = patch_fan_in**-0.5
        for parameter in self.patch_embed.proj.parameters():
            nn.initializer.Uniform(-bound, bound)(parameter)

    def save_memory(self, recompute: bool = False, query_chunk: int | None = None) -> None:
        """Trades time for memory in training; gradients stay the same, but for the order of sums.

        `recompute` keeps only the input of each self-attention block and runs it again in the backward pass;
        `query_chunk` lets self-attention work on so many queries at a time and keeps nothing of its matrix.
        """
        self.recompute = recompute
        for block in self.blocks:
            block.attn.query_chunk = query_chunk

    def _encode(self, images, maps):
        """Class token [B, 1, D] and patches [B, N, D] before the last norm."""
        if tuple(images.shape[-2:]) != self.image_size and min(images.shape[-2:]) > 0:  # -1: a dynamic export
            raise ValueError(f"images of {images.shape[-2:]} pixels given to a model of {list(self.image_size)}")
        patches = self.patch_embed(images)
        with full_precision():
            x = self.pos_drop(float32(patches) + self.pos_embed)
            cls_token = self.cls_token.expand([x.shape[0], 1, x.shape[2]])
        for index, block in enumerate(self.blocks):
            saves = self.recompute and self.training and not x.stop_gradient  # not below frozen blocks
            x = recomputed(block, x) if saves else block(x, maps.get(f"blocks.{index}"))
        for index, block in enumerate(self.blocks_token_only):
            cls_token = block(cls_token, x, maps.get(f"blocks_token_only.{index}"))
        return cls_token, x

    def forward_features(self, images):
        """Normalised tokens [B, 1 + N, D], class token first; `[:, 0]` is what the head sees."""
        return self.norm(paddle.concat(self._encode(images, {}), axis=1))

    def forward(self, images):
        return self.head(self.norm(self._encode(images, {})[0])[:, 0])

    def forward_with_attention(self, images, block_names):
        """Logits [B, num_classes] of images [B, C, height, width], and {name: maps} of the named blocks.

        Names are such as `"blocks.0"` and `"blocks_token_only.1"`; the blocks' attention tells what the maps are.

        Raises:
            ValueError: a block that is not there.
        """
        blocks = (SelfAttentionBlock, ClassAttentionBlock)
        known = [name for name, layer in self.named_sublayers() if isinstance(layer, blocks)]
        for name in set(block_names) - set(known):
            raise ValueError(f"no block named {name!r}: the names run from {known[0]} to {known[-1]}")
        maps = {name: {} for name in block_names}
        cls_token, _ = self._encode(images, maps)
        return self.head(self.norm(cls_token)[:, 0]), maps


def _normal():
    # The reference's trunc_normal_(std=0.02) cuts a hundred standard deviations out: a plain normal. Paddle's
    # TruncatedNormal cuts at two of them before 3.0 and would shrink the spread.
    return nn.initializer.Normal(0.0, 0.02)


def _parameter(layer: nn.Layer, shape: list[int], initializer):
    return layer.create_parameter(shape, default_initializer=initializer)
