"""The command line of `tipc.py`."""

import argparse
import os
import pathlib
import shlex
import subprocess
import sys
from typing import Any

from cait.command import stops
from cait.command.arguments import ArgumentParser, output_file, path, text_path
from cait.errors import CaitError, UsageError
from cait.files import user_path
from harness import ROOT
from harness.compare import TOLERANCES, check_accuracy, compare, verify_bundle
from harness.data import prepare_command
from harness.onnx import OnnxParameters, onnx_prepare_command, onnx_steps
from harness.parameters import MODES, Parameters
from harness.plan import plan
from harness.runner import Runner
from harness.speed import write_speed
from harness.steps import accuracy_in

ONNX_MODE = "paddle2onnx_infer"


def _read(args) -> tuple[Parameters | OnnxParameters, str]:
    """The parameter file and the mode; the file is named from the folder the caller is in."""
    modes = (*MODES, ONNX_MODE)
    if args.mode not in modes:
        raise UsageError(f"unknown mode {args.mode!r}; there are {', '.join(modes)}")
    if not args.file.is_file():
        raise UsageError(f"{args.file}: no such parameter file")
    return (OnnxParameters if args.mode == ONNX_MODE else Parameters)(args.file), args.mode


def _check(args) -> None:
    _read(args)
    print(f"{args.file}: every line is as it must be")


def _prepare(args) -> None:
    parameters, mode = _read(args)
    if isinstance(parameters, OnnxParameters):
        words = onnx_prepare_command(parameters)
    else:
        words = prepare_command(parameters, mode)
    print(shlex.join(words), flush=True)
    code = subprocess.run(words, cwd=ROOT).returncode
    if code:
        stops.wait_for_own(code)
        raise CaitError(f"the data for {mode} could not be made (exit code {code})")


def _run(args) -> int:
    parameters, mode = _read(args)
    chosen = os.environ.get("TIPC_OUTPUT")
    # Else relative to the project, so that commands can be read, and repeated from there.
    folder = pathlib.Path(user_path(chosen)).absolute() if chosen else pathlib.Path("test_tipc/output")
    output = folder / parameters.value(2) / mode
    os.chdir(ROOT)
    if isinstance(parameters, OnnxParameters):
        return Runner(output, "results_paddle2onnx.log").run(onnx_steps(parameters, output))
    steps = plan(parameters, mode, output, args.benchmark)
    return Runner(output, "results_python.log").run(steps)


def _accuracy(args) -> None:
    expected = args.expected if args.evaluation is None else accuracy_in(args.evaluation)
    if expected is None:
        raise CaitError(f"{args.evaluation}: tells no accuracy to compare with")
    print(check_accuracy(args.log, args.labels, args.folder, expected))


def _speed(args) -> None:
    print(write_speed(args.log, args.output, args.model_name, args.batch_size, args.fp_item, args.device_num))


def _arguments(description: str) -> argparse.Namespace:
    parser = ArgumentParser(description=description)
    commands = parser.add_subparsers(required=True)
    for name, function in (("check", _check), ("prepare", _prepare), ("run", _run)):
        command = commands.add_parser(name)
        command.add_argument("file", type=path)
        command.add_argument("mode")
        command.set_defaults(function=function)
    command.add_argument(
        "benchmark", nargs="?", default="", help="of benchmark_train: such as dynamic_bs8_fp32_DP_N1C1"
    )
    options = {
        "verify": (lambda args: print(verify_bundle(args.bundle, args.weights, args.start)), "bundle weights start?"),
        "compare": (lambda args: print(compare(args.table, args.log, args.precision)), "table log precision"),
        "accuracy": (_accuracy, "log labels folder expected? evaluation?"),
        "speed": (_speed, "log output model-name batch-size fp-item device-num"),
    }
    kinds: dict[str, Any] = {"expected": float, "batch-size": int, "folder": text_path, "precision": str}
    kinds["output"] = output_file(".json")
    for name, (function, flags) in options.items():
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        for flag in flags.split():
            word = flag.removesuffix("?")
            kind = kinds.get(word, str if "-" in word else path)
            choices: dict[str, Any] = {"choices": tuple(TOLERANCES)} if word == "precision" else {}
            command.add_argument(f"--{word}", type=kind, required=not flag.endswith("?"), **choices)
    return parser.parse_args()


def run(description: str) -> None:
    """Runs the command that was given.

    Args:
        description: for `-h`.
    """
    args = _arguments(description)
    code = args.function(args)
    if code:
        sys.exit(code)
