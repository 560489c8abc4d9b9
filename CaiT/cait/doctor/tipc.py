"""Checks whether the TIPC chain runs: data, training, evaluation, export and inference by the shipped files."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

from cait.bench.measure import environment_of_a_process, last_line, tell
from cait.doctor.report import FAILED, MISSING, OK, ROOT, Line
from cait.doctor.settings import Settings

MODE = "lite_train_lite_infer"
FILES = {"cpu": "train_infer_python.txt", "gpu": "train_gpu_infer_python.txt"}


def tipc(settings: Settings) -> Iterator[Line]:
    """Both scripts of the lite mode, with the parameter file of the device."""
    file = f"test_tipc/configs/CaiT/{FILES[settings.device]}"
    if not (ROOT / file).is_file():
        yield Line("tipc", MODE, MISSING, f"this is no checkout of the repository: {file} is missing")
        return
    scripts = pathlib.Path(sys.executable).parent  # their `python` is this one
    environment = environment_of_a_process() | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    for script in ("prepare.sh", "test_train_inference_python.sh"):
        tell(f"bash test_tipc/{script} {file} {MODE}")
        words = ["bash", f"test_tipc/{script}", file, MODE]
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace")
        if done.returncode:
            ended = f"exit code {done.returncode}, {last_line(done.stderr, done.stdout)}"
            yield Line("tipc", script, FAILED, ended)
            return
    yield Line("tipc", f"{MODE} of {FILES[settings.device]}", OK)
