"""Which files are images, and what pixels they become."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from cait.errors import CaitError

IMAGE_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # all that Pillow raises
IMAGE_MODES = {1: "L", 3: "RGB"}  # by number of channels
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
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".gif", ".tif", ".tiff")


def unreadable(name: str, error: Exception) -> str:
    """The sentence on an image that cannot be read."""
    reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
    return f"{name}: the image cannot be read ({reason})"


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image as "L" (grey) or "RGB", whatever it was: CMYK, palette, alpha, 16 bits; of an animation the first.

    Raises:
        ValueError: pixels of 32 bits, whose range nothing tells.
    """
    if image.mode.startswith("I;16"):  # Pillow would cut every value above 255
        image = Image.fromarray((np.asarray(image).astype("float64") / 257 + 0.5).astype("uint8"))
    elif image.mode in ("I", "F"):
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
        turn = ORIENTATIONS.get(image.getexif().get(ORIENTATION))
    except Exception:  # of a damaged block Pillow raises almost anything; its picture is good all the same
        return image
    return image if turn is None else image.transpose(turn)


def spread(paths: Sequence[str], most: int) -> list[str]:
    """At most so many of the paths, at equal distances."""
    count = min(most, len(paths))
    return [paths[index * len(paths) // count] for index in range(count)]


def image_files(folder: pathlib.Path) -> list[str]:
    """All image files below a folder, sorted; links are followed, hidden files and folders passed over.

    Raises:
        CaitError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise CaitError(f"{folder}: no such folder")
    names, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # links that lead in a circle
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in files if name.lower().endswith(IMAGE_EXTENSIONS) and not name.startswith(".")]
        names += [os.path.join(parent, name) for name in images]
    if not names:
        raise CaitError(f"{folder}: holds no images ({', '.join(IMAGE_EXTENSIONS)})")
    return sorted(names)
