"""Shows and writes predictions, in one form for `-pred` and `infer.py`."""

import contextlib
import csv
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from cait.command.outputs import check_output
from cait.errors import one_line
from cait.files import CSV_ENCODING, replacing, writable_folder, writing

RESULT_COLUMNS = ("image_name", "rank", "class_id", "class_name", "prob", "error")


def result_line(image_name: str, class_id: int, class_name: str, prob: float) -> str:
    """The line of one class of one image."""
    return one_line(f"image_name: {image_name}, class_id: {class_id}, class_name: {class_name}, prob: {prob}")


@contextlib.contextmanager
def write_results(path: pathlib.Path | None, class_names: list[str]) -> Iterator[Callable[..., None]]:
    """Yields a function that writes (image name, its classes with probabilities, error) to a `.csv` or `.jsonl` file.

    Each class is a row. An image that could not be read has no classes but an error, and is one row with these two
    alone. With None as path the function writes nowhere. The file is there once all results are.
    """
    if path is None:
        yield lambda image_name, classes, error="": None
        return
    writable_folder(path.parent)
    with writing(path, CSV_ENCODING if path.suffix == ".csv" else "utf-8") as file:
        writer = csv.writer(file)
        if path.suffix == ".csv":
            writer.writerow(RESULT_COLUMNS)

        def write(image_name: str, classes: list[tuple[int, float]], error: str = "") -> None:
            ranked = [(rank, index, class_names[index], prob) for rank, (index, prob) in enumerate(classes, 1)]
            for values in ranked if not error else [(None, None, None, None)]:
                row = (image_name, *values, error or None)
                if path.suffix == ".csv":
                    writer.writerow(row)
                else:
                    file.write(json.dumps(dict(zip(RESULT_COLUMNS, row)), ensure_ascii=False) + "\n")

        yield write


def write_reprod_log(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    """Writes named arrays as the `.npy` file that `reprod_log` compares."""
    from reprod_log import ReprodLogger

    logger = ReprodLogger()
    for name, array in arrays.items():
        logger.add(name, np.asarray(array))
    writable_folder(path.parent)
    check_output(path, ".npy")
    with replacing(path) as temporary:
        with_suffix = temporary.with_name(f"{temporary.name}.npy")  # without it, NumPy would add it
        try:
            logger.save(str(with_suffix))
            os.replace(with_suffix, temporary)
        finally:
            with_suffix.unlink(missing_ok=True)


def read_results(path: str | os.PathLike) -> list[dict]:
    """Path, class name and probability of every row of a predictions file; unreadable images have none."""
    with open(path, encoding=CSV_ENCODING, newline="") as file:
        return [
            {"path": row["image_name"], "class": row["class_name"], "probability": float(row["prob"])}
            for row in csv.DictReader(file)
            if not row.get("error")
        ]
