"""The numbers of a run: `metrics.jsonl`, and their picture."""

import json
import os
from collections.abc import Mapping

from cait.errors import CaitError
from cait.files import read_text, write_text
from cait.records.figure import picture, plain

LINES = ("--", "-", ":")  # training, validation, validation of the averaged weights


def read_metrics(path: str | os.PathLike) -> list[dict]:
    """The rows of a run's `metrics.jsonl`, one an epoch.

    Raises:
        CaitError: the file is missing or a line is not the JSON of a row.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CaitError(f"{path}: line {number} is not JSON") from error
        if not isinstance(row, dict) or not isinstance(row.get("epoch"), int):
            raise CaitError(f"{path}: line {number} must be an object with a whole `epoch`")
        rows.append(row)
    return rows


def write_metrics(path: str | os.PathLike, rows: list[dict]) -> None:
    """Writes the rows, a line of JSON each."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def plot_learning_curves(runs: Mapping[str, list[dict]], path: str | os.PathLike, title: str) -> None:
    """Draws loss, accuracy and learning rate over the epochs into a PNG file.

    Several runs share the axes: the colour tells the run, the line what is measured.

    Args:
        runs: name and rows of each.
        path: of the file.
        title: above the axes.

    Raises:
        CaitError: matplotlib is not installed.
    """
    panels = (
        ("loss", {"train": "train_loss", "validation": "val_loss", "average": "val_ema_loss"}),
        ("accuracy", {"train, augmented": "train_acc1", "validation": "val_acc1", "average": "val_ema_acc1"}),
        ("learning rate", {"": "lr"}),
    )
    several = len(runs) > 1
    with picture(path, 12, 4 if several else 3.5) as figure:
        for axes, (name, series) in zip(figure.subplots(1, len(panels)), panels):
            for number, rows in enumerate(runs.values()):
                _plot(axes, rows, series, number if several else None)
            axes.set(xlabel="epoch", title=name)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            if len(series) > 1:
                _explain(axes, several)
        if several:  # the last axes have one line a run
            figure.legend(axes.get_lines(), [plain(name) for name in runs], loc="outside lower center", ncols=4)
        figure.suptitle(plain(title))


def _plot(axes, rows: list[dict], series: dict[str, str], run: int | None) -> None:
    """Draws the series of one run; of several runs each has its colour, and the series differ by their lines."""
    for number, (label, key) in enumerate(series.items()):
        points = [(row["epoch"], row[key]) for row in rows if isinstance(row.get(key), (int, float))]
        if not points and len(series) > 1:  # a run without an average of the weights, or without validation
            continue
        style = {"label": label, "marker": "." if len(points) < 10 else None}
        if run is not None:
            style |= {"color": f"C{run % 10}", "linestyle": LINES[number] if len(series) > 1 else "-"}
        axes.plot(*(zip(*points) if points else ([], [])), **style)


def _explain(axes, several: bool) -> None:
    """A legend of what is measured, in grey where the colours tell the runs."""
    lines = {line.get_label(): line for line in axes.get_lines()}
    legend = axes.legend(lines.values(), lines.keys())
    for line in legend.get_lines() if several else []:
        line.set_color("0.4")
