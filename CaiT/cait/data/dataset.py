"""The data set that a loader reads: an image becomes the pixels that the model sees, or the reason why it cannot."""

from collections.abc import Callable

import numpy as np
import paddle

from cait.data.augment import RandomErasing
from cait.data.decoding import IMAGE_MODES, SCALE, UnreadableImage, in_mode, is_scaled, reading
from cait.data.fast import FastTrainTransform
from cait.data.sources import Source


def error_of(source: Source, index: int, mode: str, deep_grey: str = SCALE) -> str:
    """Why an image cannot be decoded as "L" or "RGB" (`in_mode`); empty if it can."""
    try:
        with reading(source.names[index]), source.open(index) as image:
            in_mode(image, mode, deep_grey)
    except UnreadableImage as error:
        return str(error)
    return ""


class ImageDataset(paddle.io.Dataset):
    """(epoch, index[, repeat]) -> (uint8 [height, width, C] or None, label, index, error text or ""[, erased]).

    Random choices are drawn from (seed, epoch, index, repeat) and from nothing else, so they do not depend on which
    worker reads the image. An image that cannot be read gives None and the reason, for the loader to judge.

    Args:
        source: where the images are.
        transform: (image, random generator) -> uint8 array.
        channels: 3 reads as RGB, 1 as grey.
        seed: of the random choices.
        erasing: what it makes of (shape, random generator), after the transform, is the last item of a sample.
        deep_grey: as for `in_mode`.

    Attributes:
        num_scaled: images that this process read and scaled from 16 bits to 8, as `is_scaled` says.
    """

    def __init__(
        self,
        source: Source,
        transform: Callable,
        channels: int,
        seed: int,
        erasing: RandomErasing | None = None,
        deep_grey: str = SCALE,
    ):
        super().__init__()
        self.source = source
        self.transform = transform
        self.mode = IMAGE_MODES[channels]
        self.seed = seed
        self.erasing = erasing
        self.deep_grey = deep_grey
        self.num_scaled = 0

    def __len__(self) -> int:
        return len(self.source.names)

    def __getitem__(self, key: tuple[int, ...]):
        index = key[1]
        label = self.source.labels[index]
        try:
            with reading(self.source.names[index]):
                array, rng = self._pixels(key)
        except UnreadableImage as error:
            return None, label, index, str(error)
        erased = () if self.erasing is None else (self.erasing(array.shape, rng),)
        return array, label, index, "", *erased

    def _pixels(self, key: tuple[int, ...]) -> tuple[np.ndarray, np.random.Generator]:
        """What the transform makes of an image, and the generator as it left it."""
        index = key[1]
        if isinstance(self.transform, FastTrainTransform) and (data := self.source.encoded(index)) is not None:
            rng = self._generator(key)
            array = self.transform.of_jpeg(data, rng, self.mode)
            if array is not None:
                return array, rng
        rng = self._generator(key)
        with self.source.open(index) as image:
            self.num_scaled += is_scaled(image, self.deep_grey)
            image = in_mode(image, self.mode, self.deep_grey)  # ImageNet has CMYK, grey and palette files
        return self.transform(image, rng), rng

    def _generator(self, key: tuple[int, ...]) -> np.random.Generator:
        return np.random.default_rng((self.seed, *key))  # a repeat of 0 draws what its absence does
