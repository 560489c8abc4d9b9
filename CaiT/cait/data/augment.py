"""Random changes of the training images beyond crop and flip, each drawn from the image's own random generator.

RandAugment (Cubuk et al. 2019) in timm's notation and with timm's operations of increasing severity, the three
operations of DeiT III (Touvron et al. 2022), colour jitter (torchvision `ColorJitter` without the hue) and random
erasing (Zhong et al. 2017, timm `RandomErasing`). All work on RGB and on grey images.
"""

import dataclasses
import math
import re
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from cait.data.pixels import transform
from cait.errors import UsageError

FULL_SEVERITY = 10.0  # the magnitude at which every operation reaches the end of its range
THREE_AUGMENT = "three-augment"
Fill = tuple[int, ...]
Augmentation = Callable[[Image.Image, np.random.Generator], Image.Image]


def _table(image: Image.Image, values: list[int]) -> Image.Image:
    return image.point(values * len(image.getbands()))


def _rotate(image: Image.Image, degrees: float, fill: Fill) -> Image.Image:
    """`Image.rotate` with the bicubic filter; about the centre, which its matrix leaves where it is."""
    degrees %= 360.0
    if degrees % 90 == 0:  # of a square image no pixel is changed
        colour = fill if image.mode == "RGB" else fill[0]
        return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=colour)
    angle, x, y = -math.radians(degrees), image.width / 2, image.height / 2
    cos, sin, other = (round(value, 15) for value in (math.cos(angle), math.sin(angle), -math.sin(angle)))
    return transform(image, (cos, sin, cos * -x + sin * -y + x, other, cos, other * -x + cos * -y + y), fill)


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    # Not by ImageOps.posterize: recent Pillow refuses to keep 0 bits, which magnitude 10 asks for.
    mask = 0xFF & ~(0xFF >> bits)
    return _table(image, [value & mask for value in range(256)])


def _solarize_add(image: Image.Image, added: int) -> Image.Image:
    return _table(image, [min(255, value + added) if value < 128 else value for value in range(256)])


def _enhance(enhancer, image: Image.Image, level: float) -> Image.Image:
    return enhancer(image).enhance(max(0.1, 1.0 + level * 0.9))


# (image, level, fill colour) -> image. The level is the severity in 0-1, above only where `mmax` allows it, with a
# random sign, which those operations heed that have two directions.
OPERATIONS: dict[str, Callable[[Image.Image, float, Fill], Image.Image]] = {
    "AutoContrast": lambda image, level, fill: ImageOps.autocontrast(image),
    "Equalize": lambda image, level, fill: ImageOps.equalize(image),
    "Invert": lambda image, level, fill: ImageOps.invert(image),
    "Rotate": lambda image, level, fill: _rotate(image, level * 30.0, fill),
    "PosterizeIncreasing": lambda image, level, fill: _posterize(image, max(0, 4 - int(abs(level) * 4))),
    "SolarizeIncreasing": lambda image, level, fill: ImageOps.solarize(image, 256 - min(256, int(abs(level) * 256))),
    "SolarizeAdd": lambda image, level, fill: _solarize_add(image, min(128, int(abs(level) * 110))),
    "ColorIncreasing": lambda image, level, fill: _enhance(ImageEnhance.Color, image, level),
    "ContrastIncreasing": lambda image, level, fill: _enhance(ImageEnhance.Contrast, image, level),
    "BrightnessIncreasing": lambda image, level, fill: _enhance(ImageEnhance.Brightness, image, level),
    "SharpnessIncreasing": lambda image, level, fill: _enhance(ImageEnhance.Sharpness, image, level),
    "ShearX": lambda image, level, fill: transform(image, (1, level * 0.3, 0, 0, 1, 0), fill),
    "ShearY": lambda image, level, fill: transform(image, (1, 0, 0, level * 0.3, 1, 0), fill),
    "TranslateXRel": lambda image, level, fill: transform(image, (1, 0, level * 0.45 * image.width, 0, 1, 0), fill),
    "TranslateYRel": lambda image, level, fill: transform(image, (1, 0, 0, 0, 1, level * 0.45 * image.height), fill),
}


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Some random operations of increasing severity. (image, generator) -> image of the same size and mode.

    Attributes:
        magnitude: mean severity; 10 is the end of an operation's range.
        num_ops: operations drawn for an image, with replacement.
        prob: probability that a drawn operation is applied.
        magnitude_std: spread of the normal distribution of the severity; infinite: uniform from 0 to `magnitude`.
        max_magnitude: severities are cut off there.
        fill: colour of the pixels that geometric operations uncover, a value for each channel.
    """

    magnitude: float = FULL_SEVERITY
    num_ops: int = 2
    prob: float = 0.5
    magnitude_std: float = 0.0
    max_magnitude: float = FULL_SEVERITY
    fill: Fill = (128, 128, 128)

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        names = list(OPERATIONS)
        for choice in rng.integers(len(names), size=self.num_ops):
            if rng.random() < self.prob:
                level = self._magnitude(rng) / FULL_SEVERITY
                image = OPERATIONS[names[choice]](image, level if rng.random() < 0.5 else -level, self.fill)
        return image

    def _magnitude(self, rng: np.random.Generator) -> float:
        if math.isinf(self.magnitude_std):
            magnitude = rng.uniform(0, self.magnitude)
        else:
            magnitude = rng.normal(self.magnitude, self.magnitude_std)
        return min(max(magnitude, 0.0), self.max_magnitude)


def parse_rand_augment(text: str, fill: Fill) -> RandAugment:
    """RandAugment from timm's notation, such as `rand-m9-mstd0.5-inc1`.

    After `rand` come, in any order: `m` magnitude, `n` operations an image, `p` probability of each, `mstd` spread of
    the magnitude (above 100: uniform up to `m`), `mmax` largest magnitude, and `inc1`, without which timm would use
    operations some of which get weaker with the magnitude; they are not part of this project.

    Raises:
        UsageError: another notation.
    """
    wrong = f"AUG.AUTO_AUGMENT {text!r}"
    head, *sections = text.split("-")
    if head != "rand":
        raise UsageError(f"{wrong}: must be empty, {THREE_AUGMENT}, or of a form as rand-m9-mstd0.5-inc1")
    values: dict[str, float] = {}
    for section in sections:
        match = re.fullmatch(r"(mstd|mmax|inc|m|n|p)(\d+(?:\.\d+)?|(?<=mstd)inf)", section)
        if not match or match[1] in values:
            raise UsageError(f"{wrong}: {section!r} is not one of m, n, p, mstd, mmax, inc with a number, each once")
        values[match[1]] = float(match[2])
    if values.get("inc") != 1:
        raise UsageError(f"{wrong}: only the operations of increasing severity are there; add -inc1")
    num_ops, std = values.get("n", 2.0), values.get("mstd", 0.0)
    if num_ops != int(num_ops) or values.get("p", 0.5) > 1:
        raise UsageError(f"{wrong}: n must be a whole number and p a probability")
    return RandAugment(
        magnitude=values.get("m", FULL_SEVERITY),
        num_ops=int(num_ops),
        prob=values.get("p", 0.5),
        magnitude_std=math.inf if std > 100 else std,
        max_magnitude=values.get("mmax", 0.0) or FULL_SEVERITY,
        fill=fill,
    )


def three_augment(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One of three, equally likely: grey, solarised, or blurred with a radius of 0.1 to 2 pixels (DeiT III)."""
    choice = rng.integers(3)
    if choice == 0:
        return ImageOps.grayscale(image).convert(image.mode)
    if choice == 1:
        return ImageOps.solarize(image)
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0)))


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast and saturation times a factor within 1 - strength and 1 + strength, in random order."""

    strength: float

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for choice in rng.permutation(len(enhancers)):
            factor = rng.uniform(max(0.0, 1.0 - self.strength), 1.0 + self.strength)
            image = enhancers[choice](image).enhance(factor)
        return image


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Rectangles of noise: (height, width, channels), generator -> (places int64 [K], values float32 [K, channels]).

    The values replace pixels of the normalised image, which exists on the device only: so they are drawn here, where
    the image's random generator is, and put in their places there (`normalize.Normalize`).

    Attributes:
        prob: probability that an image loses anything.
        mode: `pixel`: normal noise in every pixel; `rand`: one normal colour a rectangle; `const`: zero, the mean.
        max_count: an image loses 1 to so many rectangles, which share the area.
        area: share of the image's area, from and to.
        ratio: height / width of a rectangle, from and to, drawn uniformly in its logarithm.
    """

    prob: float
    mode: str = "pixel"
    max_count: int = 1
    area: tuple[float, float] = (0.02, 1 / 3)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)

    def __call__(self, shape: tuple[int, int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if rng.random() >= self.prob:
            return np.zeros(0, "int64"), np.zeros((0, shape[2]), "float32")
        erased = np.zeros(shape[:2], bool)
        values = np.zeros(shape, "float32")
        count = int(rng.integers(1, self.max_count + 1))
        for _ in range(count):
            top, left, height, width = self._box(shape, count, rng)
            box = slice(top, top + height), slice(left, left + width)
            erased[box] = True
            values[box] = self._colours((height, width, shape[2]), rng)
        return np.flatnonzero(erased), values[erased]

    def _box(self, shape: tuple[int, int, int], count: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height, width; of no size where ten tries did not fit into the image."""
        low, high = (math.log(end) for end in self.ratio)
        for _ in range(10):
            area = rng.uniform(*self.area) * shape[0] * shape[1] / count
            ratio = math.exp(rng.uniform(low, high))
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if height < shape[0] and width < shape[1]:
                top = int(rng.integers(0, shape[0] - height + 1))
                left = int(rng.integers(0, shape[1] - width + 1))
                return top, left, height, width
        return 0, 0, 0, 0

    def _colours(self, size: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
        if self.mode == "pixel":
            return rng.standard_normal(size, "float32")
        if self.mode == "rand":
            return np.broadcast_to(rng.standard_normal(size[2], "float32"), size)
        return np.zeros(size, "float32")
