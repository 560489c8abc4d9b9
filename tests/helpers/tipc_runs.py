"""TIPC's scripts, run as a user runs them, and the tables that they end with."""

import os
import pathlib
import re
import subprocess
import sys

from project import ROOT

TIPC = ROOT / "test_tipc"
CONFIGS = TIPC / "configs" / "CaiT"
SHIPPED = CONFIGS / "train_infer_python.txt"
LITE = "lite_train_lite_infer"
CHAIN = "test_train_inference_python.sh"


def write_file(path, replaced, source=SHIPPED):
    """A parameter file: the shipped one with some lines, by number, replaced."""
    lines = source.read_text().splitlines()
    for number, line in replaced.items():
        lines[number - 1] = line
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def run_script(name, *words, cwd=ROOT, output=None, breaking="", root=ROOT):
    """Runs a script of test_tipc as a user would."""
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "BREAK": breaking, "TIPC_OUTPUT": str(output or "")}
    command = ["bash", str(root / "test_tipc" / name), *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def table_of(result):
    """Step -> result, from the table at the end."""
    rows = re.findall(r"^(\S.*?) +\d+\.\d  (passed|failed|skipped)", result.stdout, re.MULTILINE)
    return dict(rows)
