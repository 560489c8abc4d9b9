"""Draws the pictures of images and models into a folder."""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cait.data.transforms import normalisation
from cait.deploy.classify import Reader
from cait.deploy.predictor import softmax
from cait.errors import CaitError
from cait.records.metrics import plot_learning_curves, read_metrics
from cait.records.predictions import result_line
from cait.run_folder import CURVES, METRICS
from cait.visualize import draw
from cait.visualize.attention_models import AttentionModel, distinct_names, with_weights
from cait.visualize.figures import IMAGES_A_SHEET, MATRICES, SCALES, SHEETS, picture_stems, sheet_name
from cait.visualize.maps import add_block, class_rollout, patch_maps

DEPTHS = 4  # of a rollout that are shown


def read_runs(runs: Sequence[str]) -> dict[str, list[dict]]:
    """The numbers of runs, each named by its folder or its `metrics.jsonl`, under names that tell them apart.

    Raises:
        CaitError: there are no such numbers.
    """
    files = [pathlib.Path(run, METRICS) if os.path.isdir(run) else pathlib.Path(run) for run in runs]
    rows = {name: read_metrics(file) for name, file in zip(distinct_names([file.parent for file in files]), files)}
    for file, of_run in zip(files, rows.values()):
        if not of_run:
            raise CaitError(f"{file}: holds no epoch")
    return rows


def draw_curves(rows: dict[str, list[dict]], folder: pathlib.Path) -> None:
    """Learning curves of runs on the same axes."""
    plot_learning_curves(rows, folder / CURVES, next(iter(rows)) if len(rows) == 1 else "Learning curves")


class _Seen(NamedTuple):
    """What a model makes of an image: normalised [1, C, height, width], class attention [layers, H, 1 + N]."""

    model: AttentionModel
    image: np.ndarray
    view: draw.View
    attention: np.ndarray

    def class_maps(self) -> np.ndarray:
        """[layers, H, rows, columns]."""
        return patch_maps(self.attention, self.model.grid)

    def patch(self) -> int:
        """The one that the class token reads most in the last layer; rollout and talking heads are shown for it."""
        return int(self.class_maps()[-1].mean(axis=0).argmax())


class _Sheets:
    """The contact sheets of a figure: a full one is drawn at once, so that memory does not grow with the images."""

    def __init__(self, folder: pathlib.Path, figure: str):
        self.folder, self.figure, self.page = folder, figure, 1
        self.cells: list[tuple] = []

    def add(self, views: list[draw.View], maps: list[list[tuple[str, np.ndarray]]]) -> None:
        """Adds the cells of an image; see `draw.draw_sheet`."""
        self.cells.append((views, maps))
        if len(self.cells) == IMAGES_A_SHEET:
            self.finish()

    def finish(self) -> None:
        """Draws what is left."""
        if self.cells:
            path = self.folder / sheet_name(self.figure, self.page)
            draw.draw_sheet(path, draw.TITLES[self.figure], self.cells)
            self.page, self.cells = self.page + 1, []


def draw_images(
    models: Sequence[AttentionModel],
    paths: Sequence[str],
    figures: Sequence[str],
    folder: pathlib.Path,
    block: int = 0,
    exif: bool = True,
) -> int:
    """All pictures of images and models; prints the likeliest class of each image.

    Args:
        models: the models, whose maps stand side by side.
        paths: of the images.
        figures: of FIGURES, such that the models have them.
        folder: for the pictures.
        block: number of the self-attention block whose heads are shown, from 1; 0: the last.
        exif: turn images as their EXIF orientation says.

    Returns:
        How many images could not be read; they are named and cost the others nothing.
    """
    readers = [Reader(model.description, exif) for model in models]
    sheets = {figure: _Sheets(folder, figure) for figure in SHEETS if figure in figures and len(paths) > 1}
    ratios: dict[str, list] = {model.name: [] for model in models}
    failed = 0
    for path, stem in zip(paths, picture_stems(paths)):
        try:
            images = [read(path)[None] for read in readers]
        except CaitError as error:
            print(error)
            failed += 1
            continue
        seen = [_look(model, path, image, len(models) > 1) for model, image in zip(models, images)]
        _draw_image(_Picture(seen, folder / stem, os.path.basename(path)), figures, sheets, block)
        if "layer_scale" in figures:
            for each in seen:
                ratios[each.model.name].append(with_weights(each.model).branch_ratios(each.image))
    for sheet in sheets.values():
        sheet.finish()
    _draw_models(models, figures, folder, {name: _mean(values) for name, values in ratios.items() if values})
    return failed


class _Picture(NamedTuple):
    """What the models made of one image, the beginning of its files' paths, and its name."""

    seen: list[_Seen]
    stem: pathlib.Path
    name: str

    def file(self, figure: str) -> pathlib.Path:
        """The file of a figure."""
        return self.stem.with_name(f"{self.stem.name}_{figure}.png")


def _draw_image(picture: _Picture, figures: Sequence[str], sheets: dict[str, _Sheets], block: int) -> None:
    """The pictures of one image, and its cells on the contact sheets."""
    seen, name = picture.seen, picture.name
    views = [each.view for each in seen]
    if "class_attention" in figures:
        maps = [each.class_maps() for each in seen]
        draw.draw_class_attention(picture.file("class_attention"), f"Class attention, {name}", views, maps)
        cells = [[(f"layer {i + 1}", heads.mean(axis=0)) for i, heads in enumerate(each)] for each in maps]
        if "class_attention" in sheets:
            sheets["class_attention"].add(views, cells)
    if "rollout" in figures:
        rollouts = [_rollout(each) for each in seen]
        draw.draw_rollout(picture.file("rollout"), f"Attention rollout, {name}", views, rollouts)
        if "rollout" in sheets:
            sheets["rollout"].add(views, [[("rollout", each.of_class)] for each in rollouts])
    if "talking_heads" in figures:
        mixings = [_mixing(each, block) for each in seen]
        draw.draw_talking_heads(picture.file("talking_heads"), f"Talking heads, {name}", views, mixings)


def _draw_models(
    models: Sequence[AttentionModel],
    figures: Sequence[str],
    folder: pathlib.Path,
    ratios: dict[str, dict[str, list[float]]],
) -> None:
    """What needs no image."""
    if "talking_heads" in figures:
        matrices = [with_weights(model).mixing_matrices() for model in models]
        draw.draw_mixing_matrices(folder / MATRICES, [model.name for model in models], matrices)
    if "layer_scale" in figures:
        draw.draw_layer_scale(
            folder / SCALES, {model.name: with_weights(model).layer_scale() for model in models}, ratios
        )


def _look(model: AttentionModel, path: str, image: np.ndarray, several: bool) -> _Seen:
    """Runs the model, and prints the likeliest class; with the model's name, where there are several."""
    logits, attention = model(image)
    description = model.description
    scale, shift = normalisation(description.mean, description.std)
    pixels = np.clip(np.round((image[0].transpose(1, 2, 0) - shift) / scale), 0, 255).astype("uint8")
    probabilities = softmax(logits[0])
    best = int(probabilities.argmax())
    name, probability = description.class_names[best], float(probabilities[best])
    print((f"{model.name}: " if several else "") + result_line(path, best, name, probability), flush=True)
    return _Seen(model, image, draw.view(model.name, pixels, name, probability), attention[0])


def _rollout(seen: _Seen) -> draw.Rollout:
    model, patch = with_weights(seen.model), seen.patch()
    depth = len(model.network.blocks)
    shown = {max(1, round(depth * (step + 1) / DEPTHS)) for step in range(DEPTHS)}
    rollout = np.eye(model.grid[0] * model.grid[1])
    by_depth = []
    for number, (_, mixed) in enumerate(model.self_attention(seen.image), 1):
        rollout = add_block(rollout, mixed)
        if number in shown:
            by_depth.append((number, rollout[patch].reshape(model.grid)))
    return draw.Rollout(patch, by_depth, patch_maps(class_rollout(rollout, seen.attention), model.grid))


def _mixing(seen: _Seen, block: int) -> draw.Mixing:
    model, patch = with_weights(seen.model), seen.patch()
    block = block or len(model.network.blocks)
    steps = model.talking_heads(seen.image, block - 1)
    maps = {name: attention[:, patch].reshape(-1, *model.grid) for name, attention in steps.items()}
    matrices = {name: of_blocks[block - 1] for name, of_blocks in model.mixing_matrices().items()}
    return draw.Mixing(block, patch, **maps, **matrices)


def _mean(ratios: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    return {name: np.mean([each[name] for each in ratios], axis=0).tolist() for name in ratios[0]}
