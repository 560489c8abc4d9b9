"""Classify images with an exported bundle, through Paddle Inference.

    python CaiT/infer.py --img-path=photo.jpg                                   # bundle in CaiT/infer
    python CaiT/infer.py --img-path=folder --model_dir=output/my_run/inference --batch-size=16 --output=results.csv

`--img-path` is a file, a folder, a pattern in quotes, or a .txt list. Exit code 1 if an image could not be read.
"""

import argparse
import os
import pathlib

from cait.errors import ArgumentParser, CaitError, UsageError, boolean, positive, run_command

HERE = pathlib.Path(__file__).resolve().parent


def _arguments() -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--img-path", "--img_path", "--image_dir", required=True, dest="images")
    parser.add_argument("--model_dir", "--model-dir", default=HERE / "infer", help="folder of the bundle")
    parser.add_argument("--batch-size", "--batch_size", type=positive, default=1)
    parser.add_argument("--top-k", "--top_k", type=positive, default=1, help="classes shown for each image")
    on = {"type": boolean, "nargs": "?", "const": True}
    parser.add_argument("--use-gpu", "--use_gpu", default=None, help="default: a GPU where there is one", **on)
    parser.add_argument("--enable_mkldnn", default=True, help="oneDNN on the CPU", **on)
    parser.add_argument("--cpu_threads", type=positive, default=os.cpu_count() or 1)
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="fp32")
    parser.add_argument("--exif", default=True, help="turn images as their EXIF orientation says", **on)
    parser.add_argument("--output", type=pathlib.Path, help="also write the results: .csv or .jsonl")
    args = parser.parse_args()
    if args.output and args.output.suffix not in (".csv", ".jsonl"):
        raise UsageError(f"--output {args.output}: must end in .csv or .jsonl")
    return args


def main() -> None:
    args = _arguments()
    from cait.deploy.classify import Reader, classify, find_images  # after the flags are checked
    from cait.deploy.predictor import Engine, Predictor
    from cait.device import has_gpu
    from cait.results import result_line, write_results

    paths = find_images(args.images)
    use_gpu = has_gpu() if args.use_gpu is None else args.use_gpu
    predictor = Predictor(args.model_dir, Engine(use_gpu, args.enable_mkldnn, args.cpu_threads, args.precision))
    names = predictor.description.class_names
    results = classify(predictor, Reader(predictor.description, args.exif), paths, args.batch_size, args.top_k)
    failed = 0
    with write_results(args.output, names) as write:
        for result in results:
            failed += bool(result.error)
            print(result.error or "\n".join(result_line(result.path, i, names[i], prob) for i, prob in result.classes))
            write(result.path, result.classes)
    if failed:
        raise CaitError(f"{failed} of {len(paths)} images could not be read")


if __name__ == "__main__":
    run_command(main)
