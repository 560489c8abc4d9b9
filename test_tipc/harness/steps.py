"""One command of the chain, and what it must leave behind to count as passed."""

import csv
import dataclasses
import json
import pathlib
import re
import shlex
from collections.abc import Callable

from cait.deploy.bundle import PARAMETERS, PROGRAMS
from cait.deploy.bundle_folder import DESCRIPTION
from cait.files import CSV_ENCODING
from harness.compare import read_lines


@dataclasses.dataclass
class ChainStep:
    """A command to run.

    Attributes:
        name: such as `train norm_train_gpus_-1_autocast_null`; its first word is the kind.
        words: of the command line.
        log: file for all that the command prints.
        needs: names of the steps that must have passed before.
        skip: why this machine or its data cannot run it; empty to run it.
        left_undone: says what is missing of that which the command must leave; empty if nothing is.
        variables: environment variables beside those that are there.
        proves: whether the run is worth nothing without it.
        timing_of: a step whose seconds the command finds in the variable `model_run_time`.
    """

    name: str
    words: list[str]
    log: pathlib.Path
    needs: tuple[str, ...] = ()
    skip: str = ""
    left_undone: Callable[[], str] = lambda: ""
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    proves: bool = False
    timing_of: str = ""

    @property
    def command(self) -> str:
        """The command as a shell would read it."""
        return shlex.join(self.words)


def trained(folder: pathlib.Path, checkpoint: str, num_epochs: int) -> Callable[[], str]:
    """The checkpoint is there, and so are the numbers of every epoch that was asked for."""

    def left_undone() -> str:
        if not (folder / f"{checkpoint}.pdparams").is_file():
            return f"there is no {folder / checkpoint}.pdparams"
        metrics = folder / "metrics.jsonl"
        rows = metrics.read_text().splitlines() if metrics.is_file() else []
        try:
            epochs = [json.loads(row)["epoch"] for row in rows]
        except (ValueError, KeyError):
            return f"{metrics} cannot be read"
        if epochs != list(range(1, num_epochs + 1)):
            return f"{num_epochs} epochs were asked for, and {metrics} tells of {len(epochs)}"
        return ""

    return left_undone


def evaluated(log: pathlib.Path) -> Callable[[], str]:
    """The log tells an accuracy."""
    return lambda: "" if accuracy_in(log) is not None else f"{log} tells no Validation Acc@1"


def accuracy_in(log: pathlib.Path) -> float | None:
    """The accuracy at the end of an evaluation's log."""
    found = re.findall(r"Validation Acc@1: ([01]\.\d+)", log.read_text(errors="replace"))
    return float(found[-1]) if found else None


def predicted(table: pathlib.Path) -> Callable[[], str]:
    """The table of predictions has rows."""

    def left_undone() -> str:
        if not table.is_file():
            return f"there is no {table}"
        with open(table, encoding=CSV_ENCODING, newline="") as file:
            return "" if next(csv.DictReader(file), None) else f"{table} is empty"

    return left_undone


def exported(folder: pathlib.Path, *more: str) -> Callable[[], str]:
    """The bundle is whole."""

    def left_undone() -> str:
        missing = [name for name in (DESCRIPTION, PARAMETERS, *more) if not (folder / name).is_file()]
        if not any((folder / name).is_file() for name in PROGRAMS):
            missing.append(" or ".join(PROGRAMS))
        return f"{folder} holds no {missing[0]}" if missing else ""

    return left_undone


def inferred(log: pathlib.Path, with_benchmark: bool) -> Callable[[], str]:
    """The log has predictions, and the block of the benchmark where it was asked for."""

    def left_undone() -> str:
        if not read_lines(log):
            return f"{log} tells no prediction"
        if with_benchmark and "inference_time(ms)" not in log.read_text(errors="replace"):
            return f"{log} has no line with inference_time(ms), which --benchmark=True prints"
        return ""

    return left_undone
