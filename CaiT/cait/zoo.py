"""The published variants by name."""

import os
import pathlib

from cait.checkpoint import load_weights
from cait.config import make_config, read_yaml
from cait.errors import UsageError
from cait.model import CaiT, model_arguments


def variants_folder() -> pathlib.Path:
    """The folder of the variants' YAML files: within the installed package, or beside it in a checkout."""
    package = pathlib.Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return sorted(path.stem for path in variants_folder().glob("cait_*.yaml"))


def create_model(
    name: str, pretrained: str | os.PathLike | None = None, num_classes: int | None = None, **arguments
) -> CaiT:
    """A published variant, with random weights or those of a file.

    Args:
        name: such as `"cait_xxs24_224"`; `list_models()` gives all.
        pretrained: a `.pdparams` file, the suffix may be left out; its tensors must fit the model.
        num_classes: width of the head, 1000 if not given.
        arguments: any other argument of `CaiT`, in place of the variant's.

    Returns:
        The model, in training mode: call `.eval()` before using it for prediction.

    Raises:
        UsageError: no such variant.
        CaitError: the weights are missing, damaged or of another model.
        ValueError: arguments that do not go together.
    """
    if name not in list_models():
        raise UsageError(f"no variant {name!r}; there are {', '.join(list_models())}")
    config = make_config(read_yaml(variants_folder() / f"{name}.yaml"))
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    model = CaiT(**{**model_arguments(config), **arguments})
    if pretrained is not None:
        load_weights(model, pretrained)
    return model
