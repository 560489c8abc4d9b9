"""The published variants, by their YAML files. Nothing here needs Paddle."""

import pathlib


def variants_folder() -> pathlib.Path:
    """The folder of the variants' YAML files: within the installed package, or beside it in a checkout."""
    package = pathlib.Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return sorted(path.stem for path in variants_folder().glob("cait_*.yaml"))
