"""The time that `infer.py` takes for one image: to its answer, which is the first line it prints, and to its end."""

import argparse
import os
import pathlib
import tempfile

from cait.bench.exported import write_bundle
from cait.bench.measure import SCRIPTS, Measurement, measure_in_turn, seconds_to_first_line
from cait.bench.photos import photos
from cait.bench.report import Report, Table
from cait.command.arguments import path
from cait.machine.processor import usable_cores

GOAL = 1.25
BASELINE, PLAIN = "import paddle, create the predictor", "the same of the plain program"
INFER, INFER_PLAIN = "infer.py on one image", "infer.py --no-fused-ops"
# What nobody who runs a program with Paddle Inference can do without.
CREATE = """
import sys
import paddle
from paddle import inference
program, parameters, threads, *libraries = sys.argv[1:]
for library in libraries:
    paddle.utils.cpp_extension.load_op_meta_info_and_register_op(library)
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
    parser.add_argument("--model_dir", "--model-dir", type=path, help="a bundle; default: XXS24, exported first")


def run(args: argparse.Namespace) -> Report:
    """Measures `infer.py` against importing Paddle and creating the predictor, in processes of their own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.model_dir or write_bundle(pathlib.Path(scratch) / "bundle", "cait_xxs24_224")
        image = pathlib.Path(scratch) / "photo.jpg"
        image.write_bytes(photos(1)[0])
        tables = measure(folder, image, args.rounds)
    sizes = {"bundle": args.model_dir and str(args.model_dir)}
    note = "All files are in the system's memory, and the fused operators are built, which takes half a minute once."
    return Report("startup", args.command, tables, sizes, [note])


def measure(bundle: pathlib.Path, image: pathlib.Path, rounds: int) -> list[Table]:
    """The tables of seconds to the answer and to the end, of a bundle and an image that are there.

    The baseline runs the program that `infer.py` would run; where that is the fused one, the plain one is shown too.
    """
    from cait.deploy.bundle import PARAMETERS, read_description
    from cait.deploy.engine import Engine
    from cait.deploy.engine_config import choose_program
    from cait.ops.library import LIBRARY, folder

    description, threads = read_description(bundle), str(usable_cores())
    plain: list[str | os.PathLike] = ["-c", CREATE, bundle / description.program, bundle / PARAMETERS, threads]
    (program, parameters), _ = choose_program(Engine(precision=description.precision), description)
    commands: dict[str, list[str | os.PathLike]] = {
        BASELINE: plain,
        INFER: [SCRIPTS / "infer.py", "--use_gpu=False", f"--model_dir={bundle}", f"--img-path={image}"],
    }
    if program != description.program:
        commands[BASELINE] = ["-c", CREATE, bundle / program, bundle / parameters, threads, folder() / LIBRARY]
        commands |= {PLAIN: plain, INFER_PLAIN: [*commands[INFER], "--no-fused-ops"]}
    ends: dict[str, list[float]] = {name: [] for name in commands}

    def contestant(name: str):
        def measure_one() -> float:
            answer, end = seconds_to_first_line(commands[name])
            ends[name].append(end)
            return answer

        return measure_one

    title = "from process start to the answer, one image"
    answers = measure_in_turn(title, {name: contestant(name) for name in commands}, "s", rounds)
    whole = [Measurement(name, "s", values[-rounds:]) for name, values in ends.items()]
    return [
        Table(title, answers, BASELINE, {INFER: GOAL}),
        Table("from process start to its end, one image", whole, BASELINE),
    ]
