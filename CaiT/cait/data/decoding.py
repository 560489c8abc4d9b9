"""Opens image files and decodes them to pixels; no other module opens images.

Everything that reads images goes through it: training, evaluation, prediction, inference, the service, the pictures of
attention, the gate and the checks. So all know the same formats, and a file that any of them cannot decode is an
`UnreadableImage` for all of them, whatever it was that Pillow raised.
"""

import contextlib
import ctypes
import functools
import importlib
import os
import stat
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from cait.errors import CaitError

IMAGE_MODES = {1: "L", 3: "RGB"}  # by number of channels
SCALE, CLIP = "scale", "clip"  # what becomes of grey pixels of more than 8 bits, as DATA.DEEP_GREY says
ORIENTATION = 0x0112  # EXIF tag
ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow's name of each format that is read, and its module. Pillow reads more, but starts other programs for some
# (EPS: Ghostscript), and knows some that hold no photographs. TGA files have no signature, so they are tried last.
_PLUGINS = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "BMP": "BmpImagePlugin",
    "WEBP": "WebPImagePlugin",
    "PPM": "PpmImagePlugin",
    "GIF": "GifImagePlugin",
    "TIFF": "TiffImagePlugin",
    "AVIF": "AvifImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
    "MPO": "MpoImagePlugin",
    "TGA": "TgaImagePlugin",
}
_HEIF = "HEIF"  # known to Pillow where pillow-heif is installed
_NO_SIGNATURE = "TGA"
_SILENT = (OSError, SyntaxError, ValueError)  # whose words are enough without the name of the type


class UnreadableImage(CaitError):
    """An image file that is missing, damaged, too large, or of no format that is read."""


@functools.cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read: those of the list above that this Pillow can open."""
    for module in _PLUGINS.values():
        with contextlib.suppress(ImportError):  # an older Pillow has no AVIF
            importlib.import_module(f"PIL.{module}")
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    # Pillow warns of damage without naming the file; where that costs the image, its error names it.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    _silence_libtiff()
    return tuple(name for name in (*_PLUGINS, _HEIF) if name in Image.OPEN)


def _silence_libtiff() -> None:
    """libtiff itself writes of damage to standard error: 250 MB for a file of 1 MB whose every strip is damaged.

    Pillow raises an error all the same. Where its build does not show libtiff's functions, the messages stay.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(Image.core.__file__)  # and what it is linked with
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            getattr(library, name)(None)


@functools.cache
def suffixes() -> frozenset[str]:
    """Suffixes of the files that are read, in lower case and with the dot."""
    known = {*formats(), "MPO"}  # which Pillow opens as JPEG
    # Pillow asks for every plugin in `registered_extensions`; those of the list are loaded already.
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in known)


def has_image_suffix(name: str) -> bool:
    """Whether a file of this name is taken for an image without a look into it."""
    return os.path.splitext(name)[1].lower() in suffixes()


def open_image(file: str | BinaryIO) -> Image.Image:
    """The image in a file; its pixels are decoded when they are first asked for. To be called within `reading`."""
    if isinstance(file, str):
        check_regular(file)
    return Image.open(file, formats=formats())


def check_regular(path: str | os.PathLike) -> None:
    """Raises ValueError for a pipe, a socket or a device: opening it may wait for ever, and no signal ends that."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is not a regular file")


def identified(path: str) -> bool:
    """Whether the content of a file is that of an image, whatever its name says; False where it cannot be read."""
    try:
        check_regular(path)
        with Image.open(path, formats=[name for name in formats() if name != _NO_SIGNATURE]):
            return True
    except Exception:  # Pillow raises almost anything on a file that is no image
        return False


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Context in which everything that Pillow or a transform raises for a file becomes an UnreadableImage of that name.

    Only what ends the process (KeyboardInterrupt, a signal) passes.
    """
    try:
        yield
    except CaitError:
        raise
    except Exception as error:  # damaged files raise RuntimeError, TypeError, MemoryError, struct.error and others
        raise UnreadableImage(unreadable(name, error)) from error


def unreadable(name: str, error: Exception) -> str:
    """The sentence on an image that cannot be read."""
    words = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, FileNotFoundError):
        reason = "no such file"
    elif isinstance(error, MemoryError):
        reason = "there is not enough memory for it"
    elif isinstance(error, UnidentifiedImageError):  # which knows an open file by its address in memory
        reason = "cannot identify image file"
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    elif isinstance(error, _SILENT) and words:
        reason = words
    else:
        reason = type(error).__name__ + (f": {words}" if words else "")
    return f"{name}: the image cannot be read ({reason})"


def is_scaled(image: Image.Image, deep_grey: str) -> bool:
    """Whether `in_mode` scales the pixels of an image from 16 bits to 8."""
    return image.mode.startswith("I;16") and deep_grey == SCALE


def in_mode(image: Image.Image, mode: str, deep_grey: str = SCALE) -> Image.Image:
    """Converts an image of any mode to "L" (grey) or "RGB"; only the first frame of an animation is used.

    Args:
        image: as it was opened.
        mode: "L" or "RGB".
        deep_grey: what becomes of grey pixels of more than 8 bits. SCALE: 65535 becomes 255, so that the picture stays
            what it was. CLIP: every value above 255 becomes 255, so that most pictures are white; so do timm and
            torchvision, which leave it to Pillow's `convert`. Of 16 bits in colour, Pillow gives the upper 8 to all.

    Raises:
        ValueError: pixels of 32 bits are to be scaled, and nothing tells their range.
    """
    if is_scaled(image, deep_grey):
        image = Image.fromarray((np.asarray(image).astype("float64") / 257 + 0.5).astype("uint8"))
    elif image.mode in ("I", "F") and deep_grey == SCALE:
        raise ValueError("its pixels have 32 bits; save it with 8 or 16")
    if image.mode == mode and "transparency" not in image.info:
        image.load()  # convert would copy every pixel
        return image
    return image.convert(mode)


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; as it lies where that is missing or the EXIF block is damaged.

    Pillow's `exif_transpose` writes the block anew, and breaks off where another tag of it is damaged.
    """
    try:
        turn = ORIENTATIONS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # of a damaged block Pillow raises almost anything; its picture is good all the same
        return image
    return image if turn is None else image.transpose(turn)
