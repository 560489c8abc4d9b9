"""The time that a training step waits for images, and its growth with resolution, depth and batch."""

import argparse
import pathlib
import re
import tempfile
from typing import Any

from cait.bench.measure import SCRIPTS, Measurement, power_of_growth, run_command_line, tell
from cait.bench.photos import photos
from cait.bench.report import Report, Table
from cait.bench.step import StepSpec, measure_step
from cait.command.arguments import positive

VARIANT = "cait_xxs24_224"
STEP, WAIT = "the step", "of it waiting for images"
GOAL = 0.02
GROWTH_ROUNDS = 3
SKIPPED = 2  # steps in which the reading processes start
COSTS = re.compile(r"avg_reader_cost: ([0-9.]+) sec avg_batch_cost: ([0-9.]+) sec")
GROWTH = {
    "resolution in pixels": ("image_size", [224, 288, 352, 448]),
    "depth": ("depth", [12, 24, 36]),
    "images a batch": ("batch_size", [1, 2, 4, 8]),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.add_argument("--batch-size", type=positive, default=4, help="images per step, for the waiting time")
    parser.add_argument("--no-growth", action="store_true", help="do not measure the growth, which takes minutes")


def run(args: argparse.Namespace) -> Report:
    """Trains XXS24 at 224 on photographs, and then single steps of other sizes."""
    tables = [wait_for_images(args.batch_size, args.rounds)]
    if not args.no_growth:
        for label, (name, values) in GROWTH.items():
            tables += grow(label, name, values)
    return Report("train", args.command, tables, {"variant": VARIANT, "batch_size": args.batch_size})


def wait_for_images(batch_size: int, num_steps: int, *overrides: str) -> Table:
    """Seconds of a step and of its wait, from the log of a training run; each step is a round."""
    with tempfile.TemporaryDirectory() as scratch:
        data = pathlib.Path(scratch) / "data"
        (data / "train" / "photo").mkdir(parents=True)
        files = photos(8)
        for index in range(batch_size * (num_steps + SKIPPED)):
            (data / "train" / "photo" / f"{index:04d}.jpg").write_bytes(files[index % len(files)])
        words: list[Any] = [SCRIPTS / "main_single_gpu.py", f"-cfg={SCRIPTS / 'configs' / f'{VARIANT}.yaml'}"]
        words += ["-dataset=folder", f"-data_path={data}", f"-batch_size={batch_size}", "-epochs=1"]
        words += [f"-output_dir={pathlib.Path(scratch) / 'run'}", "-o", "REPORT_FREQ=1", "VALIDATE_FREQ=0"]
        words += ["DEVICE=cpu", "MODEL.NUM_CLASSES=1", *overrides]
        tell(f"training {VARIANT}, {num_steps} steps")
        log = run_command_line(words)
    costs = [tuple(map(float, found)) for found in COSTS.findall(log)][SKIPPED:]
    waits, steps = zip(*costs)
    measurements = [Measurement(STEP, "s", list(steps)), Measurement(WAIT, "s", list(waits))]
    return Table(f"training {VARIANT}, batch {batch_size}", measurements, STEP, {WAIT: GOAL})


def grow(label: str, name: str, values: list[int], variant: str = VARIANT, **arguments) -> list[Table]:
    """Tables of seconds and of peak memory over one size, all else as published, batch 1; the sizes take turns.

    The seconds are those of the quickest step: what else the machine does makes others longer.
    """
    seconds: dict[int, list[float]] = {value: [] for value in values}
    peaks: dict[int, list[float]] = {value: [] for value in values}
    for _ in range(GROWTH_ROUNDS):
        for value in values:
            own = {"batch_size": value} if name == "batch_size" else {"arguments": arguments | {name: value}}
            found = measure_step(StepSpec(variant, **({"arguments": arguments} | own), steps=3))
            seconds[value] += found["seconds"]
            peaks[value].append(found["peak_mb"] - found["start_mb"])
    times = [Measurement(str(value), "s", [min(found)]) for value, found in seconds.items()]
    memory = [Measurement(str(value), "MB", found) for value, found in peaks.items()]
    title = f"quickest step by {label} (grows with its power {power_of_growth(values, times):.1f})"
    return [
        Table(title, times, x_label=label, x=values),
        Table(f"memory of the step by {label}", memory, x_label=label, x=values),
    ]
