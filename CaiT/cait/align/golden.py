"""The reference numbers that ship with the tests: timm and PyTorch, in float64. Weights and images come from rules."""

import pathlib
import zipfile
import zlib

import numpy as np
from PIL import Image

from cait.align.verdict import MIXED_TARGETS, NORMALISED
from cait.errors import CaitError
from cait.model import CaiT
from cait.weights.layout import swap_layout
from cait.weights.load import set_tensors


def golden_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight by the golden files' rule: float64, in PyTorch's shape, drawn from a generator that the name seeds."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith(("gamma_1", "gamma_2")):
        return 0.1 + 0.02 * values
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.1 * values
    if name in ("pos_embed", "cls_token"):
        return 0.2 * values
    return values / np.sqrt(np.prod(shape[1:])) if name.endswith("weight") else 0.1 * values


def load_golden_weights(model: CaiT) -> CaiT:
    """Fills a model by that rule, in its own precision, and returns it."""
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    in_torch = {name: shape[::-1] if len(shape) == 2 else shape for name, shape in own.items()}
    set_tensors(model, swap_layout({name: golden_tensor(name, shape) for name, shape in in_torch.items()}))
    return model


def golden_images(seed: int, count: int, height: int, width: int) -> np.ndarray:
    """Normalised images by the golden files' rule: float64 [count, 3, height, width]."""
    return np.random.default_rng(seed).standard_normal((count, 3, height, width))


class GoldenReference:
    """The numbers of the reference that ship with the tests (timm and PyTorch, float64).

    Args:
        folder: of the golden files.
        name: `tiny`, for all rungs, or a published variant, for the first two.
        make_model: a CaiT of that size, weights to be filled.
    """

    def __init__(self, folder: pathlib.Path, name: str, make_model):
        self.folder, self.name, self.make_model = folder, name, make_model
        self.steps: tuple[int, ...] = (1, 2, 3, 4, 5) if name == "tiny" else (1, 2)

    def our_model(self) -> CaiT:
        return load_golden_weights(self.make_model())

    def _file(self, name: str) -> dict[str, np.ndarray]:
        try:
            with np.load(self.folder / name) as file:
                return dict(file)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise CaitError(f"{self.folder / name}: no golden file there; --golden names their folder") from error

    def images(self) -> np.ndarray:
        height, width = self.make_model().image_size
        return golden_images(1, 8, height, width) if self.name == "tiny" else golden_images(0, 1, height, width)

    def labels(self) -> np.ndarray:
        return np.arange(8) % 10

    def teacher_logits(self) -> np.ndarray:
        return 3 * np.random.default_rng(2).standard_normal((8, 10))

    def mixed_targets(self) -> np.ndarray:
        return self._file("train_tiny.npz")[MIXED_TARGETS]

    def pictures(self) -> dict[str, tuple[Image.Image, int, float]]:
        file = self._file("eval_preprocess.npz")
        pictures = {}
        for key in file:
            name, what = key.split("/")
            if what != "image":
                size, crop_pct = what.removeprefix("size").split("_pct")
                pictures[key] = (Image.fromarray(file[f"{name}/image"]), int(size), float(crop_pct))
        return pictures

    def expected(self, step: str) -> dict[str, np.ndarray]:
        if step == "preprocessing":
            ranks = np.argsort(-self.teacher_logits(), axis=1)
            hits = ranks[:, :5] == self.labels()[:, None]
            pixels = {key: value for key, value in self._file("eval_preprocess.npz").items() if "/size" in key}
            first = next(iter(pixels.values())) / 255
            normalised = ((first - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)
            return pixels | {NORMALISED: normalised, "correct@1": hits[:, 0].sum(), "correct@5": hits.sum()}
        if self.name != "tiny":
            file = self._file(f"forward_{self.name}.npz")
            return {name: file[name] for name in ("logits", "cls_feature", "block_mean_std")}
        file = self._file("train_tiny.npz")
        if step == "forward":
            return {"logits": file["logits"]}
        if step == "losses":
            return {key: value for key, value in file.items() if key.endswith(("/loss", "/grad_norm", MIXED_TARGETS))}
        if step == "gradients":
            found = {key: value for key, value in file.items() if key.startswith("grad/")}
            return found | {f"schedule/{name}": value for name, value in self._file("lr_schedules.npz").items()}
        return {key: value for key, value in file.items() if key.startswith("adamw_clip")}
