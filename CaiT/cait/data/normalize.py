"""From a batch of pixels to the model's input, on the device."""

from typing import NamedTuple

import paddle

from cait.data.transforms import normalisation


class Erased(NamedTuple):
    """Pixels of a batch that take other values: `places` int64 [K] in [B * height * width], `values` float [K, C]."""

    places: paddle.Tensor
    values: paddle.Tensor


class Normalize:
    """uint8 [B, height, width, C] -> (x / 255 - mean) / std as float [B, C, height, width], on the batch's device.

    Erased pixels get their values after that, for the noise of random erasing is normal in the normalised image.

    Args:
        mean: mean of each channel, for pixels in 0-1.
        std: standard deviation of each channel.
        dtype: of the output.
    """

    def __init__(self, mean: list[float], std: list[float], dtype: str = "float32"):
        self.scale, self.shift = (paddle.to_tensor(value, dtype=dtype) for value in normalisation(mean, std))

    def __call__(self, images: paddle.Tensor, erased: Erased | None = None) -> paddle.Tensor:
        x = images.astype(self.scale.dtype) * self.scale + self.shift
        if erased is not None:
            pixels = paddle.scatter(x.reshape([-1, x.shape[3]]), erased.places, erased.values.astype(x.dtype))
            x = pixels.reshape(x.shape)
        return x.transpose([0, 3, 1, 2])
