"""The fields of `inference.yaml`: each field's kind and range, and which fields belong together."""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cait.deploy.bundle_folder import BEGINNINGS
from cait.errors import shown

FORMAT = 3
BEFORE = 2  # is read too
ADDED = ("deep_grey", "grid", "heads")  # by the newer format
LOGITS, CLASS_ATTENTION = "logits", "class_attention"
PRECISIONS = ("fp32", "fp16", "bf16")
MAX_SIDE = 8192
MAX_CLASSES = 100_000
LONGEST_TEXT = 1000


class _Kind(NamedTuple):
    """What a field may hold: `words` says it, `fits` decides; `item` is the kind of a list's values."""

    words: str
    fits: Callable[[Any], bool]
    item: Any = None


def _whole(low: int, high: int) -> _Kind:
    return _Kind(f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def _number(low: float, high: float) -> _Kind:
    def fits(value):
        return type(value) in (int, float) and math.isfinite(value) and low <= value <= high

    return _Kind(f"a number from {low:g} to {high:g}", fits)


def _choice(*words: Any) -> _Kind:
    return _Kind(" or ".join(map(str, words)), lambda value: any(type(value) is type(w) and value == w for w in words))


def _list(item: _Kind, low: int, high: int) -> _Kind:
    def fits(value):
        return isinstance(value, list) and low <= len(value) <= high and all(map(item.fits, value))

    count = f"{low} values" if low == high else f"{low} to {high} values"
    return _Kind(f"a list of {count}, each {item.words}", fits, item)


def _table(key: _Kind, item: _Kind) -> _Kind:
    def fits(value):
        return isinstance(value, dict) and all(key.fits(k) and item.fits(v) for k, v in value.items())

    return _Kind(f"keys, each {key.words}, and values, each {item.words}", fits)


def _is_text(value: Any) -> bool:
    """Text without control characters but tabs; names in some scripts need characters that are not printable."""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        return False
    return value.isprintable() or not any(unicodedata.category(each) == "Cc" for each in value if each != "\t")


_TEXT = _Kind(f"text of at most {LONGEST_TEXT} letters, in quotes where YAML takes it for something else", _is_text)
_DIGEST = _Kind("a SHA-256", lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value)))


def _is_file(name: Any) -> bool:
    return isinstance(name, str) and bool(re.fullmatch("[A-Za-z0-9_.]{1,100}", name)) and name.startswith(BEGINNINGS)


_FILE = _Kind("the name of a bundle's file", _is_file)
FIELDS = {
    "variant": _TEXT,
    "image_size": _list(_whole(1, MAX_SIDE), 2, 2),
    "crop_pct": _number(0.1, 1),
    "interpolation": _choice("bicubic"),
    "deep_grey": _choice("scale", "clip"),
    "patch_size": _whole(1, MAX_SIDE),
    "grid": _list(_whole(1, MAX_SIDE), 2, 2),
    "heads": _whole(1, MAX_SIDE),
    "channels": _choice(1, 3),
    "mean": _list(_number(0, 1), 1, 3),
    "std": _list(_number(1e-6, 1), 1, 3),
    "class_names": _list(_TEXT, 1, MAX_CLASSES),
    "weights": _DIGEST,
    "versions": _table(_TEXT, _TEXT),
    "precision": _choice(*PRECISIONS),
    "outputs": _list(_choice(LOGITS, CLASS_ATTENTION), 1, 2),
    "files": _table(_FILE, _DIGEST),
    "self_test_seed": _whole(0, 2**63 - 1),
    "self_test_logits": _list(_number(-1e30, 1e30), 1, MAX_CLASSES),
    "format": _choice(BEFORE, FORMAT),
}


def check(content: Mapping[Any, Any]) -> None:
    """Demands a description: every field of its format, of its kind, and nothing else.

    Raises:
        ValueError: names the field that is missing, unknown, of another kind, or does not go with another.
    """
    fields = FIELDS
    if content.get("format") == BEFORE:
        fields = {name: kind for name, kind in FIELDS.items() if name not in ADDED}
    for name in content:
        if name not in fields:
            raise ValueError(f"{shown(name, bare=True)} is no field of it in format {shown(content.get('format'))}")
    for name, kind in fields.items():
        if name not in content:
            raise ValueError(f"{name} is missing")
        if not kind.fits(content[name]):
            raise ValueError(_why(name, kind, content[name]))
    _check_together(content)


def in_new_format(content: Mapping[str, Any]) -> dict[str, Any]:
    """A description that passed `check`, with the fields that its format lacks; `heads` is None: nothing says it."""
    if content["format"] != BEFORE:
        return dict(content)
    grid = [side // content["patch_size"] for side in content["image_size"]]
    return {**content, "deep_grey": "scale", "grid": grid, "heads": None, "format": FORMAT}


def _why(name: str, kind: _Kind, value: Any) -> str:
    for index, item in enumerate(value if kind.item and isinstance(value, list) else ()):
        if not kind.item.fits(item):
            return _why(f"{name}[{index}]", kind.item, item)
    return f"{name} must be {kind.words}, not {shown(value)}"


def _check_together(content: Mapping[str, Any]) -> None:
    if any(side % content["patch_size"] for side in content["image_size"]):
        raise ValueError(f"image_size {content['image_size']} is no multiple of patch_size {content['patch_size']}")
    if "grid" in content and [side * content["patch_size"] for side in content["grid"]] != content["image_size"]:
        raise ValueError(
            f"grid {content['grid']} of patches of {content['patch_size']} pixels is not image_size "
            f"{content['image_size']}"
        )
    for name in ("mean", "std"):
        if len(content[name]) != content["channels"]:
            raise ValueError(f"{name} needs as many values as channels says, {content['channels']}")
    if len(content["self_test_logits"]) != len(content["class_names"]):
        raise ValueError("self_test_logits needs one value for each of class_names")
    if content["outputs"] not in ([LOGITS], [LOGITS, CLASS_ATTENTION]):
        raise ValueError(f"outputs must be {LOGITS}, or {LOGITS} and {CLASS_ATTENTION}")
