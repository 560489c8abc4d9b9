"""Where attention comes from: a checkpoint, run by the model itself, or a bundle, run by Paddle Inference.

Both have `name`, `description` (of the input, as a bundle has it), `grid`, the rows and columns of patches, and give
logits and class attention when called. Only a checkpoint has self-attention, talking heads and LayerScale to show.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import paddle

from cait.config.read import make_config, read_yaml
from cait.data.class_names import shown_classes
from cait.deploy.bundle import Description
from cait.deploy.bundle_schema import CLASS_ATTENTION, LOGITS
from cait.deploy.engine import Engine
from cait.deploy.export import WithClassAttention, build_description
from cait.deploy.predictor import Predictor
from cait.errors import CaitError, UsageError, one_line
from cait.machine.device import has_gpu, select_device
from cait.model import CaiT
from cait.records.monitor import layer_scale
from cait.run_folder import CONFIG, run_folder
from cait.variants import variants_folder
from cait.weights.find import find_weights
from cait.weights.load import load_weights
from cait.zoo import build_model

MAP_BYTES = 1 << 30  # of self-attention held at a time; what needs more is computed in several passes


class BundleAttention:
    """A bundle that was exported with its class attention.

    Args:
        name: in the pictures.
        folder: of the bundle.

    Raises:
        CaitError: it is damaged, or has no class attention.
    """

    def __init__(self, name: str, folder: str | os.PathLike):
        self.name = name
        self._predictor = Predictor(folder, Engine(use_gpu=has_gpu(), precision=None))
        self.description = self._predictor.description
        self.grid = tuple(self.description.grid)
        if CLASS_ATTENTION not in self.description.outputs:
            raise CaitError(f"{folder}: was exported without its attention: export_model.py --with-attention adds it")

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normalised images [B, C, height, width] -> logits [B, classes], class attention [B, blocks, H, 1 + N]."""
        outputs = self._predictor.outputs(images)
        return outputs[LOGITS], outputs[CLASS_ATTENTION]


class CheckpointAttention:
    """A model with the weights of a checkpoint.

    Args:
        name: in the pictures.
        model: with its weights.
        description: of its input and classes.
    """

    def __init__(self, name: str, model: CaiT, description: Description):
        model.eval()
        self.name, self.network, self.description, self.grid = name, model, description, model.grid_size
        self._with_attention = WithClassAttention(model)
        self._with_attention.eval()

    @paddle.no_grad()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normalised images [B, C, height, width] -> logits [B, classes], class attention [B, blocks, H, 1 + N]."""
        logits, attention = self._with_attention(paddle.to_tensor(images))
        return logits.numpy(), attention.numpy()

    @paddle.no_grad()
    def self_attention(self, image: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Softmax and what `proj_w` makes of it, both [H, N, N], of one self-attention block after the other.

        Args:
            image: normalised [1, C, height, width].
        """
        depth, patches = len(self.network.blocks), self.grid[0] * self.grid[1]
        bytes_a_block = 2 * 4 * self.network.blocks[0].attn.num_heads * patches**2
        at_a_time = max(1, MAP_BYTES // bytes_a_block)
        for start in range(0, depth, at_a_time):
            names = [f"blocks.{index}" for index in range(start, min(start + at_a_time, depth))]
            _, maps = self.network.forward_with_attention(paddle.to_tensor(image), names)
            for name in names:
                yield maps[name]["softmax"].numpy()[0], maps.pop(name)["mixed"].numpy()[0]

    @paddle.no_grad()
    def talking_heads(self, image: np.ndarray, block: int) -> dict[str, np.ndarray]:
        """Attention of a self-attention block on its way through the mixing of the heads, each [H, N, N].

        Args:
            image: normalised [1, C, height, width].
            block: its index.

        Returns:
            "own": softmax of each head's own logits, as it would be without `proj_l`; "softmax": after `proj_l`;
            "mixed": after `proj_w`, what the values are multiplied by.
        """
        attn = self.network.blocks[block].attn
        seen: dict[str, paddle.Tensor] = {}
        with _hooks(attn.proj_l.register_forward_pre_hook(lambda layer, inputs: seen.update(logits=inputs[0]))):
            _, maps = self.network.forward_with_attention(paddle.to_tensor(image), [f"blocks.{block}"])
        tensors = {"own": paddle.nn.functional.softmax(seen["logits"], axis=-1), **maps[f"blocks.{block}"]}
        return {name: tensors[name].numpy()[0] for name in ("own", "softmax", "mixed")}

    def mixing_matrices(self) -> dict[str, np.ndarray]:
        """`proj_l` and `proj_w` of every self-attention block: [depth, H of the output, H of the input]."""
        attns = [block.attn for block in self.network.blocks]
        return {
            name: np.stack([getattr(attn, name).weight.numpy().T for attn in attns]) for name in ("proj_l", "proj_w")
        }

    def layer_scale(self) -> dict[str, list[float]]:
        """Mean |gamma| by depth of the self-attention blocks; see `cait.records.monitor.layer_scale`."""
        return layer_scale(self.network)

    @paddle.no_grad()
    def branch_ratios(self, image: np.ndarray) -> dict[str, list[float]]:
        """Measures the branches relative to what they are added to (paper, fig. 2), by depth.

        The norm of gamma * branch over that of the residual stream, mean over the patches.

        Args:
            image: normalised [1, C, height, width].

        Returns:
            "gamma_1": of the attention, "gamma_2": of the MLP, each with a value a block.
        """
        ratios: dict[str, list[float]] = {"gamma_1": [], "gamma_2": []}
        handles: list[Any] = []

        def watch(norm, branch, gamma, values):
            seen = {}
            handles.append(norm.register_forward_pre_hook(lambda layer, inputs: seen.update(x=inputs[0])))

            def after(layer, inputs, output):
                values.append(float(((gamma * output).norm(axis=-1) / seen["x"].norm(axis=-1)).mean()))

            handles.append(branch.register_forward_post_hook(after))

        for block in self.network.blocks:
            watch(block.norm1, block.attn, block.gamma_1, ratios["gamma_1"])
            watch(block.norm2, block.mlp, block.gamma_2, ratios["gamma_2"])
        with _hooks(*handles):
            self.network(paddle.to_tensor(image))
        return ratios


AttentionModel = BundleAttention | CheckpointAttention


def with_weights(model: AttentionModel) -> CheckpointAttention:
    """The model of a checkpoint, which alone has self-attention; `choose_figures` refuses figures of it for bundles."""
    assert isinstance(model, CheckpointAttention)
    return model


@contextlib.contextmanager
def _hooks(*handles) -> Iterator[None]:
    """Takes the hooks away at the end."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def open_models(
    weights: Sequence[str | os.PathLike],
    bundles: Sequence[str | os.PathLike],
    yaml: str | None,
    values: Mapping[str, Any],
) -> list[AttentionModel]:
    """Checkpoints, then bundles.

    Args:
        weights: paths of checkpoints, the suffix may be left out.
        bundles: folders of bundles.
        yaml: config of the checkpoints' models; None: the `config.yaml` beside each, or without one, XXS24 at 224.
        values: keys of the config that are set besides, parsed.

    Raises:
        CaitError: a file is missing or damaged, weights and config do not fit each other, or a bundle has no attention.
        UsageError: a model is named twice.
    """
    files = [find_weights(path) for path in weights]
    names = distinct_names([*(file.with_suffix("") for file in files), *bundles])
    models: list[AttentionModel] = []
    for name, file in zip(names, files):
        beside = run_folder(file) / CONFIG
        found = beside if beside.is_file() else variants_folder() / "cait_xxs24_224.yaml"
        models.append(_open_weights(name, file, read_yaml(yaml or found) | dict(values)))
    return models + [BundleAttention(name, folder) for name, folder in zip(names[len(files) :], bundles)]


def _open_weights(name: str, file: pathlib.Path, values: dict[str, Any]) -> CheckpointAttention:
    config = make_config(values | {"MODEL.PRETRAINED": str(file)})
    select_device(config.DEVICE)
    classes = shown_classes(config)
    description = build_description(config, classes.names, file)
    model = build_model(config)
    for note in load_weights(model, file) + classes.notes:
        print(one_line(note))
    return CheckpointAttention(name, model, description)


def distinct_names(paths: Sequence[str | os.PathLike]) -> list[str]:
    """The shortest ends of paths that tell them apart; of a single one, its last two parts.

    Raises:
        UsageError: two are the same.
    """
    parts = [pathlib.Path(path).resolve().parts for path in paths]
    for length in range(2 if len(parts) == 1 else 1, 2 + max(map(len, parts), default=0)):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    raise UsageError(f"{', '.join(map(str, paths))}: one of these is named twice")
