"""The verdict of a comparison: how far arrays may be apart, which are, and the report of it."""

import json
from typing import NamedTuple

import numpy as np

from cait.errors import CaitError

STEPS = {1: "forward", 2: "preprocessing", 3: "losses", 4: "gradients", 5: "training", 6: "deployment"}
MIXED_TARGETS = "mixup_targets"  # the reference mixes them in float32
NORMALISED = "normalised"
# Largest allowed difference in a step, relative to the largest value of the reference array, at least to 1.
TOLERANCES = {
    "float64": {"forward": 1e-11, "preprocessing": 0.0, "losses": 1e-9, "gradients": 1e-9, "training": 1e-7},
    "float32": {"forward": 1e-5, "preprocessing": 0.0, "losses": 1e-5, "gradients": 1e-5, "training": 5e-2},
}
# The same of some arrays, relative to their own largest value; gradients to the largest of all tensors.
OWN_TOLERANCES = {
    "float64": {"normalised": 1e-12, "schedule": 1e-12, "losses of training": 1e-9, "gradient": 1e-9},
    "float32": {"normalised": 1e-6, "schedule": 1e-12, "losses of training": 1e-5, "gradient": 1e-5},
}
Arrays = dict[str, np.ndarray]


class Row(NamedTuple):
    """One comparison: the largest and mean absolute difference, what was allowed, and whether it holds."""

    model: str
    step: int
    name: str
    max_diff: float
    mean_diff: float
    threshold: float
    passed: bool
    part: str = ""  # of the step: its rows have a line of their own in the table


def compare(model: str, step: int, ours: Arrays, reference: Arrays, dtype: str = "float64") -> list[Row]:
    """Judges each array of the reference; one that is missing, of another shape or not finite fails.

    Args:
        dtype: what ours were computed in, float64 or float32.
    """
    rows = []
    largest_gradient = max(
        (np.abs(v).max(initial=0.0) for n, v in reference.items() if n.startswith("grad/")), default=0
    )
    for name, expected in reference.items():
        expected = np.asarray(expected, "float64")
        value = np.asarray(ours.get(name, np.nan), "float64")
        own = np.abs(expected).max(initial=0.0)
        threshold = _threshold(step, name, float(largest_gradient if name.startswith("grad/") else own), dtype)
        if value.shape != expected.shape or not np.isfinite(value).all() or not np.isfinite(expected).all():
            rows.append(Row(model, step, name, float("inf"), float("inf"), threshold, False))
            continue
        difference = np.abs(value - expected)
        largest, mean = float(difference.max(initial=0.0)), float(difference.mean()) if difference.size else 0.0
        rows.append(Row(model, step, name, largest, mean, threshold, largest <= threshold))
    if not rows:
        raise CaitError(f"{model}: nothing to compare in step {step}")
    return rows


def _threshold(step: int, name: str, largest: float, dtype: str) -> float:
    own = OWN_TOLERANCES[dtype]
    if name == NORMALISED:
        return own["normalised"] * largest
    if name.startswith("schedule/"):
        return own["schedule"] * largest
    if name.endswith("/losses"):
        return own["losses of training"] * largest
    if name.startswith("grad/"):
        return own["gradient"] * largest
    return (1e-7 if name == MIXED_TARGETS else TOLERANCES[dtype][STEPS[step]]) * max(1.0, largest)


def report(rows: list[Row]) -> str:
    """The rows as JSON; a difference that is not finite is null."""
    dicts = [row._asdict() for row in rows]
    for entry in dicts:
        entry |= {key: None for key in ("max_diff", "mean_diff") if not np.isfinite(entry[key])}
    return json.dumps({"passed": all(row.passed for row in rows), "rows": dicts}, indent=1, allow_nan=False)


def worst_of(rows: list[Row]) -> Row:
    """The row that is furthest off, by what was allowed."""
    return max(rows, key=lambda row: row.max_diff / row.threshold if row.threshold else row.max_diff)


def table(rows: list[Row]) -> str:
    """A line for each model, step and part of a step, and one for each array that failed."""
    lines = [f"{'model':<16} {'step':<26} {'arrays':>6} {'max diff':>10} {'mean diff':>10} {'threshold':>10}  verdict"]
    for model, step, part in dict.fromkeys((row.model, row.step, row.part) for row in rows):
        group = [row for row in rows if (row.model, row.step, row.part) == (model, step, part)]
        worst = worst_of(group)
        verdict = "passed" if all(row.passed for row in group) else "FAILED"
        numbers = f"{worst.max_diff:>10.2e} {worst.mean_diff:>10.2e} {worst.threshold:>10.2e}"
        name = f"{step} {STEPS[step]}{part and f', {part}'}"
        lines.append(f"{model:<16} {name:<26} {len(group):>6} {numbers}  {verdict}")
        lines += [f"    {row.name}: {row.max_diff:.3e} > {row.threshold:.1e}" for row in group if not row.passed][:10]
    return "\n".join(lines)
