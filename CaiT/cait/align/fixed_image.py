"""What a model makes of a fixed image: the same line on every machine, if it has the same weights."""

import hashlib

import numpy as np
import paddle

from cait.errors import CaitError
from cait.precision import default_dtype
from cait.weights.input_record import InputRecord
from cait.weights.layout import swap_layout
from cait.weights.load import set_tensors
from cait.zoo import model_of


def fixed_image(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A fixed normalised image [1, channels, height, width], float64: standard normal values of seed 0."""
    return np.random.default_rng(0).standard_normal((1, channels, height, width))


def logits_digest(tensors: dict[str, np.ndarray], record: InputRecord | None = None) -> str:
    """Describes the logits of a model with these tensors, in PyTorch's layout, for `fixed_image`.

    Computed in float64 and rounded to 6 decimals, so that the SHA-256 is the same on every machine.

    Raises:
        CaitError: the logits are not finite.
    """
    with default_dtype("float64"), paddle.no_grad():
        model = model_of(tensors, None if record is None else record.image_size)
        set_tensors(model, swap_layout(tensors))
        model.eval()
        image = fixed_image(*model.image_size, tensors["patch_embed.proj.weight"].shape[1])
        logits = model(paddle.to_tensor(image)).numpy()[0]
    if not np.isfinite(logits).all():
        raise CaitError("the logits of the fixed image are not finite")
    digest = hashlib.sha256((np.round(logits, 6) + 0.0).astype("<f8").tobytes()).hexdigest()  # + 0.0: no negative zero
    return (
        f"logits of the fixed image: sha256 {digest[:16]}, class {int(logits.argmax())}, "
        f"mean {logits.mean():.6f}, standard deviation {logits.std():.6f}"
    )
