"""Converts checkpoint files between PyTorch and Paddle, and shows what a model makes of a fixed image."""

import contextlib
import hashlib
import math
import os
import pathlib

import numpy as np
import paddle

from cait.command.outputs import check_output
from cait.errors import CaitError, UsageError
from cait.files import replacing
from cait.model import CaiT
from cait.variants import list_models
from cait.weights import layout
from cait.weights.files import SAFETENSORS, TORCH, WEIGHTS
from cait.weights.input_record import InputRecord, in_metadata, in_record
from cait.weights.load import read_weights, save_tensors, set_tensors
from cait.zoo import variant_config, variant_shapes

TARGETS = {"paddle": WEIGHTS, "safetensors": SAFETENSORS, "torch": TORCH}


def read_any(path: str | os.PathLike, expected: dict[str, tuple[int, ...]] | None = None) -> dict[str, np.ndarray]:
    """The tensors of a `.pdparams`, `.safetensors` or `.pth` file, checked, in PyTorch's layout as float32.

    Args:
        path: the file.
        expected: name and PyTorch shape of every tensor of the wanted model; None: any CaiT.

    Raises:
        CaitError: the file is missing, damaged or of another model.
    """
    tensors = layout.transpose_linear(read_weights(path))
    layout.check_tensors(tensors, expected, str(path))
    return tensors


def name_of(tensors: dict[str, np.ndarray]) -> str | None:
    """The published variant that tensors in PyTorch's layout have the shapes of, the head included."""
    shapes = {name: value.shape for name, value in tensors.items()}
    return next((name for name in list_models() if shapes == variant_shapes(variant_config(name))), None)


def check_target(path: pathlib.Path, suffix: str, force: bool) -> None:
    """Whether `write_any` may write there.

    Raises:
        UsageError: it has another suffix, is there and `force` is not set, or is no checkpoint that could be replaced.
    """
    if path.suffix != suffix:
        raise UsageError(f"{path}: must end in {suffix}, as --to says")
    if path.exists() and not force:
        raise UsageError(f"{path}: is there already; --force replaces it")
    check_output(path)


def write_any(
    tensors: dict[str, np.ndarray], path: pathlib.Path, force: bool = False, record: InputRecord | None = None
) -> None:
    """Writes tensors in PyTorch's layout as the kind of file that the suffix of `path` names, whole or not at all.

    Args:
        tensors: by name.
        path: of the file.
        force: replace a checkpoint that is there.
        record: of the file that the tensors are from; a `.pth` file has no place for it.

    Raises:
        UsageError: the file is there and `force` is not set, or torch is needed and not installed.
    """
    check_target(path, path.suffix, force)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == WEIGHTS:
        content = {name: paddle.to_tensor(value) for name, value in layout.transpose_linear(tensors).items()}
        save_tensors(content, [path], in_record(record))
    elif path.suffix == SAFETENSORS:
        from safetensors.numpy import save

        with replacing(path) as temporary:
            temporary.write_bytes(save(tensors, metadata={"format": "pt"} | in_metadata(record)))
    else:
        try:
            import torch
        except ImportError as error:
            raise UsageError("--to torch needs torch, which is not installed; --to safetensors does not") from error
        with replacing(path) as temporary:
            torch.save({"model": {name: torch.from_numpy(value) for name, value in tensors.items()}}, temporary)


@contextlib.contextmanager
def default_dtype(dtype: str):
    """Makes float64 or float32 Paddle's default type within the block."""
    before = paddle.get_default_dtype()
    paddle.set_default_dtype(dtype)
    try:
        yield
    finally:
        paddle.set_default_dtype(before)


def fixed_image(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A fixed normalised image [1, channels, height, width], float64: standard normal values of seed 0."""
    return np.random.default_rng(0).standard_normal((1, channels, height, width))


def model_of(tensors: dict[str, np.ndarray], image_size: tuple[int, int] | None = None) -> CaiT:
    """A CaiT of the sizes that tensors in PyTorch's layout have; its weights are random.

    Args:
        tensors: of a checkpoint.
        image_size: (height, width) in pixels; None: the square that the position embedding fits, or, where it fits
            none, one row of patches.
    """
    sizes = layout.infer_arguments({name: value.shape for name, value in tensors.items()})
    patches, patch_size = sizes.pop("num_patches"), sizes["patch_size"]
    side = math.isqrt(patches)
    rows, columns = (side, side) if side**2 == patches else (1, patches)
    # Half a unit more, so that rounding never makes int(width * ratio) one too small.
    ratios = {f"mlp_ratio{end}": (sizes.pop(f"mlp_dim{end}") + 0.5) / sizes["embed_dim"] for end in ("", "_token_only")}
    return CaiT(image_size=image_size or (rows * patch_size, columns * patch_size), **sizes, **ratios)


def logits_digest(tensors: dict[str, np.ndarray], record: InputRecord | None = None) -> str:
    """What a model with tensors in PyTorch's layout answers to `fixed_image`, of the size that the record says.

    Computed in float64 and rounded to 6 decimals, so that the SHA-256 is the same on every machine.

    Raises:
        CaitError: the logits are not finite.
    """
    with default_dtype("float64"), paddle.no_grad():
        model = model_of(tensors, record and record.image_size)
        set_tensors(model, layout.swap_layout(tensors))
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
