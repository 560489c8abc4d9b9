"""Prove, step by step, that this CaiT is the reference's: forward, preprocessing, losses, gradients, training.

    python CaiT/check_alignment.py                          # a tiny model and XXS24, against the golden files
    python CaiT/check_alignment.py --models all             # all ten variants; the two largest need minutes and 8 GB
    python CaiT/check_alignment.py --live --models cait_xxs24_224 --weights CaiT/cait_xxs24_224.pdparams --images DIR
    python CaiT/check_alignment.py --deploy CaiT/infer --weights CaiT/cait_xxs24_224.pdparams --images DIR

`--live` runs timm's model beside ours (pip install -r requirements-align.txt). `--deploy` compares an exported bundle
with the model it was made from. Exit code 1 if anything differs.
"""

import interruptible  # noqa: F401  # isort: skip

import argparse
import pathlib
from typing import Any

from cait.command.arguments import ArgumentParser, output_folder, path
from cait.command.run import run_command
from cait.errors import CaitError, UsageError
from cait.files import writable_folder, write_text

ROOT = pathlib.Path(__file__).resolve().parent.parent


def _arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", help="tiny, names of variants, or all")
    parser.add_argument("--steps", nargs="+", type=int, choices=range(1, 6), default=list(range(1, 6)))
    parser.add_argument("--golden", type=path, default=ROOT / "tests" / "golden", help="folder of golden files")
    parser.add_argument("--live", action="store_true", help="compare with timm itself, not with the golden files")
    parser.add_argument("--deploy", type=path, metavar="BUNDLE", help="compare an exported bundle with its weights")
    parser.add_argument("--weights", type=path, help="a checkpoint; --live without it uses weights by a rule")
    parser.add_argument("--images", type=path, help="a folder of images; --live without it uses noise")
    logs: dict[str, Any] = {
        "type": output_folder("report.json"),
        "default": ROOT / "output" / "alignment",
        "help": "folder of the logs",
    }
    parser.add_argument("--output", **logs)
    args = parser.parse_args()
    if args.deploy and not (args.weights and args.images):
        raise UsageError("--deploy needs --weights and --images")
    if not (args.live or args.deploy) and (args.weights or args.images):
        raise UsageError("--weights and --images need --live or --deploy: the golden files have their own")
    args.models = args.models or (["cait_xxs24_224"] if args.live else ["tiny", "cait_xxs24_224"])
    return args


def _rows(args: argparse.Namespace) -> list:
    from cait.align import ladder, parity
    from cait.align.references import golden_references, live_references
    from cait.machine.device import allow_tf32
    from cait.precision import default_dtype

    allow_tf32(False)  # whatever the environment says
    if args.deploy:
        rows, missing = parity.deployment_rows(args.deploy, args.weights, args.images)
        print(*(f"skipped: {name}: {reason}" for name, reason in missing.items()), sep="\n")
        return rows
    rows = []
    with default_dtype("float64"):
        if args.live:
            references = live_references(args.models, args.weights, args.images)
        else:
            references = golden_references(args.models, args.golden)
        for reference in references:
            if not (steps := [step for step in args.steps if step in reference.steps]):
                words = f"the golden files have steps {reference.steps}; --live has all five"
                raise UsageError(f"{reference.name}: {words}")
            print(f"{reference.name}: steps {', '.join(map(str, steps))}", flush=True)
            rows += ladder.climb(reference, steps, args.output)
    return rows


def main() -> None:
    args = _arguments()
    writable_folder(args.output)
    rows = _rows(args)
    from cait.align.verdict import report, table

    write_text(args.output / "report.json", report(rows))
    print(table(rows))
    if failed := [row for row in rows if not row.passed]:
        raise CaitError(f"{len(failed)} of {len(rows)} arrays differ; {args.output} has the logs and report.json")
    print(f"all {len(rows)} arrays agree; {args.output} has the logs and report.json")


if __name__ == "__main__":
    run_command(main)
