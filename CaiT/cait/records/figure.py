"""Pictures by matplotlib, which is optional: made without a display, written whole or not at all."""

import contextlib
import functools
import logging
import os
import re
import warnings
from collections.abc import Iterator

from cait.errors import CaitError
from cait.files import replacing

# matplotlib's own font has no Chinese; the first of these that is installed lends its characters.
CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",  # the only name that older versions of matplotlib see in the collection of all five
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "SimHei",
)


def check_matplotlib() -> None:
    """Raises CaitError if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise CaitError("matplotlib is needed for the picture: pip install matplotlib") from error


@contextlib.contextmanager
def picture(path: str | os.PathLike, width: float, height: float, dpi: int = 120) -> Iterator:
    """Yields a matplotlib figure of width x height inches; what was drawn becomes the PNG file `path`.

    Args:
        path: of the file.
        width, height: in inches.
        dpi: pixels an inch.

    Raises:
        CaitError: matplotlib is not installed.
    """
    check_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    families = ["DejaVu Sans", *_chinese_fonts()[:1]]
    with matplotlib.rc_context({"font.family": families}), _missing_characters_in_one_line():
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=dpi)


def _chinese_fonts() -> list[str]:
    """Those of CHINESE_FONTS that are installed, in their order.

    matplotlib keeps the list of fonts that it once found. Fonts that were installed since are added to it here.
    """
    from matplotlib.font_manager import fontManager

    def listed() -> list[str]:
        names = {font.name for font in fontManager.ttflist if os.path.isfile(font.fname)}
        return [name for name in CHINESE_FONTS if name in names]

    if not listed():
        _add_new_fonts()
    return listed()


@functools.cache  # looking once in a process is enough
def _add_new_fonts() -> None:
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {os.path.realpath(font.fname) for font in fontManager.ttflist}
    for path in sorted(findSystemFonts()):
        if os.path.realpath(path) not in known:
            with contextlib.suppress(OSError, RuntimeError, ValueError):  # a font that it cannot read is none of ours
                fontManager.addfont(path)


@contextlib.contextmanager
def _missing_characters_in_one_line() -> Iterator[None]:
    """Says once, in place of a warning for each character, that no font has them: a box is shown for each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing = []
    for warning in caught:
        glyph = re.match(r"Glyph (\d+) .*missing", str(warning.message))
        if glyph is None:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        elif chr(int(glyph[1])) not in missing:
            missing.append(chr(int(glyph[1])))
    if missing:
        _say_missing("".join(missing[:8]) + ("..." if len(missing) > 8 else ""))


@functools.cache  # a run draws the same names again and again
def _say_missing(characters: str) -> None:
    logging.getLogger("cait").warning(
        "the picture shows boxes for %s: no installed font has these characters; Noto Sans CJK has the Chinese ones "
        "(apt-get install fonts-noto-cjk)",
        characters,
    )


def plain(text: str) -> str:
    """A name as matplotlib shows it: no formula between dollars, and no bytes that are not text."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("$", r"\$")
