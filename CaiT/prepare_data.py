"""Make data ready.

python CaiT/prepare_data.py digits                      # the demo's data set, into dataset/digits
python CaiT/prepare_data.py lists --data-path=dataset/LSVRC2012   # the list files of ImageNet, into txt/
python CaiT/prepare_data.py lite                        # a small data set of ImageNet's shape, into dataset/lite
"""

import pathlib

from cait.arguments import ArgumentParser, path, positive
from cait.errors import UsageError, run_command

HERE = pathlib.Path(__file__).resolve().parent


def _digits(args) -> None:
    from cait.data.digits import write_digits

    written = write_digits(args.output)
    print(f"{args.output}: {'written' if written else 'already there'}")


def _lists(args) -> None:
    from cait.data.imagenet_lists import write_lists

    if args.seed < 0:
        raise UsageError(f"--seed must be a whole number from 0, not {args.seed}")
    for file, num_lines in write_lists(args.data_path, args.output, args.seed, args.force).items():
        print(f"{file}: {num_lines} lines")


def _lite(args) -> None:
    from cait.data.lite import write_lite

    whole = [part == "whole" for part in (args.train, args.infer)]
    contents = write_lite(args.output, args.data_path, args.num_train, args.num_val, *whole)
    print(f"{args.output}: images from {contents['source']}")
    for part, reason in contents["missing"].items():
        print(f"the whole set to {part} on is not here: {reason}")
    if args.weights is not None:
        from cait import config as cfg
        from cait.stand_in import place_weights
        from cait.zoo import build_model

        config = cfg.make_config(cfg.read_yaml(args.cfg))
        print(place_weights(args.weights, args.output / "weights", lambda: build_model(config)))


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    digits = commands.add_parser("digits", help="scikit-learn's scanned digits as an ImageNet-style data set")
    digits.add_argument("--output", type=path, default=pathlib.Path("dataset/digits"))
    digits.set_defaults(run=_digits)
    lists = commands.add_parser("lists", help="train and validation lists of ImageNet as downloaded")
    lists.add_argument("--data-path", type=path, default=pathlib.Path("dataset/LSVRC2012"))
    lists.add_argument("--output", type=path, default=pathlib.Path("txt"))
    lists.add_argument("--seed", type=int, default=0, help="of the shuffled lists")
    lists.add_argument("--force", action="store_true", help="replace lists that are there")
    lists.set_defaults(run=_lists)
    lite = commands.add_parser("lite", help="a sample of ImageNet where there is one, else digits in its shape")
    lite.add_argument("--output", type=path, default=pathlib.Path("dataset/lite"))
    lite.add_argument("--data-path", type=path, default=pathlib.Path("dataset/LSVRC2012"), help="ImageNet")
    lite.add_argument("--num-train", type=positive, default=20)
    lite.add_argument("--num-val", type=positive, default=10)
    for part in ("train", "infer"):
        lite.add_argument(f"--{part}", choices=("sample", "whole"), default="sample", help="whole: links to ImageNet")
    lite.add_argument("--weights", type=path, help="weights to place there, without suffix; random if missing")
    lite.add_argument(
        "-cfg", type=path, default=HERE / "configs" / "cait_xxs24_224.yaml", help="model of the random weights"
    )
    lite.set_defaults(run=_lite)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    run_command(main)
