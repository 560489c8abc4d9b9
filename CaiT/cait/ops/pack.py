"""The weights of a model's self-attention blocks, in the form that the fused operator reads (see `blocks.h`).

What can be is worked into the matrices, by exact algebra: the scale of the queries, the weights and biases of the layer
norms, and LayerScale. `proj_l.bias` is dropped: it adds the same to a whole row before the softmax.
"""

import numpy as np

PANEL = 16  # columns


def pack_blocks(blocks, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and panels of a list of `SelfAttentionBlock`.

    Args:
        blocks: of one shape.
        precision: "fp32" or "bf16", of the panels.

    Returns:
        float32 [depth, vectors]; float32, or for bf16 int16 bit patterns, [depth, panels].
    """
    return _stack([_pack_block(block) for block in blocks], precision)


def pack_class_blocks(blocks, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """The same of a list of `ClassAttentionBlock`."""
    return _stack([_pack_class_block(block) for block in blocks], precision)


def pack_patches(projection, positions: np.ndarray, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions and panels of the patch embedding.

    Args:
        projection: Conv2D, whose kernel is its stride.
        positions: [N, D], the position embedding.
        precision: as above.

    Returns:
        float32 [N, D], with the bias of the projection; panels of the weight, flat.
    """
    weight = _array(projection.weight)
    rows = weight.reshape(len(weight), -1).T
    positions = (positions.astype("float64") + _array(projection.bias)).astype("float32")
    return positions, _encode(_pad(rows, _padded(len(rows)), _padded(len(weight))), precision)


def _stack(packed: list[tuple[np.ndarray, list[np.ndarray]]], precision: str) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.stack([vector for vector, _ in packed]).astype("float32")
    panels = [np.concatenate([_encode(matrix, precision) for matrix in matrices]) for _, matrices in packed]
    return vectors, np.stack(panels)


def _pack_block(block) -> tuple[np.ndarray, list[np.ndarray]]:
    """One block's vectors, float64, and its four matrices [rows, columns], float64, both padded."""
    attn, dim = block.attn, len(block.gamma_1)
    qkv, qkv_bias = _after_norm(block.norm1, attn.qkv)
    scale = np.repeat([attn.scale, 1.0, 1.0], dim)
    qkv, qkv_bias = _pad_heads(qkv * scale, dim // attn.num_heads), _pad_heads(qkv_bias * scale, dim // attn.num_heads)
    biases, matrices = _after_attention(block)
    mixing = [_array(attn.proj_l.weight).ravel(), _array(attn.proj_w.weight).ravel(), _array(attn.proj_w.bias)]
    return np.concatenate([qkv_bias, *biases, *mixing]), [_pad(qkv, _padded(dim), qkv.shape[1]), *matrices]


def _pack_class_block(block) -> tuple[np.ndarray, list[np.ndarray]]:
    """The same of a class-attention block; its keys are transposed, head by head (see `class_attention.h`)."""
    attn, dim = block.attn, len(block.gamma_1)
    head_dim = dim // attn.num_heads
    head_width = _padded(head_dim)
    (q, q_bias), (k, _), (v, v_bias) = (_after_norm(block.norm1, linear) for linear in (attn.q, attn.k, attn.v))
    q, k, v = (
        _pad(_pad_heads(matrix, head_dim), _padded(dim), attn.num_heads * head_width)
        for matrix in (q * attn.scale, k, v)
    )
    keys = [k[:, start : start + head_width].T for start in range(0, k.shape[1], head_width)]
    biases, matrices = _after_attention(block)
    vectors = [_pad_heads(q_bias * attn.scale, head_dim), _pad_heads(v_bias, head_dim), *biases]
    return np.concatenate(vectors), [q, *keys, v, *matrices]


def _after_attention(block) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Biases and matrices of proj, fc1 and fc2, with LayerScale worked in, of either kind of block."""
    dim, hidden = block.mlp.fc1.weight.shape
    head_dim, width, hidden_width = dim // block.attn.num_heads, _padded(dim), _padded(hidden)
    gamma_1, gamma_2 = _array(block.gamma_1), _array(block.gamma_2)
    proj = _pad_heads(_array(block.attn.proj.weight).T, head_dim).T * gamma_1
    fc1, fc1_bias = _after_norm(block.norm2, block.mlp.fc1)
    fc2, fc2_bias = _array(block.mlp.fc2.weight) * gamma_2, _array(block.mlp.fc2.bias) * gamma_2
    biases = [_pad(_array(block.attn.proj.bias) * gamma_1, width), _pad(fc1_bias, hidden_width), _pad(fc2_bias, width)]
    matrices = [_pad(proj, len(proj), width), _pad(fc1, width, hidden_width), _pad(fc2, hidden_width, width)]
    return biases, matrices


def _array(parameter) -> np.ndarray:
    return parameter.numpy().astype("float64")


def _after_norm(norm, linear) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a Linear layer that has taken in the weight and bias of the layer norm before it."""
    weight = _array(linear.weight)
    bias = _array(norm.bias) @ weight
    if linear.bias is not None:
        bias += _array(linear.bias)
    return _array(norm.weight)[:, None] * weight, bias


def _padded(size: int) -> int:
    return -(-size // PANEL) * PANEL


def _pad(array: np.ndarray, *sizes: int) -> np.ndarray:
    return np.pad(array, [(0, size - old) for size, old in zip(sizes, array.shape)])


def _pad_heads(array: np.ndarray, head_dim: int) -> np.ndarray:
    """[..., heads * head_dim] -> [..., heads * padded head_dim]."""
    heads = array.reshape(*array.shape[:-1], -1, head_dim)
    padding = [(0, 0)] * array.ndim + [(0, _padded(head_dim) - head_dim)]
    return np.pad(heads, padding).reshape(*array.shape[:-1], -1)


def _encode(matrix: np.ndarray, precision: str) -> np.ndarray:
    """[rows, columns] as panels, flat.

    fp32: [columns / 16][rows][16]. bf16: [columns / 16][rows / 2][16][2], the bits of rounded values as int16.
    """
    values = matrix.astype("float32")
    if precision == "fp32":
        return values.reshape(len(values), -1, PANEL).transpose(1, 0, 2).ravel()
    bits = values.view("uint32")
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("uint16").view("int16")
    return rounded.reshape(len(values) // 2, 2, -1, PANEL).transpose(2, 0, 3, 1).ravel()
