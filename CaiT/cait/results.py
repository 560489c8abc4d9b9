"""How a prediction is shown: one form for `-pred` and `infer.py`."""

import csv
import os

RESULT_COLUMNS = ("image_name", "rank", "class_id", "class_name", "prob")


def result_line(image_name: str, class_id: int, class_name: str, prob: float) -> str:
    """The line of one class of one image."""
    return f"image_name: {image_name}, class_id: {class_id}, class_name: {class_name}, prob: {prob}"


def read_results(path: str | os.PathLike) -> list[dict]:
    """Path, class name and probability of every row of a predictions file."""
    with open(path, encoding="utf-8", newline="") as file:
        return [
            {"path": row["image_name"], "class": row["class_name"], "probability": float(row["prob"])}
            for row in csv.DictReader(file)
        ]
