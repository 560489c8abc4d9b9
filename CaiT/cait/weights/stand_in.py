"""Random weights whose answers differ from image to image, in place of trained ones."""

import os
import pathlib
from collections.abc import Callable

import paddle

from cait.model import CaiT
from cait.weights.find import WEIGHTS
from cait.weights.write import save_weights

HEAD_SCALE = 10.0


def place_weights(weights: str | os.PathLike, folder: pathlib.Path, build: Callable[[], CaiT]) -> str:
    """Puts weights into a folder, by a link, or random ones of that name where there are none.

    Args:
        weights: the file, without its suffix.
        folder: made where needed.
        build: makes the model of the random weights.

    Returns:
        The sentence that says which they are. A file's name does not tell who trained it, so it names the file.
    """
    source = pathlib.Path(f"{weights}{WEIGHTS}")
    target = folder / source.name
    folder.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        target.symlink_to(source.resolve())
        return f"{target}: the weights at {source}"
    paddle.seed(0)
    write_stand_in(build(), target)
    return f"{target}: RANDOM weights, for there is no {source}; their accuracy means nothing"


def write_stand_in(model: CaiT, path: pathlib.Path) -> None:
    """Saves a model's weights, made so that comparing its predictions means something.

    A fresh CaiT hardly looks at the image: LayerScale starts at 1e-5, so logits of different images agree to six
    digits, and a wrong image or a stale program would pass for the right one. Here LayerScale is 1, and the head is
    larger, so that the first class stands clear of the second.
    """
    with paddle.no_grad():
        for name, parameter in model.named_parameters():
            if name.rsplit(".", 1)[-1].startswith("gamma_"):
                parameter.set_value(paddle.ones_like(parameter))
        model.head.weight.set_value(model.head.weight * HEAD_SCALE)
    save_weights(model, path)
