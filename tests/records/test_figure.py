"""Pictures and their fonts."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from PIL import Image

from project import ROOT

pytestmark = pytest.mark.any_paddle

NAME = "中文类别"
DRAW = """
import logging, pathlib, sys
sys.path.insert(0, sys.argv[1])
import cait.records.figure as figure
figure.CHINESE_FONTS = tuple(sys.argv[3:]) or figure.CHINESE_FONTS
for _ in range(2):
    with figure.picture(sys.argv[2], 2, 1) as made:
        made.text(0.1, 0.4, "中文类别", fontsize=20)
"""


def draw(cache: pathlib.Path, *fonts: str) -> tuple[bytes, str]:
    """The pixels of a picture with a Chinese name, drawn by a fresh process, and what that printed."""
    environment = {**os.environ, "MPLCONFIGDIR": str(cache)}
    words = [sys.executable, "-W", "ignore:No ccache", "-c", DRAW, ROOT / "CaiT", cache / "a.png", *fonts]
    result = subprocess.run([*map(str, words)], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    with Image.open(cache / "a.png") as image:
        return image.convert("L").tobytes(), result.stderr


def is_chinese(font: dict) -> bool:
    from cait.records.figure import CHINESE_FONTS

    return font["name"] in CHINESE_FONTS


def test_fonts_that_are_newer_than_the_cache_are_found(tmp_path):
    right, said = draw(tmp_path)
    cached = next(tmp_path.glob("fontlist-*.json"))
    content = json.loads(cached.read_text())
    files = {font["fname"] for font in content["ttflist"] if is_chinese(font)}
    if not files:
        pytest.skip("this machine has no Chinese font")
    assert not said
    content["ttflist"] = [font for font in content["ttflist"] if font["fname"] not in files]
    cached.write_text(json.dumps(content))
    assert draw(tmp_path) == (right, "")


def test_a_font_that_was_removed_since_is_not_chosen(tmp_path):
    right, _ = draw(tmp_path, "Nowhere Sans")
    cached = next(tmp_path.glob("fontlist-*.json"))
    content = json.loads(cached.read_text())
    font = next(font for font in content["ttflist"] if font["name"] == "DejaVu Sans")
    content["ttflist"].append(font | {"name": "Removed Sans", "fname": "/nowhere/removed.ttf"})
    cached.write_text(json.dumps(content))
    assert draw(tmp_path, "Removed Sans")[0] == right


def test_without_a_font_one_line_says_which_to_install(tmp_path):
    said = draw(tmp_path, "Nowhere Sans")[1]
    assert said.count("\n") == 1, said
    assert f"boxes for {NAME}: no installed font has these characters" in said and "fonts-noto-cjk" in said


def test_other_warnings_are_not_lost(tmp_path):
    import warnings

    from cait.records.figure import picture

    with pytest.warns(UserWarning, match="something else"), picture(tmp_path / "a.png", 1, 1):
        warnings.warn("something else", UserWarning, stacklevel=1)
