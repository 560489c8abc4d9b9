"""Models by config and by name."""

import inspect
import logging
import math
import os

import numpy as np
import paddle
from yacs.config import CfgNode

from cait.config.read import make_config, read_yaml
from cait.data.normalize import Normalize
from cait.errors import UsageError
from cait.model import CaiT
from cait.variants import list_models, variants_folder
from cait.weights.input_record import InputRecord, build_record
from cait.weights.layout import infer_arguments, tensor_shapes
from cait.weights.load import load_weights


def variant_config(name: str) -> CfgNode:
    """The config of a published variant.

    Raises:
        UsageError: no such variant.
    """
    if name not in list_models():
        raise UsageError(f"no variant {name!r}; there are {', '.join(list_models())}")
    return make_config(read_yaml(variants_folder() / f"{name}.yaml"))


def model_arguments(config) -> dict:
    """The arguments of `CaiT` that a config holds: all but the image size are keys of MODEL."""
    values = {"image_size": tuple(config.DATA.IMAGE_SIZE)}
    return {name: values.get(name) or config.MODEL[name.upper()] for name in inspect.signature(CaiT).parameters}


def build_model(config) -> CaiT:
    """The CaiT that a config describes, with fresh weights."""
    return _of_arguments(config, model_arguments(config))


def prepare_model(config: CfgNode) -> tuple[CaiT, Normalize]:
    """A model with fresh weights, from SEED, and what makes its input of images."""
    paddle.seed(config.SEED)
    return build_model(config), Normalize(config.DATA.MEAN, config.DATA.STD)


def _of_arguments(config, arguments: dict) -> CaiT:
    """A CaiT that knows mean and standard deviation of its images, where the config has them for as many channels."""
    model = CaiT(**arguments)
    if arguments["in_channels"] == len(config.DATA.MEAN):
        model.pixel_stats = (list(config.DATA.MEAN), list(config.DATA.STD))
    return model


def model_of_yaml(path: str | os.PathLike) -> CaiT:
    """The CaiT that a YAML file describes, with fresh weights."""
    return build_model(make_config(read_yaml(path)))


def create_model(
    name: str, pretrained: str | os.PathLike | None = None, num_classes: int | None = None, **arguments
) -> CaiT:
    """A published variant, with random weights or those of a file.

    Args:
        name: such as `"cait_xxs24_224"`; `list_models()` gives all.
        pretrained: a `.pdparams`, `.safetensors` or `.pth` file, the suffix may be left out; or the folder of a run,
            for its `best_model`. A position embedding of another resolution is resized; everything else must fit the
            model.
        num_classes: width of the head, 1000 if not given. Where it is given and `pretrained` has another class
            count, the head stays random; the logger `cait` says so.
        arguments: any other argument of `CaiT`, in place of the variant's.

    Returns:
        The model, in training mode: call `.eval()` before using it for prediction.

    Raises:
        UsageError: no such variant.
        CaitError: the weights are missing, damaged or of another model.
        ValueError: arguments that do not go together.
    """
    config = variant_config(name)
    values = model_arguments(config)
    if num_classes is not None:
        values["num_classes"] = num_classes
    model = _of_arguments(config, values | arguments)
    if pretrained is not None:
        for note in load_weights(model, pretrained, reset_head=num_classes is not None)[1:]:
            logging.getLogger("cait").warning(note)
    return model


def variant_shapes(config: CfgNode) -> dict[str, tuple[int, ...]]:
    """Name and PyTorch shape of every tensor of the model that a config describes."""
    model, (height, width) = config.MODEL, config.DATA.IMAGE_SIZE
    return tensor_shapes(
        num_patches=(height // model.PATCH_SIZE) * (width // model.PATCH_SIZE),
        patch_size=model.PATCH_SIZE,
        in_channels=model.IN_CHANNELS,
        num_classes=model.NUM_CLASSES,
        embed_dim=model.EMBED_DIM,
        depth=model.DEPTH,
        depth_token_only=model.DEPTH_TOKEN_ONLY,
        num_heads=model.NUM_HEADS,
        mlp_dim=int(model.EMBED_DIM * model.MLP_RATIO),
        mlp_dim_token_only=int(model.EMBED_DIM * model.MLP_RATIO_TOKEN_ONLY),
        qkv_bias=model.QKV_BIAS,
    )


def variant_record(name: str) -> InputRecord:
    """Returns the record that the weights of a published variant would have, had their authors written one.

    Raises:
        UsageError: no such variant.
    """
    return build_record(variant_config(name))


def count_macs(config: CfgNode) -> int:
    """Multiply-accumulate operations for one image: all matrix products, those of the attention included."""
    model, (height, width) = config.MODEL, config.DATA.IMAGE_SIZE
    tokens, dim = (height // model.PATCH_SIZE) * (width // model.PATCH_SIZE), model.EMBED_DIM
    patch_embed = tokens * dim * model.IN_CHANNELS * model.PATCH_SIZE**2
    linear = tokens * dim * (4 * dim + 2 * int(dim * model.MLP_RATIO))  # q, k, v, proj and the MLP
    attention = tokens**2 * (2 * dim + 2 * model.NUM_HEADS**2)  # q k and attention v; the mixing of the heads twice
    keys_values = 2 * (1 + tokens) * dim * (dim + 1)  # k and v of all tokens; q k and attention v of the class token
    class_token = dim * (2 * dim + 2 * int(dim * model.MLP_RATIO_TOKEN_ONLY))  # q, proj and the MLP
    blocks = model.DEPTH * (linear + attention) + model.DEPTH_TOKEN_ONLY * (keys_values + class_token)
    return patch_embed + blocks + dim * model.NUM_CLASSES


def name_of(tensors: dict[str, np.ndarray]) -> str | None:
    """The published variant that tensors in PyTorch's layout have the shapes of, the head included."""
    shapes = {name: value.shape for name, value in tensors.items()}
    return next((name for name in list_models() if shapes == variant_shapes(variant_config(name))), None)


def model_of(tensors: dict[str, np.ndarray], image_size: tuple[int, int] | None = None) -> CaiT:
    """A CaiT of the sizes that tensors in PyTorch's layout have; its weights are random.

    Args:
        tensors: of a checkpoint.
        image_size: (height, width) in pixels; None: the square that the position embedding fits, or, where it fits
            none, one row of patches.
    """
    sizes = infer_arguments({name: value.shape for name, value in tensors.items()})
    patches, patch_size = sizes.pop("num_patches"), sizes["patch_size"]
    side = math.isqrt(patches)
    rows, columns = (side, side) if side**2 == patches else (1, patches)
    # Half a unit more, so that rounding never makes int(width * ratio) one too small.
    ratios = {f"mlp_ratio{end}": (sizes.pop(f"mlp_dim{end}") + 0.5) / sizes["embed_dim"] for end in ("", "_token_only")}
    return CaiT(image_size=image_size or (rows * patch_size, columns * patch_size), **sizes, **ratios)
