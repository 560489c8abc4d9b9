"""The numbers that a run leaves: `metrics.jsonl`, and their picture."""

import json
import os
import pathlib

from cait.errors import CaitError
from cait.files import read_text, replacing, write_text


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


def plot_learning_curves(rows: list[dict], path: pathlib.Path, title: str) -> None:
    """Draws loss, accuracy and learning rate over the epochs into a PNG file.

    Raises:
        CaitError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CaitError("matplotlib is needed for the picture: pip install matplotlib") from error
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = (
        ("loss", {"train": "train_loss", "validation": "val_loss", "average": "val_ema_loss"}),
        ("accuracy", {"train, augmented": "train_acc1", "validation": "val_acc1", "average": "val_ema_acc1"}),
        ("learning rate", {"": "lr"}),
    )
    for axes, (name, series) in zip(figure.subplots(1, len(panels)), panels):
        for label, key in series.items():
            points = [(row["epoch"], row[key]) for row in rows if key in row]
            if not points:  # a run without an average of the weights, or without validation
                continue
            axes.plot(*zip(*points), label=label, marker="." if len(points) < 10 else None)
        axes.set(xlabel="epoch", title=name)
        axes.grid(alpha=0.3)
        if len(series) > 1:
            axes.legend()
    figure.suptitle(title)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
