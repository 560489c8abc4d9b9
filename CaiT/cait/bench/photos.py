"""JPEG files to measure with: 500 x 375 pixels of about 50 kB, as ImageNet's are, from two real photographs."""

import io

import numpy as np
from PIL import Image

from cait.errors import CaitError

SIZE = (500, 375)  # width, height
WANTED_BYTES = 50_000
QUALITIES = range(60, 98, 2)


def photos(count: int, size: tuple[int, int] = SIZE, num_bytes: int = WANTED_BYTES, seed: int = 0) -> list[bytes]:
    """So many JPEG files, each another part of scikit-learn's sample photographs (a temple, a flower), some mirrored.

    Args:
        size: width and height in pixels.
        num_bytes: a file has about so many: it gets the quality that comes nearest from below, at least 60.
        seed: of the choice of the parts.

    Raises:
        CaitError: scikit-learn, which has the photographs, is not installed.
    """
    try:
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise CaitError("scikit-learn has the photographs to measure with: pip install scikit-learn") from error
    sources = [Image.fromarray(array) for array in load_sample_images().images]
    rng = np.random.default_rng(seed)
    files = []
    for number in range(count):
        source = sources[number % len(sources)]
        largest = min(source.width / size[0], source.height / size[1])
        width, height = (int(side * rng.uniform(0.8, 1.0) * largest) for side in size)
        left, top = int(rng.integers(source.width - width + 1)), int(rng.integers(source.height - height + 1))
        part = source.resize(size, Image.Resampling.LANCZOS, (left, top, left + width, top + height))
        if rng.random() < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        files.append(_of_bytes(part, num_bytes))
    return files


def _of_bytes(image: Image.Image, num_bytes: int) -> bytes:
    best = b""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=quality)
        if best and buffer.tell() > num_bytes:
            break
        best = buffer.getvalue()
    return best
