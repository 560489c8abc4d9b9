"""Between the checkpoints of the official code and timm (PyTorch) and those of Paddle.

Names are the same on both sides. `tensor_shapes` is the one map: every name with its PyTorch shape. Exactly the 2-D
tensors, the weights of Linear layers, are transposed.
"""

import re

import numpy as np

from cait.errors import CaitError

MISMATCHES_SHOWN = 3


def tensor_shapes(  # noqa: PLR0913  (the sizes of a CaiT)
    num_patches: int,
    patch_size: int,
    in_channels: int,
    num_classes: int,
    embed_dim: int,
    depth: int,
    depth_token_only: int,
    num_heads: int,
    mlp_dim: int,
    mlp_dim_token_only: int,
    qkv_bias: bool,
) -> dict[str, tuple[int, ...]]:
    """Name and PyTorch shape (Linear weights `[out, in]`) of every tensor of a CaiT: 18 * (blocks) + 8 of them."""
    dim = embed_dim
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, dim), "pos_embed": (1, num_patches, dim)}

    def linear(name, rows, columns, bias=True):
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)

    def norm(name):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (dim,)

    def block(name, attention, hidden):
        norm(f"{name}.norm1")
        for part, rows, columns, bias in (*attention, ("proj", dim, dim, True)):
            linear(f"{name}.attn.{part}", rows, columns, bias)
        norm(f"{name}.norm2")
        linear(f"{name}.mlp.fc1", hidden, dim)
        linear(f"{name}.mlp.fc2", dim, hidden)
        shapes[f"{name}.gamma_1"] = shapes[f"{name}.gamma_2"] = (dim,)

    shapes["patch_embed.proj.weight"] = (dim, in_channels, patch_size, patch_size)
    shapes["patch_embed.proj.bias"] = (dim,)
    mixing = [(name, num_heads, num_heads, True) for name in ("proj_l", "proj_w")]
    for index in range(depth):
        block(f"blocks.{index}", [("qkv", 3 * dim, dim, qkv_bias), *mixing], mlp_dim)
    for index in range(depth_token_only):
        block(f"blocks_token_only.{index}", [(part, dim, dim, qkv_bias) for part in "qkv"], mlp_dim_token_only)
    norm("norm")
    linear("head", num_classes, dim)
    return shapes


def infer_arguments(shapes: dict[str, tuple[int, ...]]) -> dict:
    """The arguments of `tensor_shapes` that fit a checkpoint, read off some of its shapes.

    Raises:
        CaitError: a tensor that every CaiT has is missing.
    """

    def count(prefix):
        numbers = [name.split(".")[1] for name in shapes if name.startswith(prefix)]
        return max((int(number) for number in numbers if re.fullmatch("[0-9]{1,4}", number)), default=-1) + 1

    if len(shapes) > 18 * 1000:  # before a name makes us believe in millions of blocks
        raise CaitError("no checkpoint of a CaiT: it holds too many tensors")
    try:
        return {
            "num_patches": shapes["pos_embed"][1],
            "patch_size": shapes["patch_embed.proj.weight"][2],
            "in_channels": shapes["patch_embed.proj.weight"][1],
            "num_classes": shapes["head.weight"][0],
            "embed_dim": shapes["cls_token"][-1],
            "depth": count("blocks."),
            "depth_token_only": count("blocks_token_only."),
            "num_heads": shapes["blocks.0.attn.proj_l.weight"][0],
            "mlp_dim": shapes["blocks.0.mlp.fc1.weight"][0],
            "mlp_dim_token_only": shapes["blocks_token_only.0.mlp.fc1.weight"][0],
            "qkv_bias": "blocks.0.attn.qkv.bias" in shapes,
        }
    except (KeyError, IndexError) as error:
        raise CaitError(f"no checkpoint of a CaiT: {error.args[0]} is missing or of another form") from error


def check_shapes(found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]], source: str) -> None:
    """Demands the same names with the same shapes.

    Raises:
        CaitError: names the first tensors that are missing, extra or of another shape.
    """
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not part of the model" for name in found if name not in expected]
    for name, shape in expected.items():
        if name in found and tuple(found[name]) != tuple(shape):
            problems.append(f"{name} has shape {list(found[name])}, the model {list(shape)}")
    if problems:
        more = len(problems) - MISMATCHES_SHOWN
        shown = "; ".join(problems[:MISMATCHES_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise CaitError(f"{source}: weights of another model: {shown}")


def check_tensors(tensors: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]] | None, source: str) -> None:
    """`check_shapes` of tensors in PyTorch's layout against `expected`; None: against any CaiT."""
    shapes = {name: value.shape for name, value in tensors.items()}
    if expected is None:
        try:
            expected = tensor_shapes(**infer_arguments(shapes))
        except CaitError as error:
            raise CaitError(f"{source}: {error}") from error
    check_shapes(shapes, expected, source)


def swap_layout(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Changes PyTorch's layout to Paddle's or back: 2-D tensors are transposed, as views."""
    return {name: value.T if value.ndim == 2 else value for name, value in tensors.items()}


def transpose_linear(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`swap_layout` into contiguous arrays; floats become float32."""
    return {name: np.ascontiguousarray(value, dtype="float32") for name, value in swap_layout(tensors).items()}
