"""What this machine and environment are, and whether everything of this project works on them.

    python CaiT/doctor.py                            # versions, GPUs, compilers, codecs, space: to be put into an issue
    python CaiT/doctor.py --check                    # minutes: compares this machine's results with those expected
    python CaiT/doctor.py --check --only step memory --device cpu

Prints a report in which no path tells where things are kept, and leaves it in `output/doctor` (`--output`) as doctor.md
and doctor.json. Exit code 1 if anything differs or fails; what this machine does not have is no fault.
"""

import interruptible  # noqa: F401  # isort: skip

import argparse
import json
import pathlib
import shlex
import sys
from typing import Any

from cait.command.arguments import ArgumentParser, output_folder, path
from cait.command.run import run_command
from cait.errors import CaitError, UsageError
from cait.files import writable_folder, write_text

HERE = pathlib.Path(__file__).resolve().parent
TEXT, DOCUMENT = "doctor.md", "doctor.json"


def _arguments() -> argparse.Namespace:
    from cait.doctor.checks import CHECKS

    shown = "\n".join(f"  {name:<11} {words}" for name, (_, _, words) in CHECKS.items())
    parser = ArgumentParser(description=__doc__, epilog=f"checks:\n{shown}")
    parser.add_argument("--check", action="store_true", help="also run the checks")
    parser.add_argument("--only", nargs="+", choices=CHECKS, help="checks to run; default: all")
    variant = HERE / "configs" / "cait_xxs24_224.yaml"
    parser.add_argument("-cfg", type=path, default=variant, metavar="YAML", help="the model; default: XXS24 at 224")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="where to compute; default: on a GPU if there is one")
    folder: dict[str, Any] = {"type": output_folder(TEXT, DOCUMENT), "default": HERE.parent / "output" / "doctor"}
    parser.add_argument("--output", help="folder of the report", **folder)
    args = parser.parse_args()
    if args.only and not args.check:
        raise UsageError("--only needs --check")
    args.command = shlex.join(["python", "CaiT/doctor.py", *sys.argv[1:]])
    return args


def main() -> None:
    args = _arguments()
    writable_folder(args.output)
    from cait.doctor import machine, report
    from cait.doctor.checks import CHECKS, run_checks
    from cait.machine.device import has_gpu

    if args.device == "gpu" and not has_gpu():
        raise UsageError("--device gpu: there is no GPU, or this PaddlePaddle is the CPU build")
    facts = machine.describe()
    text = report.machine_text(facts)
    print(text, flush=True)
    lines = []
    if args.check:
        for line in run_checks(args.only or list(CHECKS), args.cfg, args.device or ("gpu" if has_gpu() else "cpu")):
            lines.append(line)
            print(report.public(line.text()), flush=True)
        text += f"\n\n{report.checks_text(lines, args.command)}"
    write_text(args.output / TEXT, f"{text}\n")
    write_text(args.output / DOCUMENT, json.dumps(report.document(facts, lines, args.command), indent=1) + "\n")
    print(f"\nwritten: {args.output / TEXT} and {DOCUMENT}")
    if not report.has_passed(lines):
        wrong = [line for line in lines if not report.has_passed([line])]
        raise CaitError(f"{len(wrong)} of {len(lines)} checks differ or failed; {args.output / TEXT} has them all")


if __name__ == "__main__":
    run_command(main)
