"""Which files are images."""

import pathlib

from cait.errors import CaitError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".gif", ".tif", ".tiff")


def image_files(folder: pathlib.Path) -> list[str]:
    """All image files below a folder, sorted.

    Raises:
        CaitError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise CaitError(f"{folder}: no such folder")
    names = sorted(str(p) for p in folder.rglob("*") if p.suffix.lower() in IMAGE_EXTENSIONS and p.is_file())
    if not names:
        raise CaitError(f"{folder}: holds no images ({', '.join(IMAGE_EXTENSIONS)})")
    return names
