"""Images and models in, a folder of pictures out."""

import math
import os
import pathlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cait.command.outputs import check_outputs
from cait.data.transforms import normalisation
from cait.deploy.classify import Reader
from cait.deploy.predictor import softmax
from cait.errors import CaitError, UsageError
from cait.files import writable_folder
from cait.records.figure import check_matplotlib
from cait.records.metrics import plot_learning_curves, read_metrics
from cait.records.predictions import result_line
from cait.run_folder import CURVES, METRICS
from cait.visualize import FIGURES, OF_IMAGES, draw
from cait.visualize.maps import add_block, class_rollout, patch_maps
from cait.visualize.sources import BundleSource, Source, distinct_names

SHEETS = ("class_attention", "rollout")  # of several images also all on one
MATRICES, SCALES = "talking_heads_matrices.png", "layer_scale.png"
IMAGES_A_SHEET = 60
DEPTHS = 4  # of a rollout that are shown


def choose_figures(asked: Sequence[str], sources: Sequence[Source], has_images: bool, block: int = 0) -> list[str]:
    """The figures to draw: those asked for, or all that these sources and images allow.

    Raises:
        UsageError: one was asked for that they do not allow, or a model has no self-attention block of that number.
    """
    bundle = next((source.name for source in sources if isinstance(source, BundleSource)), None)
    reasons = {figure: f"{figure} needs images: --img-path names them" for figure in OF_IMAGES if not has_images}
    for figure in FIGURES[1:] if bundle else ():
        reasons[figure] = f"{figure} needs the weights (--model_path): the bundle {bundle} has class attention alone"
    chosen = [figure for figure in FIGURES if (figure in asked if asked else figure not in reasons)]
    for figure in chosen or OF_IMAGES:
        if figure in reasons:
            raise UsageError(reasons[figure])
    if "talking_heads" in chosen:
        for source in sources:
            if block > len(source.model.blocks):
                raise UsageError(f"--block {block}: {source.name} has {len(source.model.blocks)} self-attention blocks")
    return chosen


def picture_stems(paths: Sequence[str]) -> list[str]:
    """What the files of each image begin with: its path below the folder that all share, made one word."""
    whole = [os.path.abspath(path) for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in whole]) if whole else ""
    stems: dict[str, None] = {}  # in order
    for path in whole:
        words = os.path.splitext(os.path.relpath(path, shared))[0].replace(os.sep, "_")
        words = words.encode("utf-8", "backslashreplace")[-150:].decode("utf-8", "ignore")  # a name has 255 bytes
        candidates = (words, *(f"{words}_{number}" for number in range(2, len(whole) + 1)))
        stems[next(name for name in candidates if name not in stems)] = None
    return list(stems)


def _sheet_name(figure: str, page: int) -> str:
    return f"{figure}_sheet{f'_{page}' if page > 1 else ''}.png"


def file_names(stems: Sequence[str], figures: Sequence[str], has_runs: bool) -> list[str]:
    """Of all the files that will be written."""
    names = [f"{stem}_{figure}.png" for stem in stems for figure in OF_IMAGES if figure in figures]
    pages = range(1, 1 + (math.ceil(len(stems) / IMAGES_A_SHEET) if len(stems) > 1 else 0))
    names += [_sheet_name(figure, page) for figure in SHEETS if figure in figures for page in pages]
    names += [MATRICES] if "talking_heads" in figures else []
    names += [SCALES] if "layer_scale" in figures else []
    return names + ([CURVES] if has_runs else [])


def open_folder(folder: pathlib.Path | None, names: Sequence[str], force: bool) -> pathlib.Path:
    """The folder for the pictures; None: a new one under `output/`.

    Raises:
        UsageError: it holds a file of these names, and `force` is not set.
        CaitError: it cannot be written, or matplotlib is not installed.
    """
    check_matplotlib()
    if folder is None:
        stem = f"output/visualize-{time.strftime('%Y%m%d-%H%M%S')}"
        candidates = (stem, *(f"{stem}-{number}" for number in range(2, 1000)))
        folder = next(path for path in map(pathlib.Path, candidates) if not path.exists())
    check_outputs(folder, *names)
    there = [name for name in names if (folder / name).exists()]
    if there and not force:
        raise UsageError(f"{folder / there[0]}: is there already; --force replaces it")
    return writable_folder(folder)


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

    source: Source
    image: np.ndarray
    view: draw.View
    attention: np.ndarray

    def class_maps(self) -> np.ndarray:
        """[layers, H, rows, columns]."""
        return patch_maps(self.attention, self.source.grid)

    def patch(self) -> int:
        """The one that the class token reads most in the last layer; rollout and talking heads are shown for it."""
        return int(self.class_maps()[-1].mean(axis=0).argmax())


class _Sheets:
    """The contact sheets of a figure: a full one is drawn at once, so that memory does not grow with the images."""

    def __init__(self, folder: pathlib.Path, figure: str):
        self.folder, self.figure, self.page, self.cells = folder, figure, 1, []

    def add(self, views: list[draw.View], maps: list[list[tuple[str, np.ndarray]]]) -> None:
        """Of an image; see `draw.draw_sheet`."""
        self.cells.append((views, maps))
        if len(self.cells) == IMAGES_A_SHEET:
            self.finish()

    def finish(self) -> None:
        """Draws what is left."""
        if self.cells:
            path = self.folder / _sheet_name(self.figure, self.page)
            draw.draw_sheet(path, draw.TITLES[self.figure], self.cells)
            self.page, self.cells = self.page + 1, []


def draw_images(
    sources: Sequence[Source],
    paths: Sequence[str],
    figures: Sequence[str],
    folder: pathlib.Path,
    block: int = 0,
    exif: bool = True,
) -> int:
    """All pictures of images and models; prints the likeliest class of each image.

    Args:
        sources: the models, whose maps stand side by side.
        paths: of the images.
        figures: of FIGURES, such that the sources have them.
        folder: for the pictures.
        block: number of the self-attention block whose heads are shown, from 1; 0: the last.
        exif: turn images as their EXIF orientation says.

    Returns:
        How many images could not be read; they are named and cost the others nothing.
    """
    readers = [Reader(source.description, exif) for source in sources]
    sheets = {figure: _Sheets(folder, figure) for figure in SHEETS if figure in figures and len(paths) > 1}
    ratios: dict[str, list] = {source.name: [] for source in sources}
    failed = 0
    for path, stem in zip(paths, picture_stems(paths)):
        try:
            images = [read(path)[None] for read in readers]
        except CaitError as error:
            print(error)
            failed += 1
            continue
        seen = [_look(source, path, image, len(sources) > 1) for source, image in zip(sources, images)]
        views, name = [each.view for each in seen], os.path.basename(path)
        if "class_attention" in figures:
            maps = [each.class_maps() for each in seen]
            draw.draw_class_attention(folder / f"{stem}_class_attention.png", f"Class attention, {name}", views, maps)
            cells = [[(f"layer {i + 1}", heads.mean(axis=0)) for i, heads in enumerate(each)] for each in maps]
            if "class_attention" in sheets:
                sheets["class_attention"].add(views, cells)
        if "rollout" in figures:
            rollouts = [_rollout(each) for each in seen]
            draw.draw_rollout(folder / f"{stem}_rollout.png", f"Attention rollout, {name}", views, rollouts)
            if "rollout" in sheets:
                sheets["rollout"].add(views, [[("rollout", each.of_class)] for each in rollouts])
        if "talking_heads" in figures:
            mixings = [_mixing(each, block) for each in seen]
            draw.draw_talking_heads(folder / f"{stem}_talking_heads.png", f"Talking heads, {name}", views, mixings)
        if "layer_scale" in figures:
            for each in seen:
                ratios[each.source.name].append(each.source.branch_ratios(each.image))
    for sheet in sheets.values():
        sheet.finish()
    _draw_models(sources, figures, folder, {name: _mean(values) for name, values in ratios.items() if values})
    return failed


def _draw_models(
    sources: Sequence[Source], figures: Sequence[str], folder: pathlib.Path, ratios: dict[str, dict[str, list[float]]]
) -> None:
    """What needs no image."""
    if "talking_heads" in figures:
        matrices = [source.mixing_matrices() for source in sources]
        draw.draw_mixing_matrices(folder / MATRICES, [source.name for source in sources], matrices)
    if "layer_scale" in figures:
        draw.draw_layer_scale(folder / SCALES, {source.name: source.layer_scale() for source in sources}, ratios)


def _look(source: Source, path: str, image: np.ndarray, several: bool) -> _Seen:
    """Runs the model, and prints the likeliest class; with the model's name, where there are several."""
    logits, attention = source(image)
    description = source.description
    scale, shift = normalisation(description.mean, description.std)
    pixels = np.clip(np.round((image[0].transpose(1, 2, 0) - shift) / scale), 0, 255).astype("uint8")
    probabilities = softmax(logits[0])
    best = int(probabilities.argmax())
    name, probability = description.class_names[best], float(probabilities[best])
    print((f"{source.name}: " if several else "") + result_line(path, best, name, probability), flush=True)
    return _Seen(source, image, draw.view(source.name, pixels, name, probability), attention[0])


def _rollout(seen: _Seen) -> draw.Rollout:
    source, patch = seen.source, seen.patch()
    depth = len(source.model.blocks)
    shown = {max(1, round(depth * (step + 1) / DEPTHS)) for step in range(DEPTHS)}
    rollout = np.eye(source.grid[0] * source.grid[1])
    by_depth = []
    for number, (_, mixed) in enumerate(source.self_attention(seen.image), 1):
        rollout = add_block(rollout, mixed)
        if number in shown:
            by_depth.append((number, rollout[patch].reshape(source.grid)))
    return draw.Rollout(patch, by_depth, patch_maps(class_rollout(rollout, seen.attention), source.grid))


def _mixing(seen: _Seen, block: int) -> draw.Mixing:
    source, patch = seen.source, seen.patch()
    block = block or len(source.model.blocks)
    steps = source.talking_heads(seen.image, block - 1)
    maps = {name: attention[:, patch].reshape(-1, *source.grid) for name, attention in steps.items()}
    matrices = {name: of_blocks[block - 1] for name, of_blocks in source.mixing_matrices().items()}
    return draw.Mixing(block, patch, **maps, **matrices)


def _mean(ratios: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    return {name: np.mean([each[name] for each in ratios], axis=0).tolist() for name in ratios[0]}
