"""How long `infer.py` takes for one image, from the start of its process to the answer."""

import argparse
import os
import pathlib
import tempfile

from cait.bench.measure import command_seconds, measure_in_turn, run_command_line
from cait.bench.photos import photos
from cait.bench.report import Report, Table

SCRIPTS = pathlib.Path(__file__).resolve().parents[2]
GOAL = 1.25
BASELINE = "import paddle, create the predictor"
INFER = "infer.py on one image"
# What nobody who runs a program with Paddle Inference can do without.
CREATE = """
import sys
import paddle
from paddle import inference
program, parameters, threads = sys.argv[1:]
config = inference.Config(program, parameters)
if program.endswith(".json"):
    config.enable_new_ir()
    config.enable_new_executor()
config.enable_memory_optim()
config.disable_glog_info()
config.disable_gpu()
config.set_cpu_math_library_num_threads(int(threads))
config.enable_mkldnn()
inference.create_predictor(config)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.add_argument("--model_dir", "--model-dir", type=pathlib.Path, help="a bundle; default: XXS24, made now")


def run(args: argparse.Namespace) -> Report:
    """Measures `infer.py` against importing Paddle and creating the predictor, in processes of their own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.model_dir or write_bundle(pathlib.Path(scratch))
        image = pathlib.Path(scratch) / "photo.jpg"
        image.write_bytes(photos(1)[0])
        table = measure(folder, image, args.rounds)
    return Report("startup", args.command, [table], {"bundle": args.model_dir and str(args.model_dir)})


def measure(bundle: pathlib.Path, image: pathlib.Path, rounds: int) -> Table:
    """The table of seconds, of a bundle and an image that are there."""
    from cait.deploy.bundle import PARAMETERS, find_program

    program = find_program(bundle)
    contestants = {
        BASELINE: command_seconds(["-c", CREATE, program, bundle / PARAMETERS, str(os.cpu_count() or 1)]),
        INFER: command_seconds(
            [SCRIPTS / "infer.py", f"--img-path={image}", f"--model_dir={bundle}", "--use_gpu=False"]
        ),
    }
    measurements = measure_in_turn(contestants, "s", rounds)
    return Table("from process start to the end, one image", measurements, BASELINE, {INFER: GOAL})


def write_bundle(scratch: pathlib.Path, variant: str = "cait_xxs24_224") -> pathlib.Path:
    """The folder of a bundle of a variant with random weights, exported into a folder."""
    from cait.stand_in import write_stand_in
    from cait.zoo import create_model

    weights, bundle = scratch / f"{variant}.pdparams", scratch / "inference"
    write_stand_in(create_model(variant), weights)
    variants = f"--config_dir={SCRIPTS / 'configs' / f'{variant}.yaml'}"
    target = f"--save-inference-dir={bundle}"
    run_command_line([SCRIPTS / "export_model.py", variants, f"--model_path={weights.with_suffix('')}", target])
    return bundle
