"""Does inference answer as the model does? The bundle's origin, every prediction, the accuracy."""

import csv
import math
import pathlib
import re
from typing import NamedTuple

from cait.deploy.bundle import read_description
from cait.errors import CaitError
from cait.files import CSV_ENCODING
from cait.files.digest import sha256_of

_LINE = re.compile(r"image_name: (.*), class_id: (\d+), class_name: (.*), prob: ([0-9.eE+-]+|nan|inf)")
# Largest difference of the natural logarithm of a probability. In fp32 kernels differ in the order of sums, and logits
# agree to 3e-5 of the largest. Half precision keeps 8 (bf16) or 11 (fp16) bits of every product.
TOLERANCES = {"fp32": 1e-3, "fp16": 0.1, "bf16": 0.5}
OFF_SHARE = {"fp32": 0.0, "fp16": 0.01, "bf16": 0.01}  # of the images, that may be further off
ACCURACY_TOLERANCE = 1e-3


class Prediction(NamedTuple):
    """A class and its softmax probability."""

    class_id: int
    prob: float


def read_lines(log: pathlib.Path) -> dict[str, Prediction]:
    """Image -> likeliest class, from the lines that `infer.py` prints."""
    found: dict[str, Prediction] = {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := _LINE.search(line):
            found.setdefault(match[1], Prediction(int(match[2]), float(match[4])))
    return found


def read_table(table: pathlib.Path) -> dict[str, list[Prediction]]:
    """Image -> classes, the likeliest first, from the `predictions.csv` that `-pred` writes."""
    found: dict[str, list[Prediction]] = {}
    with open(table, encoding=CSV_ENCODING, newline="") as file:
        for row in csv.DictReader(file):
            if row.get("error"):  # an image that could not be read
                continue
            found.setdefault(row["image_name"], []).append(Prediction(int(row["class_id"]), float(row["prob"])))
    return found


def verify_bundle(folder: pathlib.Path, weights: pathlib.Path, start: pathlib.Path | None = None) -> str:
    """That a bundle was exported from these weights, and that they are not those that training started from.

    Returns:
        The sentence that says so.

    Raises:
        CaitError: the bundle is not whole or of other weights, or training changed nothing.
    """
    description, digest = read_description(folder), sha256_of(weights)
    if description.weights != digest:
        raise CaitError(
            f"{folder}: not exported from {weights}: its weights have the SHA-256 {description.weights[:12]}, "
            f"those {digest[:12]}"
        )
    if start is not None and start.is_file() and sha256_of(start) == digest:
        raise CaitError(f"{weights}: is the file that training started from, {start}")
    return f"{folder}: {description.variant}, exported from {weights} (SHA-256 {digest[:12]})"


def compare(table: pathlib.Path, log: pathlib.Path, precision: str) -> str:
    """That inference gave every image the class and the probability that the model gives it.

    Where the model's first classes lie closer together than the tolerance, either counts as the first.

    Returns:
        The sentence that says so, with the largest difference.

    Raises:
        CaitError: nothing was compared, an image is missing on one side, or a prediction differs.
    """
    reference, answers = read_table(table), read_lines(log)
    if not reference or not answers:
        raise CaitError(f"nothing to compare: {table} has {len(reference)} images, {log} {len(answers)}")
    if alone := reference.keys() ^ answers.keys():
        raise CaitError(f"{sorted(alone)[0]}: only in one of {table} and {log}, as are {len(alone) - 1} more")
    tolerance, largest, off = TOLERANCES[precision], 0.0, []
    for image, answer in answers.items():
        first = reference[image][0]
        expected = next((item for item in reference[image] if item.class_id == answer.class_id), None)
        if expected is None or not _log_ratio(expected.prob, first.prob) <= tolerance:
            off.append(
                f"{image}: the model says class {first.class_id} ({first.prob:.6g}), "
                f"inference says {answer.class_id} ({answer.prob:.6g})"
            )
            continue
        difference = _log_ratio(answer.prob, expected.prob)
        if difference <= tolerance:
            largest = max(largest, difference)
        else:  # NaN too
            off.append(
                f"{image}: class {answer.class_id} has the probability {expected.prob:.6g} in the model and "
                f"{answer.prob:.6g} in inference; allowed is a factor of {math.exp(tolerance):.4f}"
            )
    if len(off) > OFF_SHARE[precision] * len(answers):
        raise CaitError(f"{off[0]} ({len(off)} of {len(answers)} images differ)")
    agreeing = f"{len(answers) - len(off)} images agree" + (f", {len(off)} do not" if off else "")
    return f"{agreeing}; largest log-ratio of a probability {largest:.1e}, allowed {tolerance:g}"


def _log_ratio(one: float, other: float) -> float:
    return abs(math.log(one / other)) if one > 0 and other > 0 else math.nan


def check_accuracy(log: pathlib.Path, labels: pathlib.Path, folder: str, expected: float) -> str:
    """That the share of images whose likeliest class is their label is what was expected.

    Args:
        log: of inference.
        labels: list of lines `path label`, relative to the folder.
        folder: that the list's paths start from, as the log names it.
        expected: accuracy, 0-1.

    Raises:
        CaitError: it is not, or an image of the log has no label.
    """
    pairs = (line.rsplit(maxsplit=1) for line in labels.read_text().splitlines() if line.strip())
    label_of = {f"{folder}/{pair[0]}": pair[1] for pair in pairs if len(pair) == 2}
    answers = read_lines(log)
    if not answers:
        raise CaitError(f"nothing to compare: {log} tells no prediction")
    if unknown := sorted(answers.keys() - label_of.keys()):
        raise CaitError(f"{unknown[0]}: has no label in {labels}")
    accuracy = sum(str(answer.class_id) == label_of[image] for image, answer in answers.items()) / len(answers)
    if not abs(accuracy - expected) <= ACCURACY_TOLERANCE:
        raise CaitError(f"top-1 of inference is {accuracy:.4f} on {len(answers)} images; expected is {expected:.4f}")
    return f"top-1 of inference is {accuracy:.4f} on {len(answers)} images, as expected ({expected:.4f})"
