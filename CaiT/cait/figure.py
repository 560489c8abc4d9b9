"""Pictures by matplotlib, which is optional: made without a display, written whole or not at all."""

import contextlib
import os
import warnings
from collections.abc import Iterator

from cait.errors import CaitError
from cait.files import replacing

# matplotlib's own font has no Chinese; the first of these that is installed lends its characters.
CHINESE_FONTS = (
    "Noto Sans CJK SC",
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
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    families = ["DejaVu Sans", *[name for name in CHINESE_FONTS if name in installed][:1]]
    with matplotlib.rc_context({"font.family": families}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box is shown for it
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=dpi)


def plain(text: str) -> str:
    """A name as matplotlib shows it: no formula between dollars, and no bytes that are not text."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("$", r"\$")
