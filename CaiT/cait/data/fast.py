"""Training images at more than twice the speed, with other pixels: simplejpeg decodes, OpenCV resizes.

Against Pillow the chroma of a JPEG file is repeated rather than interpolated, a file is decoded at a half, quarter or
eighth where the crop allows it, and resizing is bilinear without antialiasing, at a scale below two.
"""

import dataclasses
import math

import numpy as np
from PIL import Image

from cait.data.transforms import TrainTransform
from cait.errors import UsageError

JPEG_MAGIC = b"\xff\xd8\xff"
DECODED = {"YCbCr", "RGB", "Gray"}  # others, such as CMYK, are Pillow's
SCALES = (8, 4, 2)


def prepare_fast_reader() -> None:
    """Makes ready for DATA.READER=fast, before reading processes are started; UsageError if it is not installed."""
    try:
        import cv2
        import simplejpeg  # noqa: F401
    except ImportError as error:
        raise UsageError("DATA.READER=fast: pip install -r requirements-fast.txt, which is not installed") from error
    cv2.setNumThreads(1)  # the reading processes share the cores as it is


@dataclasses.dataclass(frozen=True)
class FastTrainTransform(TrainTransform):
    """`TrainTransform` by OpenCV: the same crops and flips of the same generator, other pixels."""

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        return self._finish(np.asarray(image), self._crop_box(image.size, rng), rng)

    def of_jpeg(self, data: bytes, rng: np.random.Generator, mode: str) -> np.ndarray | None:
        """The same of a JPEG file's bytes, as "RGB" or "L"; None, with `rng` used or not, if Pillow must read them."""
        import simplejpeg

        if not data.startswith(JPEG_MAGIC):
            return None
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if colours not in DECODED:
                return None
            box = self._crop_box((width, height), rng)
            fit = min((box[2] - box[0]) / self.size[1], (box[3] - box[1]) / self.size[0])
            scale = next((scale for scale in SCALES if fit >= scale), 1)
            least = (
                {"min_height": math.ceil(height / scale), "min_width": math.ceil(width / scale)} if scale > 1 else {}
            )
            pixels = simplejpeg.decode_jpeg(data, "RGB" if mode == "RGB" else "GRAY", fastupsample=True, **least)
        except ValueError:  # damaged, or such as Pillow can read all the same
            return None
        if scale > 1:
            ratios = pixels.shape[1] / width, pixels.shape[0] / height
            box = tuple(round(side * ratios[number % 2]) for number, side in enumerate(box))
        return self._finish(pixels, box, rng)

    def _finish(self, pixels: np.ndarray, box: tuple[int, int, int, int], rng: np.random.Generator) -> np.ndarray:
        """Crops pixels [height, width(, channels)], resizes, flips, and takes the further steps."""
        import cv2

        left, top, right, bottom = box
        height, width = self.size
        pixels = cv2.resize(pixels[top:bottom, left:right], (width, height), interpolation=cv2.INTER_LINEAR)
        if rng.random() < self.hflip:
            pixels = cv2.flip(pixels, 1)
        if self.steps:
            image = Image.fromarray(pixels.squeeze(2) if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
            for step in self.steps:
                image = step(image, rng)
            pixels = np.asarray(image)
        return pixels if pixels.ndim == 3 else pixels[:, :, None]
