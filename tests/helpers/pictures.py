"""Images for tests, as files and as bytes."""

import io

import numpy as np
from PIL import Image

from cait.data.loader import ImageLoader
from cait.data.sampler import EpochBatchSampler
from cait.data.sources import FileSource


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


def loader_of(dataset, batch_size, shuffle=False, num_workers=0, skip_bad_images=False, repeats=1):
    """A loader in one process, seeded by 0."""
    sampler = EpochBatchSampler(len(dataset), batch_size, shuffle, 0, repeats)
    return ImageLoader(dataset, sampler, num_workers, skip_bad_images)
