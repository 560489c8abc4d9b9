"""The pictures of attention: numbers in, PNG files out."""

import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cait.records.figure import picture, plain
from cait.visualize.maps import overlay, relative

HEADS_A_ROW = 8
BLOCKS_A_ROW = 12
PANELS_A_ROW = 12  # of a contact sheet
DPI = 160  # of pictures with images
PANEL = 1.25  # inches, of the longer side
GAP = 0.2  # between the images of a contact sheet, as a share of a panel
BESIDE = 0.8  # inches for the words left of the panels
NAME, WORDS = 20, 15  # characters beside and below a panel
BELOW = {"loc": "outside lower center", "fontsize": 8}
MARK = "#00d0ff"
TITLES = {
    "class_attention": "Class attention, mean of the heads",
    "rollout": "Attention rollout of the class token",
}


class View(NamedTuple):
    """An image as a model sees it, and what the model says; the words are short enough for a panel.

    Attributes:
        name: of the model.
        pixels: uint8 [height, width, 1 or 3].
        words: the likeliest class and its probability.
    """

    name: str
    pixels: np.ndarray
    words: str


def view(name: str, pixels: np.ndarray, class_name: str, probability: float) -> View:
    """A view, of whose names so much is kept as tells them apart: the end of the model's, the start of the class's."""
    first = class_name.split(",")[0]  # of the synonyms that ImageNet's classes have
    shown = first if len(first) <= WORDS else f"{first[: WORDS - 1]}…"
    return View(name if len(name) <= NAME else f"…{name[1 - NAME :]}", pixels, f"{shown} {probability:.2f}")


def _colours(name: str) -> np.ndarray:
    """uint8 [256, 3]."""
    import matplotlib

    return (matplotlib.colormaps[name](np.arange(256))[:, :3] * 255).round().astype("uint8")


def _panels(figure, rows: int, columns: int, **options) -> np.ndarray:
    """Empty axes [rows, columns] without ticks; the options are those of `Figure.subplots`."""
    panels = figure.subplots(rows, columns, squeeze=False, **options)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.set_frame_on(False)
    return panels


def _panel_size(views: Sequence[View]) -> tuple[float, float]:
    """Width and height of a panel in inches."""
    height, width = views[0].pixels.shape[:2]
    return PANEL * min(1.0, width / height), PANEL * min(1.0, height / width)


def _show_image(axes, view: View) -> None:
    pixels = view.pixels if view.pixels.shape[-1] == 3 else view.pixels[..., 0]
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)


def _show_map(axes, view: View, patch_map: np.ndarray, signed: bool = False) -> None:
    """A map over the image, its colours up to its own largest value, which stands below; signed: from blue to red."""
    colours = _colours("RdBu_r" if signed else "inferno")
    axes.imshow(overlay(view.pixels, relative(patch_map), colours, -1.0 if signed else 0.0))
    axes.set_xlabel(f"{'±' if signed else 'max '}{np.abs(patch_map).max():.2g}", fontsize=7, labelpad=2)


def _mark(axes, view: View, grid: tuple[int, int], patch: int) -> None:
    """A frame around a patch."""
    from matplotlib.patches import Rectangle

    height, width = (pixels / count for pixels, count in zip(view.pixels.shape, grid))
    row, column = divmod(patch, grid[1])
    corner = (column * width - 0.5, row * height - 0.5)
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=MARK, linewidth=1.5, clip_on=False))


def _say(axes, words: str) -> None:
    axes.set_ylabel(plain(words), fontsize=8)


def draw_class_attention(path: os.PathLike, title: str, views: Sequence[View], maps: Sequence[np.ndarray]) -> None:
    """Class attention of every layer, mean and by head, one model below the other.

    Args:
        path: of the PNG file.
        title: above all.
        views: one for each model.
        maps: of each model [layers, H, rows, columns].
    """
    heads = min(HEADS_A_ROW, max(each.shape[1] for each in maps))
    lines = [math.ceil(each.shape[1] / heads) for each in maps]  # of panels that a layer takes
    rows = sum(count * len(each) for count, each in zip(lines, maps))
    width, height = _panel_size(views)
    with picture(path, BESIDE + (2 + heads) * (width + 0.1), 0.6 + rows * (height + 0.3), dpi=DPI) as figure:
        panels = _panels(figure, rows, 2 + heads)
        for axes, name in zip(panels[0], ("input", "mean", *[f"head {head + 1}" for head in range(heads)])):
            axes.set_title(name, fontsize=9)
        row = 0
        for view, of_model, count in zip(views, maps, lines):
            _show_image(panels[row, 0], view)
            panels[row, 0].set_xlabel(plain(view.words), fontsize=8)
            _say(panels[row, 0], view.name if len(views) > 1 else "")
            for layer, of_heads in enumerate(of_model):
                _say(panels[row, 1], f"layer {layer + 1}")
                _show_map(panels[row, 1], view, of_heads.mean(axis=0))
                for head, patch_map in enumerate(of_heads):
                    axes = panels[row + head // heads, 2 + head % heads]
                    _show_map(axes, view, patch_map)
                    if head >= heads:
                        axes.set_title(f"head {head + 1}", fontsize=7)
                row += count
        figure.suptitle(plain(title), fontsize=10)


class Rollout(NamedTuple):
    """Of one image and model: the patch that asks, (after so many blocks, map) of it, and the class token's map."""

    patch: int
    by_depth: list[tuple[int, np.ndarray]]
    of_class: np.ndarray


def draw_rollout(path: os.PathLike, title: str, views: Sequence[View], rollouts: Sequence[Rollout]) -> None:
    """Rollout of one patch through the self-attention blocks, and of the class token through all blocks, by model.

    What the patch keeps of itself is written below; the colours are those of the other patches.
    """
    columns = 2 + max(len(rollout.by_depth) for rollout in rollouts)
    width, height = _panel_size(views)
    with picture(path, BESIDE + columns * (width + 0.1), 0.45 + len(views) * (height + 0.45), dpi=DPI) as figure:
        panels = _panels(figure, len(views), columns)
        for line, view, rollout in zip(panels, views, rollouts):
            _show_image(line[0], view)
            _mark(line[0], view, rollout.of_class.shape, rollout.patch)
            line[0].set_xlabel(plain(view.words), fontsize=8)
            line[0].set_title("input", fontsize=9)
            _say(line[0], view.name if len(views) > 1 else "")
            for axes, (blocks, patch_map) in zip(line[1:], rollout.by_depth):
                others = patch_map.copy()
                others.flat[rollout.patch] = 0.0  # its own share would outshine them
                _show_map(axes, view, others)
                _mark(axes, view, patch_map.shape, rollout.patch)
                axes.set_xlabel(f"self {patch_map.flat[rollout.patch]:.2g}, {axes.get_xlabel()}", fontsize=7)
                axes.set_title(f"{blocks} block{'s' * (blocks > 1)}", fontsize=9)
            _show_map(line[-1], view, rollout.of_class)
            line[-1].set_title("class token", fontsize=9)
        figure.suptitle(plain(title), fontsize=10)


class Mixing(NamedTuple):
    """Of an image, a model and a block: what the heads read for one patch [H, rows, columns], the matrices [H, H]."""

    block: int  # from 1
    patch: int
    own: np.ndarray
    softmax: np.ndarray
    mixed: np.ndarray
    proj_l: np.ndarray
    proj_w: np.ndarray


def draw_talking_heads(path: os.PathLike, title: str, views: Sequence[View], mixings: Sequence[Mixing]) -> None:
    """Draws what each head of a self-attention block reads for one patch, before and after both mixings, by model.

    After `proj_w`, whose bias adds the same to every patch, the mean of the patches is taken away, so that the map
    shows which of them get more than others.
    """
    heads = max(len(mixing.own) for mixing in mixings)
    width, height = _panel_size(views)
    steps = (
        ("own", "no mixing", ""),
        ("softmax", "after proj_l", "proj_l"),
        ("mixed", "after proj_w, - mean", "proj_w"),
    )
    size = (BESIDE + (2 + heads) * (width + 0.1) + 0.6, 0.6 + 3 * len(views) * (height + 0.35))
    with picture(path, *size, dpi=DPI) as figure:
        panels = _panels(figure, 3 * len(views), 2 + heads)
        for axes, name in zip(panels[0], ("input", *[f"head {head + 1}" for head in range(heads)])):
            axes.set_title(name, fontsize=9)
        for index, (view, mixing) in enumerate(zip(views, mixings)):
            _show_image(panels[3 * index, 0], view)
            _mark(panels[3 * index, 0], view, mixing.own.shape[1:], mixing.patch)
            panels[3 * index, 0].set_xlabel(plain(view.words), fontsize=8)
            block = f"block {mixing.block}"
            _say(panels[3 * index, 0], f"{view.name}\n{block}" if len(views) > 1 else block)
            for row, (step, words, matrix) in enumerate(steps, 3 * index):
                _say(panels[row, 1], words)
                for axes, patch_map in zip(panels[row, 1:], getattr(mixing, step)):
                    signed = step == "mixed"
                    _show_map(axes, view, patch_map - patch_map.mean() if signed else patch_map, signed)
                if matrix:
                    _show_matrix(figure, panels[row, -1], getattr(mixing, matrix))
                    panels[row, -1].set_ylabel(f"{matrix}, to head", fontsize=7)
            panels[3 * index + 2, -1].set_xlabel("from head", fontsize=7)
        figure.suptitle(plain(title), fontsize=10)


def _show_matrix(figure, axes, matrix: np.ndarray, limit: float | None = None, colour_bar: bool = True) -> None:
    """Signed values [H, H], white at 0."""
    limit = limit or float(np.abs(matrix).max()) or 1.0
    shown = axes.imshow(matrix, cmap="PuOr_r", vmin=-limit, vmax=limit)
    if colour_bar:
        figure.colorbar(shown, ax=axes, shrink=0.8).ax.tick_params(labelsize=6)
    if len(matrix) <= HEADS_A_ROW:
        axes.set_xticks(range(len(matrix)), range(1, len(matrix) + 1), fontsize=6)
        axes.set_yticks(range(len(matrix)), range(1, len(matrix) + 1), fontsize=6)
        axes.tick_params(length=0, pad=1)


def draw_mixing_matrices(path: os.PathLike, names: Sequence[str], matrices: Sequence[dict[str, np.ndarray]]) -> None:
    """`proj_l` and `proj_w` of every self-attention block, by model; each of the two has one scale of colours.

    Args:
        path: of the PNG file.
        names: of the models.
        matrices: of each, "proj_l" and "proj_w" [depth, H, H].
    """
    columns = min(BLOCKS_A_ROW, max(len(each["proj_l"]) for each in matrices))
    lines = [(name, kind, each[kind]) for name, each in zip(names, matrices) for kind in ("proj_l", "proj_w")]
    counts = [math.ceil(len(stack) / columns) for _, _, stack in lines]
    with picture(path, BESIDE + columns * 1.05 + 0.8, 0.7 + sum(counts) * 1.2, dpi=DPI) as figure:
        panels = _panels(figure, sum(counts), columns)
        start = 0
        for (name, kind, stack), count in zip(lines, counts):
            limit = float(np.abs(stack).max()) or 1.0
            for block, matrix in enumerate(stack):
                axes = panels[start + block // columns, block % columns]
                _show_matrix(figure, axes, matrix, limit, colour_bar=False)
                axes.set_title(f"block {block + 1}", fontsize=7, pad=2)
            _say(panels[start, 0], f"{name}\n{kind}" if len(names) > 1 else kind)
            bar = figure.colorbar(panels[start, 0].images[0], ax=list(panels[start : start + count].flat), pad=0.01)
            bar.ax.tick_params(labelsize=7)
            start += count
        figure.suptitle("Mixing of the heads: from the head of the column to the head of the row", fontsize=10)


def draw_layer_scale(
    path: os.PathLike, scales: dict[str, dict[str, list[float]]], ratios: dict[str, dict[str, list[float]]]
) -> None:
    """LayerScale by depth, and how large the scaled branches are beside the residual stream.

    Args:
        path: of the PNG file.
        scales: by model, mean |gamma| of "gamma_1" and "gamma_2" by block.
        ratios: by model, as `WeightsSource.branch_ratios` gives them; empty without images.
    """
    charts = [("mean |gamma|", scales)] + ([("‖branch‖ / ‖residual stream‖", ratios)] if ratios else [])
    with picture(path, 5.5 * len(charts), 3.8) as figure:
        for axes, (words, values) in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts):
            for number, (name, of_model) in enumerate(values.items()):
                for key, label, line in (("gamma_1", "attention", "-"), ("gamma_2", "MLP", "--")):
                    label = f"{plain(name)}, {label}" if len(values) > 1 else label
                    color = f"C{number % 10}" if len(values) > 1 else None
                    depths = range(1, len(of_model[key]) + 1)
                    axes.plot(depths, of_model[key], line, color=color, marker=".", label=label)
            axes.set(xlabel="self-attention block", ylabel=words)
            heights = np.concatenate([line.get_ydata() for line in axes.get_lines()])
            if 0 < 10 * heights.min() < heights.max():
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3, which="both")
        figure.legend(axes.get_lines(), [line.get_label() for line in axes.get_lines()], ncols=4, **BELOW)
        figure.suptitle(plain(next(iter(scales))) if len(scales) == 1 else "", fontsize=10)


def draw_sheet(
    path: os.PathLike, title: str, cells: Sequence[tuple[Sequence[View], Sequence[list[tuple[str, np.ndarray]]]]]
) -> None:
    """A contact sheet: every image followed by its maps.

    Args:
        path: of the PNG file.
        title: above all.
        cells: of each image the views, one for each model, and of each model (what it is, map [rows, columns]).
    """
    columns = 1 + sum(len(of_model) for of_model in cells[0][1])
    groups = max(1, min(PANELS_A_ROW // columns, len(cells)))
    rows = math.ceil(len(cells) / groups)
    width, height = _panel_size(cells[0][0])
    shares = (([1.0] * columns + [GAP]) * groups)[:-1]
    with picture(path, sum(shares) * (width + 0.1), 0.7 + rows * (height + 0.3), dpi=DPI) as figure:
        panels = _panels(figure, rows, len(shares), width_ratios=shares)
        for number, (views, maps) in enumerate(cells):
            line = panels[number // groups, number % groups * (columns + 1) :]
            several = len(views) > 1
            labelled = [("input", "" if several else views[0].words)]
            _show_image(line[0], views[0])
            for view, of_model in zip(views, maps):
                for words, patch_map in of_model:
                    _show_map(line[len(labelled)], view, patch_map)
                    labelled.append((f"{view.name}\n{words}" if several else words, view.words if several else ""))
            for axes, (above, below) in zip(line, labelled):
                axes.set_title(plain(above) if number < groups else "", fontsize=8)
                axes.set_xlabel(plain(below), fontsize=8)
        figure.suptitle(plain(title), fontsize=10)
