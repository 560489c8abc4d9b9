"""The references that a command line of `check_alignment.py` asks for."""

import json
import pathlib
from collections.abc import Iterator

from cait.align.golden import GoldenReference
from cait.align.ladder import Reference
from cait.align.live import LiveReference
from cait.data.image_files import image_files
from cait.errors import CaitError
from cait.files import read_text
from cait.model import CaiT
from cait.variants import list_models
from cait.weights.find import find_weights
from cait.zoo import create_model, variant_config


def golden_references(names: list[str], folder: pathlib.Path) -> Iterator[Reference]:
    """References from golden files for `tiny`, names of variants, or `["all"]`.

    Raises:
        UsageError: no such variant.
        CaitError: a golden file is missing.
    """
    for name in ["tiny", *list_models()] if names == ["all"] else names:
        if name == "tiny":
            file = folder / "train_tiny.json"
            keys = ("patch_size", "embed_dim", "depth", "num_heads", "num_classes")
            try:
                read = json.loads(read_text(file))
                sizes = {"image_size": read["img_size"], **{key: read[key] for key in keys}}
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise CaitError(f"{file}: not the sizes of the tiny model ({error})") from error
            yield GoldenReference(folder, name, lambda sizes=sizes: CaiT(**sizes))
        else:
            variant_config(name)  # an unknown name is an error here, not where its model is made
            yield GoldenReference(folder, name, lambda name=name: create_model(name))


def live_references(names: list[str], weights: pathlib.Path | None, images: pathlib.Path | None) -> Iterator[Reference]:
    """References that run timm, for names of variants or `["all"]`."""
    weights = find_weights(weights) if weights else None
    pictures = image_files(images) if images else None
    for name in list_models() if names == ["all"] else names:
        variant_config(name)
        yield LiveReference(name, lambda classes, name=name: create_model(name, num_classes=classes), weights, pictures)
