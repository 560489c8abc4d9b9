"""Measure what this project costs on this machine: time and memory, each against a baseline, in turn.

    python CaiT/benchmark.py model          # images answered a second, against timm, ONNX Runtime and OpenVINO
    python CaiT/benchmark.py input          # images made ready a second, against paddle.vision and timm
    python CaiT/benchmark.py memory         # peak memory and time of a training step by memory option
    python CaiT/benchmark.py train          # its wait for images; its growth with resolution, depth and batch
    python CaiT/benchmark.py startup        # infer.py on one image, from the start of its process

Prints a table, and leaves it as JSON and as a chart in `output/benchmark` (`--output`). Exit code 0 however it ended:
whether a goal was reached stands in the table.
"""

import interruptible  # noqa: F401  # isort: skip

import argparse
import importlib
import pathlib
import shlex
import sys

from cait.command.arguments import ArgumentParser, output_folder, positive
from cait.command.run import run_command

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Name, and what it measures. `cait.bench.NAME` has `add_arguments(parser)` and `run(arguments) -> Report`.
BENCHMARKS = {
    "model": "images answered a second against timm, ONNX Runtime and OpenVINO; exactness, operators, growth",
    "input": "images made ready a second, against paddle.vision and timm",
    "memory": "peak memory and time of a training step by memory option",
    "train": "what training waits for images; growth of a step with resolution, depth and batch",
    "startup": "infer.py on one image against importing Paddle and creating the predictor",
}


def _arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="WHAT")
    for name, help_text in BENCHMARKS.items():
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.add_argument("--rounds", type=positive, default=7, help="number of measurements of each contestant")
        folder = output_folder(f"{name}.json", f"{name}.svg")
        command.add_argument(
            "--output", type=folder, default=ROOT / "output" / "benchmark", help="folder of the results"
        )
        importlib.import_module(f"cait.bench.{name}").add_arguments(command)
    args = parser.parse_args()
    args.command = shlex.join(["python", "CaiT/benchmark.py", *sys.argv[1:]])
    return args


def main() -> None:
    args = _arguments()
    report = importlib.import_module(f"cait.bench.{args.benchmark}").run(args)
    written = report.write(args.output)
    print(report.markdown())
    print(f"\nwritten: {', '.join(map(str, written))}")


if __name__ == "__main__":
    run_command(main)
