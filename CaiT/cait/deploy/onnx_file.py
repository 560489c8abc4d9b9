"""A bundle's network as an ONNX file: made by paddle2onnx, run by ONNX Runtime (requirements-onnx.txt)."""

import importlib.util
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np

from cait.command import stops
from cait.deploy.bundle import ONNX, Description, find_program, verify
from cait.deploy.bundle_schema import LOGITS
from cait.errors import CaitError, UsageError

TOOLS = ("paddle2onnx", "onnx", "onnxruntime")
OPSET = 17  # the first with LayerNormalization as one operator
BATCH = "batch"

# In a process of its own: paddle2onnx ends the process on a fault and writes to the terminal. Its default tool for
# folding constants takes half a minute for XXS24 and gains nothing: ONNX Runtime folds them too.
_CONVERT = f"""
import inspect, sys
import paddle2onnx
known = inspect.signature(paddle2onnx.export).parameters
more = {{name: value for name, value in {{"optimize_tool": "None", "verbose": False}}.items() if name in known}}
paddle2onnx.export(*sys.argv[1:], opset_version={OPSET}, **more)
"""


def missing_tools(*names: str) -> list[str]:
    """Returns those of these packages, or of all that ONNX files need, that are not installed."""
    return [name for name in names or TOOLS if importlib.util.find_spec(name) is None]


def check_tools(*names: str) -> None:
    """Raises UsageError if a package that ONNX files need is not installed."""
    for name in missing_tools(*names):
        raise UsageError(f"ONNX needs {name}, which is not installed: pip install -r requirements-onnx.txt")


def write_onnx(folder: pathlib.Path, description: Description) -> pathlib.Path:
    """Converts the program in a folder to `inference.onnx` beside it, with the description's names for the outputs.

    Raises:
        CaitError: paddle2onnx fails.
    """
    program, path = find_program(folder), folder / ONNX
    words = [sys.executable, "-c", _CONVERT, str(program), str(program.with_suffix(".pdiparams")), str(path)]
    result = subprocess.run(words, capture_output=True, text=True, errors="replace")
    if result.returncode or not path.is_file():
        stops.wait_for_own(result.returncode)
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        raise CaitError(f"paddle2onnx cannot convert the program ({reason})")
    _rename(path, description)
    return path


def _rename(path: pathlib.Path, description: Description) -> None:
    import onnx

    model = onnx.load(path)
    names = {output.name: name for output, name in zip(model.graph.output, description.outputs)}
    for node in model.graph.node:
        for words in (node.input, node.output):
            words[:] = [names.get(word, word) for word in words]
    for output in model.graph.output:
        output.name = names[output.name]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    onnx.checker.check_model(model)
    onnx.save(model, path)


def open_session(path: str | os.PathLike, providers: list[Any]):
    """ONNX Runtime's session for a file, on the first of the providers that can; each with its options or without."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of every node that it does not optimise
    return onnxruntime.InferenceSession(str(path), options, providers=providers)


class OnnxPredictor:
    """The bundle's ONNX file in ONNX Runtime on the CPU; answers as `Predictor` does.

    Raises:
        UsageError: ONNX Runtime is not installed.
        CaitError: the bundle has no such file, or it was changed.
    """

    def __init__(self, folder: str | os.PathLike, description: Description):
        check_tools("onnxruntime")
        self._session = open_session(verify(folder, description, ONNX), ["CPUExecutionProvider"])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits [B, classes] of normalised images [B, channels, height, width], both float32."""
        return self.outputs(images, [LOGITS])[LOGITS]

    def outputs(self, images: np.ndarray, names: list[str] | None = None) -> dict[str, np.ndarray]:
        """The named outputs of the file, or all of them."""
        names = names or [output.name for output in self._session.get_outputs()]
        (entry,) = self._session.get_inputs()
        return dict(zip(names, self._session.run(names, {entry.name: np.ascontiguousarray(images, "float32")})))
