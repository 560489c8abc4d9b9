"""Reads an image file as the pixels that an exported model sees, without Paddle, so that small processes can do it."""

import dataclasses
from typing import BinaryIO

import numpy as np
from PIL import Image

from cait.data.decoding import IMAGE_MODES, SCALE, UnreadableImage, in_mode, open_image, reading, upright
from cait.data.transforms import EvalTransform

MAX_PIXELS = 100_000_000  # 10000 x 10000: more is refused before it is decoded


@dataclasses.dataclass(frozen=True)
class PixelReader:
    """An image file -> uint8 [height, width, channels].

    Attributes:
        image_size: (height, width) of the result in pixels.
        crop_pct: share of the resized image that the central crop keeps.
        channels: 1 or 3.
        apply_exif: turn the image as its EXIF orientation says.
        max_pixels: of an image; more is refused before it is decoded.
        deep_grey: as for `in_mode`.
    """

    image_size: tuple[int, int]
    crop_pct: float
    channels: int
    apply_exif: bool
    max_pixels: int = MAX_PIXELS
    deep_grey: str = SCALE

    def __post_init__(self):
        Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit warns first and refuses at twice its number; ours is one

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the result."""
        return (*self.image_size, self.channels)

    def __call__(self, file: str | BinaryIO, name: str) -> np.ndarray:
        """Raises UnreadableImage, calling the file by the name, if it is no image, damaged or too large."""
        with reading(name), open_image(file) as image:
            if image.width * image.height > self.max_pixels:
                size = f"{image.width}x{image.height}"
                raise UnreadableImage(f"{name}: {size} pixels, more than the {self.max_pixels} allowed")
            turned = upright(image) if self.apply_exif else image
            image = in_mode(turned, IMAGE_MODES[self.channels], self.deep_grey)
            return EvalTransform(self.image_size, self.crop_pct)(image)
