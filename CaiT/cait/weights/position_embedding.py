"""Resizes the position embedding of one patch grid for another."""

import math
import os

import numpy as np

from cait.errors import CaitError

Grid = tuple[int, int]
PUBLISHED = (14 * 14, 24 * 24, 28 * 28)  # patches of the published checkpoints


def fit_grid(
    pos_embed: np.ndarray, grid: Grid, recorded: Grid | None, source: str | os.PathLike
) -> tuple[np.ndarray, list[str]]:
    """A position embedding for a grid, resized where it is that of another.

    Where nothing records its grid, a number of patches that is as large as the model's is taken for the model's grid,
    and another one that is a square for a square. That is certain of the sizes of published checkpoints, which are all
    square, in a model that is square too; elsewhere it is a guess, and that is said.

    Args:
        pos_embed: [1, N, D].
        grid: rows and columns of the model's patches.
        recorded: those of the embedding, whose product is N; None: not known.
        source: the file, for messages.

    Returns:
        The embedding [1, rows * columns, D], and lines on what was done.

    Raises:
        CaitError: the embedding has to be resized, and nothing tells its grid.
    """
    count, side = pos_embed.shape[1], math.isqrt(pos_embed.shape[1])
    is_guess = recorded is None and (grid[0] != grid[1] or count not in PUBLISHED)
    if recorded is None:
        if count == grid[0] * grid[1]:
            words = f", as many as a {side}x{side} one has" if side**2 == count and grid != (side, side) else ""
            note = f"warning: position embedding taken as {_text(grid)} patches, which the file does not record{words}"
            return pos_embed, [note] if is_guess else []
        if side**2 != count:
            raise CaitError(
                f"{source}: its position embedding is for {count} patches, the model's for {_text(grid)}; it cannot be "
                "resized, since the file does not record its own rows and columns"
            )
        recorded = (side, side)
    if recorded == tuple(grid):
        return pos_embed, []
    note = f"position embedding resized from {_text(recorded)} to {_text(grid)} patches"
    guess = "; that it was square is a guess, for the file does not record it"
    return resize_pos_embed(pos_embed, grid, recorded), [f"warning: {note}{guess}" if is_guess else note]


def _text(grid: Grid) -> str:
    return f"{grid[0]}x{grid[1]}"


def resize_pos_embed(pos_embed: np.ndarray, grid: Grid, old: Grid) -> np.ndarray:
    """A position embedding [1, N, D] of `old` = (rows, columns) patches resized to `grid`: [1, rows * columns, D].

    Bicubic, as DeiT's fine-tuning does it (`torch.nn.functional.interpolate`, align_corners=False, no antialiasing).
    Paddle's own `interpolate` rounds the scale to float32 and is off by 3e-6 from 14 to 24.
    """
    image = np.asarray(pos_embed, "float64").reshape(*old, -1)
    rows, columns = (_bicubic_matrix(size, new_size) for size, new_size in zip(old, grid))
    resized = np.einsum("hy,wx,yxd->hwd", rows, columns, image)
    return resized.reshape(1, grid[0] * grid[1], -1).astype(pos_embed.dtype)


def _bicubic_matrix(size: int, new_size: int) -> np.ndarray:
    """[new_size, size] weights of Keys' cubic kernel with a = -0.75; beyond the border the last pixel repeats."""
    matrix = np.zeros((new_size, size))
    for row in range(new_size):
        centre = (row + 0.5) * size / new_size - 0.5
        for pixel in range(math.floor(centre) - 1, math.floor(centre) + 3):
            t = abs(centre - pixel)
            weight = 1.25 * t**3 - 2.25 * t**2 + 1 if t <= 1 else -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
            matrix[row, min(max(pixel, 0), size - 1)] += weight
    return matrix
