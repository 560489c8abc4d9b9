"""Make data ready.

python CaiT/prepare_data.py digits                      # the demo's data set, into dataset/digits
python CaiT/prepare_data.py lists --data-path=dataset/LSVRC2012   # the list files of ImageNet, into txt/
"""

import argparse
import pathlib

from cait.errors import ArgumentParser, UsageError, run_command


def _digits(args) -> None:
    from cait.data.digits import write_digits

    written = write_digits(args.output)
    print(f"{args.output}: {'written' if written else 'already there'}")


def _lists(args) -> None:
    from cait.data.imagenet_lists import write_lists

    if args.seed < 0:
        raise UsageError(f"--seed must be a whole number from 0, not {args.seed}")
    for path, num_lines in write_lists(args.data_path, args.output, args.seed, args.force).items():
        print(f"{path}: {num_lines} lines")


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    digits = commands.add_parser("digits", help="scikit-learn's scanned digits as an ImageNet-style data set")
    digits.add_argument("--output", type=pathlib.Path, default=pathlib.Path("dataset/digits"))
    digits.set_defaults(run=_digits)
    lists = commands.add_parser("lists", help="train and validation lists of ImageNet as downloaded")
    lists.add_argument("--data-path", type=pathlib.Path, default=pathlib.Path("dataset/LSVRC2012"))
    lists.add_argument("--output", type=pathlib.Path, default=pathlib.Path("txt"))
    lists.add_argument("--seed", type=int, default=0, help="of the shuffled lists")
    lists.add_argument("--force", action="store_true", help="replace lists that are there")
    lists.set_defaults(run=_lists)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    run_command(main)
