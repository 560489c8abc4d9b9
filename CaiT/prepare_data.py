"""Make data ready.

python CaiT/prepare_data.py digits                      # the demo's data set, into dataset/digits
python CaiT/prepare_data.py lists --data-path=dataset/LSVRC2012   # the list files of ImageNet, into txt/
python CaiT/prepare_data.py lite                        # a small data set of ImageNet's shape, into dataset/lite
python CaiT/prepare_data.py check --data-path=photos --dataset=folder   # decodes every image; exit code 1: a bad one
"""

import interruptible  # noqa: F401  # isort: skip

import pathlib

from cait.command.arguments import ArgumentParser, from_zero, path, positive
from cait.command.run import run_command

XXS24 = pathlib.Path(__file__).resolve().parent / "configs" / "cait_xxs24_224.yaml"


def _digits(args) -> None:
    from cait.data.prepare.digits import write_digits

    print(f"{args.output}: {'written' if write_digits(args.output) else 'already there'}")


def _lists(args) -> None:
    from cait.data.prepare.imagenet_lists import write_lists

    for file, num_lines in write_lists(args.data_path, args.output, args.seed, args.force).items():
        print(f"{file}: {num_lines} lines")


def _lite(args) -> None:
    from cait.data.prepare.lite import write_lite

    whole = [part == "whole" for part in (args.train, args.infer)]
    contents = write_lite(args.output, args.data_path, args.num_train, args.num_val, *whole)
    missing = (f"the whole set to {part} on is not here: {reason}" for part, reason in contents["missing"].items())
    print(f"{args.output}: images from {contents['source']}", *missing, sep="\n")
    if args.weights is not None:
        from cait.weights.stand_in import place_weights
        from cait.zoo import model_of_yaml

        print(place_weights(args.weights, args.output / "weights", lambda: model_of_yaml(args.cfg)))


def _check(args) -> None:
    from cait.data.check import check_data

    check_data(args.data_path, args.dataset)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    digits = commands.add_parser("digits", help="make a data set of scikit-learn's scanned digits")
    digits.set_defaults(run=_digits)
    lists = commands.add_parser("lists", help="write the list files of ImageNet as downloaded")
    lists.add_argument("--seed", type=from_zero, default=0, help="seed of the shuffled lists")
    lists.add_argument("--force", action="store_true", help="replace existing lists")
    lists.set_defaults(run=_lists)
    lite = commands.add_parser(
        "lite", help="make a small data set: a sample of ImageNet if it is there, or digits in its shape"
    )
    for part, count in {"train": 20, "val": 10}.items():
        lite.add_argument(f"--num-{part}", type=positive, default=count)
    for part in ("train", "infer"):
        lite.add_argument(
            f"--{part}", choices=("sample", "whole"), default="sample", help="a sample, or links to the whole set"
        )
    lite.add_argument(
        "--weights", type=path, help="weights to place there, without suffix; random ones if the file is missing"
    )
    lite.add_argument("-cfg", type=path, default=XXS24, help="config of the model that gets random weights")
    lite.set_defaults(run=_lite)
    check = commands.add_parser("check", help="decode every image of a data set, and name those that cannot be read")
    check.add_argument("--dataset", choices=("imagenet2012", "folder", "cifar10", "cifar100"), default="imagenet2012")
    check.set_defaults(run=_check)
    for command, folder in ((digits, "dataset/digits"), (lists, "txt"), (lite, "dataset/lite")):
        command.add_argument("--output", type=path, default=pathlib.Path(folder))
    for command in (lists, lite, check):
        command.add_argument("--data-path", type=path, default=pathlib.Path("dataset/LSVRC2012"))
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    run_command(main)
