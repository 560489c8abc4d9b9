"""What the benchmark of models runs: bundles of this project, and timm's model as an ONNX file.

    python -m cait.bench.exported VARIANT FILE.onnx

writes the latter, in a process of its own: PyTorch is not to be in that of PaddlePaddle.
"""

import os
import pathlib
import sys
import warnings

import numpy as np

from cait.bench.measure import SCRIPTS, run_command_line, tell
from cait.command.run import run_command
from cait.errors import CaitError

GOLDEN = "golden"  # the checkpoint beside a bundle that was made without weights
KEYS = {"image_size": "DATA.IMAGE_SIZE", "depth": "MODEL.DEPTH"}


def write_bundle(
    folder: pathlib.Path,
    model: str | pathlib.Path,
    precision: str = "fp32",
    weights: str | os.PathLike | None = None,
    onnx: bool = False,
    **arguments: int,
) -> pathlib.Path:
    """Exports a bundle into `folder`, which is made, and returns it.

    Args:
        folder: in which the weights are left as well, if they are made.
        model: a variant, or the YAML of a model.
        precision: fp32, bf16 or fp16.
        weights: checkpoint without its suffix; None: those of the golden files' rule.
        onnx: an ONNX file too.
        arguments: `image_size`, `depth`: in place of those of a variant that is named.

    Raises:
        CaitError: the export fails.
    """
    tell(f"exporting {folder.name}")
    folder.mkdir(parents=True)
    if weights is None:
        weights = folder / GOLDEN
        _save_golden(model, weights, **arguments)
    config = SCRIPTS / "configs" / f"{model}.yaml" if isinstance(model, str) else model
    words: list[str | os.PathLike] = [SCRIPTS / "export_model.py", f"--config_dir={config}", f"--model_path={weights}"]
    words += [f"--save-inference-dir={folder}", f"--precision={precision}"]
    words += ["--onnx"] if onnx else []
    for name, value in arguments.items():
        words += ["-o", f"{KEYS[name]}={value}"]
    run_command_line(words)
    return folder


def _golden_model(model: str | pathlib.Path, **arguments: int):
    from cait.align.golden import load_golden_weights
    from cait.zoo import create_model, model_of_yaml

    made = create_model(model, None, None, **arguments) if isinstance(model, str) else model_of_yaml(model)
    made.eval()
    return load_golden_weights(made)


def _save_golden(variant: str | pathlib.Path, path: pathlib.Path, **arguments: int) -> None:
    from cait.weights.find import WEIGHTS
    from cait.weights.write import save_weights

    save_weights(_golden_model(variant, **arguments), path.with_name(path.name + WEIGHTS))


def reference_logits(variant: str | pathlib.Path, images: np.ndarray) -> np.ndarray:
    """Logits of the model itself, with the weights of `write_bundle`: float32 [B, classes]."""
    import paddle

    with paddle.no_grad():
        return _golden_model(variant)(paddle.to_tensor(images)).numpy()


def timm_onnx(variant: str, path: pathlib.Path) -> pathlib.Path:
    """Exports timm's model of that name, with a free batch size, and returns `path`.

    Raises:
        CaitError: timm, PyTorch or onnx cannot be imported, or the export fails.
    """
    tell(f"exporting timm's {variant}")
    run_command_line(["-m", "cait.bench.exported", variant, path])
    return path


def _export_timm(variant: str, path: str) -> None:
    try:
        import onnx  # noqa: F401 (torch.onnx needs it)
        import timm
        import torch
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        raise CaitError(f"timm cannot be imported: {error}") from error
    warnings.simplefilter("ignore")  # of the way of exporting, which serves here
    model = timm.create_model(variant).eval()  # with fresh weights: they do not change how long it takes
    images = torch.randn(2, *model.pretrained_cfg["input_size"])
    names = {"input_names": ["images"], "output_names": ["logits"]}
    axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
    torch.onnx.export(model, images, path, opset_version=17, dynamo=False, dynamic_axes=axes, **names)


if __name__ == "__main__":
    run_command(lambda: _export_timm(*sys.argv[1:]))
