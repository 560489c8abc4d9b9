"""Prove, step by step, that this CaiT is the reference's: forward, preprocessing, losses, gradients, training.

    python CaiT/check_alignment.py                          # a tiny model and XXS24, against the golden files
    python CaiT/check_alignment.py --models all             # all ten variants; the two largest need minutes and 8 GB
    python CaiT/check_alignment.py --live --models cait_xxs24_224 --weights CaiT/cait_xxs24_224.pdparams --images DIR

`--live` runs timm's model beside ours (pip install -r requirements-align.txt). Exit code 1 if anything differs.
"""

import argparse
import json
import pathlib

from cait.errors import ArgumentParser, CaitError, UsageError, run_command
from cait.files import read_text, writable_folder, write_text

ROOT = pathlib.Path(__file__).resolve().parent.parent


def _arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", help="tiny, names of variants, or all")
    parser.add_argument("--steps", nargs="+", type=int, choices=range(1, 6), default=list(range(1, 6)))
    parser.add_argument("--golden", type=pathlib.Path, default=ROOT / "tests" / "golden", help="folder of golden files")
    parser.add_argument("--live", action="store_true", help="against timm, not the golden files")
    parser.add_argument("--weights", type=pathlib.Path, help="with --live: a checkpoint; else weights by a rule")
    parser.add_argument("--images", type=pathlib.Path, help="with --live: a folder of images; else noise")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "output" / "alignment", help="of the logs")
    args = parser.parse_args()
    if not args.live and (args.weights or args.images):
        raise UsageError("--weights and --images need --live: the golden files have weights and images of their own")
    args.models = args.models or (["cait_xxs24_224"] if args.live else ["tiny", "cait_xxs24_224"])
    return args


def _references(args):
    from cait import align_golden, zoo
    from cait.model import CaiT

    names = ([] if args.live else ["tiny"]) + zoo.list_models() if args.models == ["all"] else args.models
    for name in names:
        if args.live:
            from cait.align_live import LiveReference
            from cait.data.image_files import image_files

            pictures = image_files(args.images) if args.images else None
            make = lambda classes, name=name: zoo.create_model(name, num_classes=classes)  # noqa: E731
            yield LiveReference(name, make, args.weights, pictures)
        elif name == "tiny":
            sizes = json.loads(read_text(args.golden / "train_tiny.json"))
            keys = ("patch_size", "embed_dim", "depth", "num_heads", "num_classes")
            sizes = {"image_size": sizes["img_size"], **{key: sizes[key] for key in keys}}
            yield align_golden.GoldenReference(args.golden, name, lambda sizes=sizes: CaiT(**sizes))
        else:
            zoo.variant_config(name)  # an unknown name is an error here
            yield align_golden.GoldenReference(args.golden, name, lambda name=name: zoo.create_model(name))


def main() -> None:
    args = _arguments()
    from cait import align, exchange  # after the flags are checked: importing Paddle takes seconds

    writable_folder(args.output)
    rows = []
    with exchange.float64():
        for reference in _references(args):
            steps = [step for step in args.steps if step in reference.steps]
            print(f"{reference.name}: steps {', '.join(map(str, steps)) or 'none'}", flush=True)
            rows += align.climb(reference, steps, args.output)
    write_text(args.output / "report.json", align.report(rows))
    print(align.table(rows))
    failed = [row for row in rows if not row.passed]
    if failed or not rows:
        raise CaitError(f"{len(failed)} of {len(rows)} arrays differ; {args.output} has the logs and report.json")
    print(f"all {len(rows)} arrays agree; {args.output} has the logs and report.json")


if __name__ == "__main__":
    run_command(main)
