"""How long `infer.py` takes for one image: to its answer, which is the first line it prints, and to its end."""

import argparse
import os
import pathlib
import tempfile

from cait.bench.measure import Measurement, measure_in_turn, run_command_line, seconds_to_first_line
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
predictor = inference.create_predictor(config)
print("created", flush=True)
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
        tables = measure(folder, image, args.rounds)
    return Report("startup", args.command, tables, {"bundle": args.model_dir and str(args.model_dir)})


def measure(bundle: pathlib.Path, image: pathlib.Path, rounds: int) -> list[Table]:
    """The tables of seconds to the answer and to the end, of a bundle and an image that are there."""
    from cait.deploy.bundle import PARAMETERS, find_program

    program = find_program(bundle)
    commands = {
        BASELINE: ["-c", CREATE, program, bundle / PARAMETERS, str(os.cpu_count() or 1)],
        INFER: [SCRIPTS / "infer.py", "--use_gpu=False", f"--model_dir={bundle}", f"--img-path={image}"],
    }
    ends: dict[str, list[float]] = {name: [] for name in commands}

    def contestant(name: str):
        def measure_one() -> float:
            answer, end = seconds_to_first_line(commands[name])
            ends[name].append(end)
            return answer

        return measure_one

    answers = measure_in_turn({name: contestant(name) for name in commands}, "s", rounds)
    whole = [Measurement(name, "s", values[-rounds:]) for name, values in ends.items()]
    return [
        Table("from process start to the answer, one image", answers, BASELINE, {INFER: GOAL}),
        Table("from process start to its end, one image", whole, BASELINE),
    ]


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
