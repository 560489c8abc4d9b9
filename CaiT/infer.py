"""Classify images with an exported bundle, through Paddle Inference.

    python CaiT/infer.py --img-path=photo.jpg                                   # bundle in CaiT/infer
    python CaiT/infer.py --img-path=folder --model_dir=output/my_run/inference --batch-size=16 --output=results.csv

`--img-path` is a file, a folder, a pattern in quotes, or a .txt list. Exit code 1 if an image could not be read.
"""

import interruptible  # noqa: F401  # isort: skip

import argparse
import pathlib
import sys
from typing import Any

from cait.command.arguments import ON, ArgumentParser, add_bundle_flags, output_file, output_folder, positive, text_path
from cait.command.run import run_command
from cait.errors import CaitError, UsageError

REPORTS = ("benchmark.log", "benchmark.json")
HERE = pathlib.Path(__file__).resolve().parent


def _arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--img-path", "--img_path", "--image_dir", type=text_path, required=True, dest="images")
    add_bundle_flags(parser, HERE / "infer")
    parser.add_argument("--batch-size", "--batch_size", type=positive, default=1)
    parser.add_argument("--top-k", "--top_k", type=positive, default=1, help="classes shown for each image")
    parser.add_argument("--use_tensorrt", default=False, help="use TensorRT, on a GPU", **ON)
    parser.add_argument("--enable_mkldnn", default=True, help="use oneDNN on the CPU", **ON)
    results = "also write the results: .csv, for Excel too, or .jsonl"
    parser.add_argument("--output", type=output_file(".csv", ".jsonl"), help=results)
    npy: dict[str, Any] = {"nargs": "?", "const": "output_inference_engine.npy", "metavar": "FILE.npy"}
    parser.add_argument("--reprod_log", type=output_file(".npy"), help="also write the results for reprod_log", **npy)
    parser.add_argument("--benchmark", default=False, help="warm up, time the stages, print AutoLog's report", **ON)
    parser.add_argument("--save_log_path", type=output_folder(*REPORTS), help=f"folder for it: {' and '.join(REPORTS)}")
    args = parser.parse_args()
    if args.save_log_path and not args.benchmark:
        raise UsageError("--save_log_path needs --benchmark=True")
    return args


def main() -> None:
    args = _arguments()
    from cait.deploy.bundle import read_beside  # after the flags are checked

    beside = read_beside(args.model_dir, args.precision, args.trusted_digest)
    with beside as reading:  # importing Paddle takes most of a second
        from cait.deploy import autolog, classify
        from cait.deploy.engine import Engine
        from cait.deploy.predictor import Predictor
        from cait.machine.device import has_gpu
        from cait.records.predictions import result_line, write_reprod_log, write_results
    paths, description = classify.find_images(args.images), reading.result()
    names, read = description.class_names, classify.Reader(description, args.exif)
    images = None if args.benchmark else classify.read_ahead(paths, read, 2 * args.batch_size)
    use_gpu = has_gpu() if args.use_gpu is None else args.use_gpu
    how = (use_gpu, args.enable_mkldnn, args.cpu_threads, args.precision, args.use_tensorrt, args.batch_size)
    predictor = Predictor(args.model_dir, Engine(*how, fused=not args.no_fused_ops), description=description)
    print(predictor.program, file=sys.stderr)
    stopwatch = autolog.Stopwatch() if args.benchmark else None
    if stopwatch:
        autolog.warm_up(predictor, min(args.batch_size, len(paths)))
    kept, failed = [], 0
    with autolog.GpuSampler(use_gpu and args.benchmark) as gpu, write_results(args.output, names) as write:
        for result in classify.classify(predictor, read, paths, args.batch_size, args.top_k, stopwatch, images):
            failed += bool(result.error)
            print(result.error or "\n".join(result_line(result.path, i, names[i], prob) for i, prob in result.classes))
            write(*result)
            kept += [result.classes] if args.reprod_log else []
    if any(kept):
        write_reprod_log(args.reprod_log, classify.as_arrays(kept))
    if stopwatch and failed < len(paths):
        values = autolog.measurements(predictor, stopwatch, gpu, args.batch_size, len(paths) - failed)
        print(autolog.report(values, args.save_log_path))
    if failed:
        raise CaitError(f"{failed} of {len(paths)} images could not be read")


if __name__ == "__main__":
    run_command(main, leave_at_once=True)
