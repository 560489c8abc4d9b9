"""Show what a model looks at: class attention, rollout, talking heads, LayerScale, and the learning curves of runs.

    python CaiT/visualize.py --img-path=photo.jpg                             # XXS24 with CaiT/cait_xxs24_224.pdparams
    python CaiT/visualize.py --img-path=folder --model_path output/my_run/best_model output/my_run/epoch_10
    python CaiT/visualize.py --img-path=folder --model_dir=output/my_run/inference     # exported --with-attention
    python CaiT/visualize.py --runs output/my_run output/other_run

Models stand side by side, a folder gets contact sheets, all as PNG. Exit code 1 if an image could not be read.
"""

import interruptible  # noqa: F401  # isort: skip

import argparse
import pathlib
from typing import Any

from cait.command.arguments import ON, ArgumentParser, path, positive, text_path
from cait.command.run import run_command
from cait.errors import CaitError, UsageError
from cait.visualize import FIGURES
from cait.weights.find import find_weights

HERE = pathlib.Path(__file__).resolve().parent
WEIGHTS = "weights, without suffix; the config.yaml beside them is their config"


def _arguments() -> argparse.Namespace:
    from cait.config.flags import add_key_flag, given_keys

    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--img-path",
        "--img_path",
        "--image_dir",
        type=text_path,
        dest="images",
        help="an image, a folder, a pattern in quotes, or a .txt list",
    )
    several: dict[str, Any] = {"type": path, "nargs": "+", "default": []}
    parser.add_argument("--model_path", "--pretrained", "-pretrained", help=WEIGHTS, **several)
    parser.add_argument("--model_dir", "--model-dir", help="folders of bundles", **several)
    parser.add_argument(
        "-cfg",
        "--config_dir",
        type=path,
        metavar="YAML",
        help="config of the checkpoints; default: config.yaml beside each",
    )
    parser.add_argument(
        "--figures", nargs="+", choices=FIGURES, default=[], help="what to draw; default: everything that can be drawn"
    )
    parser.add_argument("--block", type=positive, help="self-attention block whose heads are shown; default: the last")
    parser.add_argument("--runs", help="folders of runs, or their metrics.jsonl, for learning curves", **several)
    parser.add_argument(
        "--max-images", "--max_images", type=positive, default=24, help="number of images of a folder, spread over it"
    )
    parser.add_argument("--exif", default=True, help="rotate images as their EXIF orientation says", **ON)
    parser.add_argument("--output", type=path, help="folder of the pictures; default: a new one under output/")
    parser.add_argument("--force", action="store_true", help="replace existing pictures")
    add_key_flag(parser)
    args = parser.parse_args()
    args.keys = {name: value for name, value, _ in given_keys(args)}
    args.models = args.model_path + args.model_dir
    if not (args.images or args.figures or args.models or args.runs):
        raise UsageError("--img-path names the images, --runs the runs; -h lists the flags")
    if args.model_dir and not args.model_path and (args.config_dir or args.keys):
        raise UsageError("-cfg and -o describe weights (--model_path); a bundle has its own description")
    return args


def main() -> None:
    args = _arguments()
    needs_models = args.images or args.figures or args.models
    default = [HERE / "cait_xxs24_224"] if needs_models and not args.models else []
    weights = [find_weights(path) for path in args.model_path or default]
    from cait.data.image_files import spread  # after the flags are checked: Paddle takes seconds
    from cait.deploy.classify import find_images
    from cait.visualize import job
    from cait.visualize.attention_models import open_models
    from cait.visualize.figures import choose_figures, file_names, open_folder, picture_stems

    models, figures, paths, runs = [], [], [], job.read_runs(args.runs)
    if needs_models:
        found = find_images(args.images) if args.images else []
        paths = spread(found, args.max_images)
        models = open_models(weights, args.model_dir, args.config_dir, args.keys)
        figures = choose_figures(args.figures, models, bool(paths), args.block or 0)
        if len(paths) < len(found):
            print(f"{len(paths)} of the {len(found)} images, spread over them; --max-images takes more")
    names = file_names(picture_stems(paths), figures, bool(runs))
    folder = open_folder(args.output, names, args.force)
    if runs:
        job.draw_curves(runs, folder)
    failed = job.draw_images(models, paths, figures, folder, args.block or 0, args.exif)
    print(f"the pictures are in {folder}")
    if failed:
        raise CaitError(f"{failed} of {len(paths)} images could not be read")


if __name__ == "__main__":
    run_command(main)
