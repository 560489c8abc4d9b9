"""Reads a config: YAML files and overrides become values of the right kinds, and these a config that fits together."""

import contextlib
import datetime
import difflib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from yacs.config import CfgNode

from cait.config.keys import BY_NAME, CLASSES, KEYS
from cait.config.kinds import LOG_NAME, PATH, TEXT
from cait.errors import UsageError, shown
from cait.files.yaml_file import YamlError, parse, read_with_bases


def _set_value(config: CfgNode, name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for part in parents:
        config = config.setdefault(part, CfgNode())
    config[last] = value


def parse_value(name: str, value: Any, source: str) -> Any:
    """`value` as the key's type.

    Raises:
        UsageError: the key is unknown or the value is not of its kind; the message names `source` and the key.
    """
    if name not in BY_NAME:
        near = difflib.get_close_matches(name, BY_NAME, n=1, cutoff=0.6)
        raise UsageError(
            f"{source}: unknown key {shown(name, bare=True)}" + (f" (did you mean {near[0]}?)" if near else "")
        )
    kind = BY_NAME[name].kind
    try:
        return kind.parse(value)
    except UsageError as error:  # of the kind's own, which says more
        raise UsageError(f"{source}: {name}: {error}") from error
    except (ValueError, OverflowError) as error:
        is_taken = kind in (TEXT, PATH, LOG_NAME) and isinstance(value, (bool, int, float, datetime.date))
        hint = "; put it in quotes, or YAML reads it as something other than text" if is_taken else ""
        raise UsageError(f"{source}: {name} must be {kind.text}, not {shown(value)}{hint}") from error


def _flatten(tree: Mapping, source: str, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for part, value in tree.items():
        name = f"{prefix}{part}"
        is_section = any(key.startswith(f"{name}.") for key in BY_NAME)
        if isinstance(value, Mapping) and is_section:
            yield from _flatten(value, source, f"{name}.")
        elif is_section:
            raise UsageError(f"{source}: {name} is a section and must hold keys, not {shown(value)}")
        else:
            yield name, value


def read_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """The dotted keys that a YAML file and its `BASE` files set; `BASE` is relative to the file it stands in.

    Raises:
        UsageError: a file is missing or no YAML, a key is unknown, stands twice or has a wrong value, or files include
            each other.
    """
    values: dict[str, Any] = {}
    for file, tree in read_with_bases(path):
        tree.pop(CLASSES, None)
        for name, value in _flatten(tree, str(file)):
            values[name] = parse_value(name, value, str(file))
    return values


def parse_override(name: str, text: str, source: str) -> Any:
    """The value that a word of the command line gives a key: text stays text, the rest is read as YAML."""
    value: Any = text
    if name in BY_NAME and BY_NAME[name].kind not in (TEXT, PATH, LOG_NAME):
        with contextlib.suppress(YamlError):
            value = parse(text)
    return parse_value(name, value, source)


def make_config(values: Mapping[str, Any]) -> CfgNode:
    """A frozen config of the defaults and `values`, dotted keys already parsed.

    Raises:
        UsageError: keys that do not go together.
    """
    config = CfgNode()
    is_finetuning = bool(values.get("MODEL.PRETRAINED"))
    for key in KEYS:
        default = key.finetune if is_finetuning and key.finetune is not None else key.default
        _set_value(config, key.name, values.get(key.name, default))
    _check_together(config)
    config.freeze()
    return config


def _check_together(config: CfgNode) -> None:
    """Checks what no single key shows.

    Raises:
        UsageError: keys that do not fit each other.
    """
    _check_sizes(config)
    _check_job(config)
    _check_distillation(config)


def _check_sizes(config: CfgNode) -> None:
    model, data, aug = config.MODEL, config.DATA, config.AUG
    for side in data.IMAGE_SIZE:
        if side % model.PATCH_SIZE:
            raise UsageError(
                f"DATA.IMAGE_SIZE {data.IMAGE_SIZE} is not a multiple of MODEL.PATCH_SIZE {model.PATCH_SIZE}"
            )
    if model.EMBED_DIM % model.NUM_HEADS:
        raise UsageError(f"MODEL.EMBED_DIM {model.EMBED_DIM} is not a multiple of MODEL.NUM_HEADS {model.NUM_HEADS}")
    for name in ("MEAN", "STD"):
        if len(data[name]) != model.IN_CHANNELS:
            raise UsageError(f"DATA.{name} needs {model.IN_CHANNELS} values, one for each of MODEL.IN_CHANNELS")
    for name in ("CROP_SCALE", "CROP_RATIO"):
        if aug[name][0] > aug[name][1]:
            raise UsageError(f"AUG.{name} {aug[name]} runs from the smaller to the larger value")


def _check_job(config: CfgNode) -> None:
    if config.EVAL and config.PRED:
        raise UsageError("-eval and -pred exclude each other")
    if (config.EVAL or config.PRED) and not config.MODEL.PRETRAINED:
        raise UsageError("-eval and -pred need -pretrained=WEIGHTS")
    if (config.EVAL or config.PRED) and config.TRAIN.RESUME:
        raise UsageError("-resume goes on with training; -eval and -pred take their weights from -pretrained")
    if config.TRAIN.LAST_EPOCH and not config.TRAIN.RESUME:
        raise UsageError("-last_epoch counts the epochs of a resumed run and needs -resume=CHECKPOINT")
    if config.PREDICT.IMAGE and not config.PRED:
        raise UsageError("PREDICT.IMAGE needs -pred")


def _check_distillation(config: CfgNode) -> None:
    if (config.DISTILL.TYPE != "none") != bool(config.DISTILL.TEACHER):
        raise UsageError("DISTILL.TYPE (hard or soft) and DISTILL.TEACHER need each other")
    if config.DISTILL.WEIGHTS and ("/" in config.DISTILL.TEACHER or "." in config.DISTILL.TEACHER):
        raise UsageError("DISTILL.WEIGHTS goes with a teacher of paddle.vision; a program or ONNX file has its own")
