"""The data set that `prepare.sh` makes for a mode, and what a mode needs that is not there."""

import json
import pathlib
import re
import shlex
from typing import NamedTuple

from cait.errors import UsageError
from cait.files import read_text
from harness import ROOT
from harness.parameters import TRAINERS, Parameters
from harness.rows import rows

CONTENTS = "contents.json"  # as cait.data.prepare.lite writes it, which needs more than the harness
WEIGHTS = "weights"  # subfolder of the data that `prepare.sh` puts weights into
SPEED_STEPS = 16  # of an epoch of the benchmark: collectors leave out the first 2, and 5 at either end of the others


class Need(NamedTuple):
    """What a mode needs: the sample or the whole of the training and the inference set, and trained weights."""

    train: str
    infer: str
    trained_weights: bool


NEEDS = {
    "lite_train_lite_infer": Need("sample", "sample", False),
    "lite_train_whole_infer": Need("sample", "whole", False),
    "whole_train_whole_infer": Need("whole", "whole", True),
    "whole_infer": Need("sample", "whole", True),
    "benchmark_train": Need("sample", "sample", False),
}
NUM_TRAIN, NUM_VAL = 20, 10  # images of the sample


def data_folder(parameters: Parameters) -> pathlib.Path:
    """The folder that `prepare.sh` makes: the one that the inference images of line 12 lie in."""
    return pathlib.Path(parameters.value(12)).parent


def lite_command(python: str, folder: pathlib.Path, weights: pathlib.Path, export: list[str]) -> list[str]:
    """The command that makes a small data set, and places the weights `CaiT/<name>` where `weights` lie in it.

    Args:
        export: the words of a command that names the model.
    """
    words = [python, "CaiT/prepare_data.py", "lite", f"--output={folder}"]
    if weights.parent == folder / WEIGHTS:
        words += [f"--weights={origin_of(weights, folder)}", *(word for word in export if word.startswith("-cfg"))]
    return words


def origin_of(weights: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Where weights, without suffix, come from: `CaiT/<name>` for those that `prepare.sh` places in its folder."""
    return pathlib.Path("CaiT") / weights.name if weights.parent == folder / WEIGHTS else weights


def prepare_command(parameters: Parameters, mode: str) -> list[str]:
    """The command that makes the data set of a mode."""
    need, folder = NEEDS[mode], data_folder(parameters)
    start = pathlib.Path(parameters.value(10) or parameters.value(37) or ".")
    words = lite_command(parameters.value(3), folder, start, parameters.words(30))
    num_train = images_for_speed(parameters) if mode == "benchmark_train" else NUM_TRAIN
    words += [f"--num-train={num_train}", f"--num-val={NUM_VAL}"]
    return words + [f"--train={need.train}", f"--infer={need.infer}"]


def images_for_speed(parameters: Parameters) -> int:
    """Training images that give every batch size of line 54, on every row, SPEED_STEPS steps an epoch."""
    if not parameters.has_benchmark:
        return NUM_TRAIN
    command = parameters.value(TRAINERS[parameters.value(59)])
    started = re.search(r"--nproc_per_node[ =](\d+)", command)
    processes = [len(row.numbers.split(",")) for row in rows(parameters)] + ([int(started[1])] if started else [])
    return SPEED_STEPS * max(map(int, parameters.values(54))) * max(processes)


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
    if mode == "whole_infer":  # where there is no ImageNet, on the sample, and without the check of the accuracy
        missing = {"accuracy": missing["infer"]} if missing else {}
    weights = origin_of(pathlib.Path(parameters.value(37)), folder)
    if need.trained_weights and not (ROOT / f"{weights}.pdparams").is_file():
        reason = f"there are no weights {weights}.pdparams (convert_weights.py fetches the published ones)"
        missing = {part: missing.get(part, reason) for part in ("train", "infer")}
    return missing


def _read_contents(path: pathlib.Path) -> dict:
    if not path.is_file():
        return {}
    try:
        return json.loads(read_text(path))
    except ValueError:
        return {}
