"""Training images at more than twice the speed, with other pixels: simplejpeg decodes JPEG files.

Against Pillow the chroma of a file is repeated rather than interpolated, its cosines are computed less exactly, and it
is decoded at a half, quarter or eighth where that leaves twice the size that is needed. All that follows is the same.
"""

import dataclasses
import math

import numpy as np

from cait.data import pixels
from cait.data.transforms import TrainTransform
from cait.errors import UsageError

JPEG_MAGIC = b"\xff\xd8\xff"
DECODED = {"YCbCr", "RGB", "Gray"}  # others, such as CMYK, are Pillow's
SCALES = (8, 4, 2)
AS_DECODED = {"RGB": "RGBX", "L": "GRAY"}  # as `pixels.resize_array` takes them


def prepare_fast_reader() -> None:
    """Makes ready for DATA.READER=fast, before reading processes are started; UsageError if it is not installed."""
    try:
        import simplejpeg  # noqa: F401
    except ImportError as error:
        raise UsageError("DATA.READER=fast: pip install -r requirements-fast.txt, which is not installed") from error


@dataclasses.dataclass(frozen=True)
class FastTrainTransform(TrainTransform):
    """`TrainTransform` that can decode as well: of JPEG files the same crops and flips, and other pixels."""

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
            # At twice the size that is needed, or more, the filter of the resizing decides about the pixels.
            scale = next((scale for scale in SCALES if fit >= 2 * scale), 1)
            least = (
                {"min_height": math.ceil(height / scale), "min_width": math.ceil(width / scale)} if scale > 1 else {}
            )
            decoded = simplejpeg.decode_jpeg(data, AS_DECODED[mode], fastdct=True, fastupsample=True, **least)
        except Exception:  # damaged, or such as Pillow can read all the same; if it cannot, it says why
            return None
        if scale > 1:
            ratios = decoded.shape[1] / width, decoded.shape[0] / height
            box = tuple(round(side * ratios[number % 2]) for number, side in enumerate(box))
        left, top, right, bottom = box
        crop = np.ascontiguousarray(decoded[top:bottom, left:right])
        return self._after_crop(lambda size, flip: pixels.resize_decoded(crop, size, flip), rng)
