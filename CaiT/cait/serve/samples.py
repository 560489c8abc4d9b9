"""The sample images that the page offers."""

import dataclasses
import io
import os
import pathlib

from PIL import Image

from cait.data.decoding import open_image, reading
from cait.data.image_files import spread
from cait.deploy.classify import Reader, find_images

MAX_SAMPLES = 10


@dataclasses.dataclass(frozen=True)
class Sample:
    """An image file: its name, its media type such as "image/png", and its bytes."""

    name: str
    media_type: str
    data: bytes


def read_samples(path: str | os.PathLike, read: Reader) -> tuple[Sample, ...]:
    """The images that a file, a folder, a pattern or a list names; of many, `MAX_SAMPLES` at equal distances.

    Args:
        path: as `find_images` takes it.
        read: what will decode them when a visitor chooses them.

    Raises:
        CaitError: nothing is there, or one of them cannot be read.
    """
    return tuple(_sample(name, read) for name in spread(find_images(os.fspath(path)), MAX_SAMPLES))


def _sample(path: str, read: Reader) -> Sample:
    with reading(path):
        data = pathlib.Path(path).read_bytes()
        read.read(io.BytesIO(data), path)
        with open_image(io.BytesIO(data)) as image:
            return Sample(pathlib.Path(path).name, Image.MIME[image.format or ""], data)
