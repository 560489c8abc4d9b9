"""Attention as numbers: from what a model or a bundle gives to maps over the image. NumPy alone.

Shapes: blocks are class-attention blocks, H heads, N = rows * columns patches of the grid, row by row.
"""

from collections.abc import Sequence

import numpy as np

from cait.errors import CaitError

RESIDUAL = 0.5  # share of a token that passes a block unchanged, in rollout


def patch_maps(attention: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Places the class token's attention to each patch on the grid: [..., 1 + N] -> [..., rows, columns].

    The values stay as they are; with the class token's share, `attention[..., 0]`, they sum to one. The mean over the
    heads of a bundle's `class_attention` [B, blocks, H, 1 + N] is `patch_maps(attention, grid).mean(axis=2)`.

    Args:
        attention: rows of class attention, the class token first.
        grid: (rows, columns) of patches: image size over patch size.

    Raises:
        CaitError: the attention is not that of such a grid, or not finite.
    """
    attention = np.asarray(attention)
    rows, columns = grid
    if attention.ndim < 1 or attention.shape[-1] != 1 + rows * columns:
        raise CaitError(
            f"attention of shape {list(attention.shape)} does not end in 1 + {rows} x {columns}, the class token "
            "and the patches of the grid"
        )
    if not np.isfinite(attention).all():
        raise CaitError("the attention holds values that are not finite")
    return attention[..., 1:].reshape(*attention.shape[:-1], rows, columns)


def flow(attention: np.ndarray) -> np.ndarray:
    """One matrix of how tokens read from each other: [H, N, M] -> [N, M], whose rows sum to one.

    The absolute values are averaged over the heads and every row is divided by its sum. For plain softmax this is the
    mean of the heads. What follows talking-heads mixing may be negative, as a head may subtract what another one reads;
    that is information that flows as well.
    """
    mean = np.abs(np.asarray(attention, "float64")).mean(axis=0)
    return mean / np.maximum(mean.sum(axis=-1, keepdims=True), np.finfo("float64").tiny)


def add_block(rollout: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Attention rollout through one more block: [N, N], [H, N, N] -> [N, N] (Abnar & Zuidema 2020, section 3).

    The block passes half of each token by its residual connection and takes the other half as `flow` says:
    (0.5 I + 0.5 A) R. Rows sum to one as long as those of `rollout` do.

    With talking heads, `attention` is to be what follows `proj_w`, for that is what the values are multiplied by.
    LayerScale and the MLPs are left out, as rollout leaves out all that is no attention.
    """
    return RESIDUAL * rollout + (1.0 - RESIDUAL) * (flow(attention) @ rollout)


def class_rollout(rollout: np.ndarray, class_attention: np.ndarray) -> np.ndarray:
    """Rollout of the class token through the class-attention blocks: [N, N], [blocks, H, 1 + N] -> [1 + N].

    These blocks change the class token alone, so the patches stay what `rollout` made of them. The first value is
    what is left of the learned class token itself; all sum to one.
    """
    row = np.zeros(class_attention.shape[-1])
    row[0] = 1.0  # of the tokens that enter the first of these blocks: class token, patches
    for attention in class_attention:
        read = flow(attention[:, None])[0]
        taken = (1.0 - RESIDUAL) * read
        taken[0] += RESIDUAL
        row = np.concatenate([row[:1] * taken[0], row[1:] * taken[0] + taken[1:]])
    return np.concatenate([row[:1], row[1:] @ rollout])


def relative(maps: np.ndarray) -> np.ndarray:
    """Each map [..., rows, columns] over its largest absolute value, as colours need it; a map of zeros stays."""
    maps = np.asarray(maps, "float64")
    largest = np.abs(maps).max(axis=(-2, -1), keepdims=True)
    return maps / np.where(largest > 0, largest, 1.0)


def enlarge(maps: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Gives every pixel the value of its patch: [..., rows, columns] -> [..., height, width]; nothing is smoothed."""
    places = [(np.arange(pixels) * count) // pixels for pixels, count in zip(size, maps.shape[-2:])]
    return maps[..., places[0][:, None], places[1][None, :]]


def overlay(
    image: np.ndarray, patch_map: np.ndarray, colours: np.ndarray, lowest: float = 0.0, opacity: float = 0.7
) -> np.ndarray:
    """A map laid over its image in grey: uint8 [height, width, 3].

    Args:
        image: uint8 [height, width, 1 or 3].
        patch_map: [rows, columns] of values from `lowest` to 1; what lies outside gets the colour of the end.
        colours: uint8 [256, 3], from the lowest value to the highest.
        lowest: value of the first colour; -1 for colours that diverge from their middle.
        opacity: of the map, in 0-1.
    """
    place = (np.clip(patch_map, lowest, 1.0) - lowest) / (1.0 - lowest)
    coloured = colours[np.round(place * (len(colours) - 1)).astype("int64")]
    height, width = image.shape[:2]
    heat = np.moveaxis(enlarge(np.moveaxis(coloured, -1, 0), (height, width)), 0, -1)
    grey = image.astype("float64").mean(axis=-1, keepdims=True)
    return np.round((1.0 - opacity) * grey + opacity * heat).astype("uint8")
