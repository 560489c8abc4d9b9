"""The config of a run as a file in its folder: written, compared with another, and told from a file of the user's."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import yaml
from yacs.config import CfgNode

from cait.config.keys import CLASSES, yaml_text
from cait.config.read import make_config, read_yaml
from cait.errors import CaitError, UsageError
from cait.files import read_text, write_text
from cait.files.yaml_file import read_tree

# How a command starts rather than what a run is: not saved, so that `-resume` and `-cfg` can take over a saved config.
START_KEYS = ("EVAL", "PRED", "NGPUS", "TRAIN.RESUME", "TRAIN.LAST_EPOCH", "PREDICT.IMAGE", "LOG_NAME", "DATA.LABELS")


def save_config(config: CfgNode, path: str | os.PathLike, classes: Mapping[str, list[str]] | None = None) -> None:
    """Writes the config, all of it but START_KEYS, as YAML that `-cfg` reads again, and a record of the classes."""
    write_text(path, _text(config, classes))


def _text(config: CfgNode, classes: Mapping[str, list[str]] | None) -> str:
    config = config.clone()
    config.defrost()
    for name in START_KEYS:
        *parents, last = name.split(".")
        section = config
        for part in parents:
            section = section[part]
        del section[last]
    record = yaml.safe_dump({CLASSES: dict(classes)}, allow_unicode=True, sort_keys=False) if classes else ""
    return config.dump(sort_keys=False) + record


def changes_since(config: CfgNode, saved: str | os.PathLike) -> list[str]:
    """The keys whose values differ from those of a saved config, in words; but for OUTPUT_DIR, which may be renamed."""
    before, changes = read_yaml(saved), []
    for name, value in before.items():
        now: Any = config
        for part in name.split("."):
            now = now[part]
        if now != value and name != "OUTPUT_DIR":
            changes.append(f"{name} {yaml_text(now)}, not {yaml_text(value)}")
    return changes


def check_replaceable(path: pathlib.Path) -> None:
    """Checks that a job may write its config there: nothing is there, or what a job wrote and nobody has edited.

    Raises:
        UsageError: it is a file of the user's.
    """
    if os.path.lexists(path) and not _is_as_saved(path):
        raise UsageError(
            f"{path}: is no config that a run saved, or was edited since, so it is not replaced; "
            "give another -output_dir, or move the file"
        )


def _is_as_saved(path: pathlib.Path) -> bool:
    """Whether a file holds just what `save_config` writes of its values, so that no comment of the user's is lost."""
    try:
        text = read_text(path)
        return text == _text(make_config(read_yaml(path)), read_tree(path).get(CLASSES))
    except CaitError:
        return False
