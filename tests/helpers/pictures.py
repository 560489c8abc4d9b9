"""Images for tests, as files and as bytes."""

import io

import numpy as np
from PIL import Image

from cait.data.dataset import FileSource


def noise_images(folder, count, mode="RGB"):
    names = []
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 30, 3), dtype="uint8")
        names.append(str(folder / f"{index}.png"))
        Image.fromarray(pixels).convert(mode).save(names[-1])
    return FileSource(names, list(range(count)))


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(folder / name, "PNG")


def picture(value, size=(8, 8), kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0]), value, "uint8")).save(file, kind)
    return file.getvalue()


DARK, BRIGHT = ("dark.png", picture(0)), ("bright.png", picture(255))
