"""Which pictures there will be: the figures that models and images allow, and the names of their files."""

import math
import os
import pathlib
import time
from collections.abc import Sequence

from cait.command.outputs import check_outputs
from cait.errors import UsageError
from cait.files import new_folder, writable_folder
from cait.records.figure import check_matplotlib
from cait.run_folder import CURVES
from cait.visualize import FIGURES, OF_IMAGES
from cait.visualize.attention_models import AttentionModel, BundleAttention, with_weights

SHEETS = ("class_attention", "rollout")  # of several images also all on one
MATRICES, SCALES = "talking_heads_matrices.png", "layer_scale.png"
IMAGES_A_SHEET = 60


def choose_figures(
    asked: Sequence[str], models: Sequence[AttentionModel], has_images: bool, block: int = 0
) -> list[str]:
    """The figures to draw: those asked for, or all that these models and images allow.

    Raises:
        UsageError: one was asked for that they do not allow, or a model has no self-attention block of that number.
    """
    bundle = next((model.name for model in models if isinstance(model, BundleAttention)), None)
    reasons = {figure: f"{figure} needs images: --img-path names them" for figure in OF_IMAGES if not has_images}
    for figure in FIGURES[1:] if bundle else ():
        reasons[figure] = f"{figure} needs the weights (--model_path): the bundle {bundle} has class attention alone"
    chosen = [figure for figure in FIGURES if (figure in asked if asked else figure not in reasons)]
    for figure in chosen or OF_IMAGES:
        if figure in reasons:
            raise UsageError(reasons[figure])
    if "talking_heads" in chosen:
        for model in models:
            blocks = len(with_weights(model).network.blocks)
            if block > blocks:
                raise UsageError(f"--block {block}: {model.name} has {blocks} self-attention blocks")
    return chosen


def picture_stems(paths: Sequence[str]) -> list[str]:
    """Returns the beginning of each image's file names: its path below the common folder, as one word."""
    whole = [os.path.abspath(path) for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in whole]) if whole else ""
    stems: dict[str, None] = {}  # in order
    for path in whole:
        words = os.path.splitext(os.path.relpath(path, shared))[0].replace(os.sep, "_")
        words = words.encode("utf-8", "backslashreplace")[-150:].decode("utf-8", "ignore")  # a name has 255 bytes
        candidates = (words, *(f"{words}_{number}" for number in range(2, len(whole) + 1)))
        stems[next(name for name in candidates if name not in stems)] = None
    return list(stems)


def sheet_name(figure: str, page: int) -> str:
    """The file of a contact sheet; pages count from 1."""
    return f"{figure}_sheet{f'_{page}' if page > 1 else ''}.png"


def file_names(stems: Sequence[str], figures: Sequence[str], has_runs: bool) -> list[str]:
    """The names of all files that will be written."""
    names = [f"{stem}_{figure}.png" for stem in stems for figure in OF_IMAGES if figure in figures]
    pages = range(1, 1 + (math.ceil(len(stems) / IMAGES_A_SHEET) if len(stems) > 1 else 0))
    names += [sheet_name(figure, page) for figure in SHEETS if figure in figures for page in pages]
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
        return new_folder(f"output/visualize-{time.strftime('%Y%m%d-%H%M%S')}")
    check_outputs(folder, *names)
    there = [name for name in names if (folder / name).exists()]
    if there and not force:
        raise UsageError(f"{folder / there[0]}: is there already; --force replaces it")
    return writable_folder(folder)
