"""From a decoded image to the pixels that the model sees: the one home of the preprocessing. It needs no Paddle.

Up to the batch, images are uint8 [height, width, channels]; `cait.data.normalize` turns a batch into the model's input
on the device. Training and evaluation both resize with Pillow's antialiased bicubic, as the published accuracies do.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from cait.data.pixels import resize

MAX_RESIZED_PIXELS = 100_000_000  # a strip of 1 x 100000 pixels would be resized to gigabytes


def _as_array(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array if array.ndim == 3 else array[:, :, None]


@dataclasses.dataclass(frozen=True)
class EvalTransform:
    """Resize the short side to floor(size / crop_pct), then crop the centre (timm `transforms_imagenet_eval`).

    Image -> uint8 [height, width, channels]. For a size that is not square the image is scaled until it covers
    (height, width) / crop_pct.

    Raises:
        ValueError: the image is so narrow that resizing it would take gigabytes.

    Attributes:
        size: (height, width) of the output in pixels.
        crop_pct: share of the resized side that the crop keeps.
    """

    size: tuple[int, int]
    crop_pct: float = 1.0

    def __call__(self, image: Image.Image, rng: np.random.Generator | None = None) -> np.ndarray:
        resized = self._resized(image.size)
        if resized[0] * resized[1] > MAX_RESIZED_PIXELS:
            raise ValueError(f"its sides of {image.width} and {image.height} pixels differ too much to be resized")
        height, width = self.size
        # Python's round, half to even, as torchvision's center_crop.
        left = int(round((resized[0] - width) / 2.0))
        top = int(round((resized[1] - height) / 2.0))
        return resize(image, resized, (left, top, left + width, top + height))

    def _resized(self, image_size: tuple[int, int]) -> tuple[int, int]:
        width, height = image_size
        target_height, target_width = (math.floor(side / self.crop_pct) for side in self.size)
        if target_height == target_width:  # torchvision's Resize(int)
            if width <= height:
                return target_width, int(target_width * height / width)
            return int(target_height * width / height), target_height
        scale = max(target_height / height, target_width / width)  # timm's ResizeKeepRatio
        return round(width * scale), round(height * scale)


@dataclasses.dataclass(frozen=True)
class TrainTransform:
    """Random resized crop and horizontal flip (torchvision `RandomResizedCrop`), then further random steps.

    Image -> uint8 [height, width, channels].

    Attributes:
        size: (height, width) of the output in pixels.
        crop_scale: share of the image's area that the crop takes, from and to.
        crop_ratio: width / height of the crop, from and to, drawn uniformly in its logarithm.
        hflip: probability of the flip.
        steps: (image, random generator) -> image of the same size, one after the other (`cait.data.augment`).
    """

    size: tuple[int, int]
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    hflip: float = 0.5
    steps: tuple[Callable[[Image.Image, np.random.Generator], Image.Image], ...] = ()

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        box = self._crop_box(image.size, rng)
        return self._after_crop(lambda size, flip: resize(image.crop(box), size, flip=flip), rng)

    def _after_crop(
        self, resized: Callable[[tuple[int, int], bool], np.ndarray], rng: np.random.Generator
    ) -> np.ndarray:
        """`resized((width, height), flip)` gives the crop resized, and mirrored if so drawn; then come the steps."""
        array = resized(self.size[::-1], bool(rng.random() < self.hflip))
        if not self.steps:
            return array
        image = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])
        for step in self.steps:
            image = step(image, rng)
        return _as_array(image)

    def _crop_box(self, image_size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
        width, height = image_size
        low, high = self.crop_ratio
        for _ in range(10):
            area = width * height * rng.uniform(*self.crop_scale)
            ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
            crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                left = int(rng.integers(0, width - crop_width + 1))
                top = int(rng.integers(0, height - crop_height + 1))
                return left, top, left + crop_width, top + crop_height
        # No crop of that shape fits: the largest central one of an allowed ratio.
        ratio = min(max(width / height, low), high)
        crop_width = min(width, max(1, round(height * ratio)))
        crop_height = min(height, max(1, round(width / ratio)))
        left, top = (width - crop_width) // 2, (height - crop_height) // 2
        return left, top, left + crop_width, top + crop_height


def normalisation(mean: list[float], std: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """(scale, shift) in float64, such that pixel * scale + shift = (pixel / 255 - mean) / std."""
    means, deviations = np.asarray(mean, "float64"), np.asarray(std, "float64")
    return 1.0 / (255.0 * deviations), -means / deviations
