"""The data set that `prepare.sh` makes for a mode, and what a mode needs that is not there."""

import json
import pathlib
import shlex
from typing import NamedTuple

from cait.errors import UsageError
from cait.files import read_text
from harness import ROOT
from harness.parameters import Parameters

CONTENTS = "contents.json"  # as cait.data.lite writes it, which needs more than the harness


class Need(NamedTuple):
    """What a mode needs: the sample or the whole of the training and the inference set, and published weights."""

    train: str
    infer: str
    published_weights: bool
    num_train: int = 20
    num_val: int = 10


NEEDS = {
    "lite_train_lite_infer": Need("sample", "sample", False),
    "lite_train_whole_infer": Need("sample", "whole", False),
    "whole_train_whole_infer": Need("whole", "whole", True),
    "whole_infer": Need("sample", "whole", True),
    "benchmark_train": Need("sample", "sample", False, num_train=48),
}


def data_folder(parameters: Parameters) -> pathlib.Path:
    """The folder that `prepare.sh` makes: the one that the inference images of line 12 lie in."""
    return pathlib.Path(parameters.value(12)).parent


def prepare_command(parameters: Parameters, mode: str) -> list[str]:
    """The command that makes the data set of a mode."""
    need, folder = NEEDS[mode], data_folder(parameters)
    words = [parameters.value(3), "CaiT/prepare_data.py", "lite", f"--output={folder}"]
    words += [f"--num-train={need.num_train}", f"--num-val={need.num_val}"]
    words += [f"--train={need.train}", f"--infer={need.infer}"]
    start, published = pathlib.Path(parameters.value(10) or "."), parameters.value(37)
    if published and start.parent == folder / "weights" and start.name == pathlib.Path(published).name:
        words += [f"--weights={published}", *(word for word in parameters.words(30) if word.startswith("-cfg"))]
    return words


def missing_for(parameters: Parameters, mode: str) -> dict[str, str]:
    """Why the mode cannot `train`, or cannot `infer`, with what is there; nothing if it can.

    Raises:
        UsageError: `prepare.sh` was not run for this mode.
    """
    folder, need = data_folder(parameters), NEEDS[mode]
    contents = _read_contents(ROOT / folder / CONTENTS)
    if (contents.get("train"), contents.get("infer")) != (need.train, need.infer):
        command = shlex.join(["bash", "test_tipc/prepare.sh", str(parameters.path), mode])
        raise UsageError(f"{folder}: holds no data for {mode}; make it first: {command}")
    missing = dict(contents.get("missing", {}))
    published = parameters.value(37)
    if mode == "whole_infer":  # where there is no ImageNet, on the sample, and without the check of the accuracy
        missing = {"accuracy": missing["infer"]} if missing else {}
    if need.published_weights and not (ROOT / f"{published}.pdparams").is_file():
        reason = f"there are no published weights, {published}.pdparams (convert_weights.py fetches them)"
        missing = {part: missing.get(part, reason) for part in ("train", "infer")}
    return missing


def _read_contents(path: pathlib.Path) -> dict:
    if not path.is_file():
        return {}
    try:
        return json.loads(read_text(path))
    except ValueError:
        return {}
