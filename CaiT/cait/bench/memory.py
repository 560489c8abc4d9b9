"""The memory that the options of training save, and their cost in time."""

import argparse
import pathlib
import tempfile
from typing import Any, cast

from cait.bench.measure import Measurement
from cait.bench.report import Report, Table
from cait.bench.step import StepSpec, difference_of, measure_step
from cait.command.arguments import positive

CHUNK = 64
OPTIONS = {
    "plain": {},
    f"TRAIN.QUERY_CHUNK={CHUNK}": {"query_chunk": CHUNK},
    "TRAIN.RECOMPUTE=true": {"recompute": True},
    "both": {"recompute": True, "query_chunk": CHUNK},
}
GOAL = 0.6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.set_defaults(rounds=1)
    parser.add_argument("--variant", default="cait_s24_384", help="name of the model")
    parser.add_argument(
        "--sizes", type=positive, nargs="+", help="sides of the image in pixels; default: that of the variant"
    )
    parser.add_argument("--batch-size", type=positive, default=4, help="images per step")


def run(args: argparse.Namespace) -> Report:
    """Peak memory and seconds of a step for each option and resolution, each in a process of its own."""
    tables: list[Table] = []
    notes: list[str] = []
    for size in args.sizes or [None]:
        tables += measure(args.variant, size, args.batch_size, args.rounds, notes)
    return Report("memory", args.command, tables, {"batch_size": args.batch_size}, notes)


def measure(variant: str, size: int | None, batch_size: int, rounds: int, notes: list[str], **arguments) -> list[Table]:
    """The tables of memory and time; `notes` gets the largest difference of a gradient from the plain step."""
    arguments |= {"image_size": size} if size else {}
    shown = f"{variant}, {f'{size} pixels, ' if size else ''}batch {batch_size}"
    peaks: dict[str, list[float]] = {name: [] for name in OPTIONS}
    seconds: dict[str, list[float]] = {name: [] for name in OPTIONS}
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: str(pathlib.Path(scratch) / f"{number}.npy") for number, name in enumerate(OPTIONS)}
        for _ in range(rounds):
            for name, options in OPTIONS.items():
                found = measure_step(
                    StepSpec(variant, batch_size, arguments, gradients=files[name], **cast(dict[str, Any], options))
                )
                peaks[name].append(found["peak_mb"])
                seconds[name] += found["seconds"]
        for name in list(OPTIONS)[1:]:
            difference = difference_of(files[name], files["plain"])
            notes.append(
                f"{shown}, {name}: the gradients differ from the plain ones by {difference:.1e} of the largest."
            )
    goals = dict.fromkeys(list(OPTIONS)[1:], GOAL)
    return [
        Table(f"peak memory: {shown}", [Measurement(n, "MB", v) for n, v in peaks.items()], "plain", goals),
        Table(f"a step: {shown}", [Measurement(n, "s", v) for n, v in seconds.items()], "plain"),
    ]
