"""The log parser of the benchmark: images a second from training's lines."""

import json
import os
import pathlib
import re
import subprocess

from cait.errors import CaitError
from cait.files import write_text
from harness import ROOT

_STEP = re.compile(
    r"Epoch\[\d+/\d+\], Step\[(\d+)/\d+\].*\bloss: (\S+) .*\bavg_batch_cost: (\S+) sec ips: (\S+) samples/s"
)


def parse_speed(log: pathlib.Path) -> tuple[float, float]:
    """Mean images a second and the last loss that a training log tells.

    Lines of a first step are left out: they hold the start of the readers and the first use of every kernel.

    Raises:
        CaitError: there is no other line.
    """
    found = [match.groups() for match in map(_STEP.search, log.read_text(errors="replace").splitlines()) if match]
    lines = [(float(loss), float(ips)) for step, loss, _, ips in found if int(step) > 0]
    if not lines:
        raise CaitError(f"{log}: tells no ips after a first step; training needs at least two steps")
    return sum(ips for _, ips in lines) / len(lines), lines[-1][0]


def write_speed(log: pathlib.Path, output: pathlib.Path, model: str, batch: int, item: str, device_num: str) -> str:
    """Writes the figures as the benchmark's collectors read them; returns a sentence.

    The speed in the log is that of one process; `ips` is that of all. `model_run_time`, in seconds, is taken from the
    environment, where the benchmark's scripts leave it.
    """
    import paddle  # seconds, and nothing else of the harness needs it

    ips_per_card, loss = parse_speed(log)
    cards = int(device_num.rpartition("C")[2])
    figures = {
        "model_branch": _git("symbolic-ref", "--short", "HEAD"),
        "model_commit": _git("rev-parse", "HEAD"),
        "model_name": f"{model}_bs{batch}_{item}_DP",
        "batch_size": batch,
        "fp_item": item,
        "run_process_type": "SingleP" if cards == 1 else "MultiP",
        "run_mode": "DP",
        "convergence_key": "loss:",
        "convergence_value": loss,
        "ips": round(cards * ips_per_card, 5),
        "ips_per_card": round(ips_per_card, 5),
        "speed_unit": "samples/s",
        "device_num": device_num,
        "model_run_time": os.environ.get("model_run_time"),  # noqa: SIM112 (as the benchmark's scripts export it)
        "frame_commit": paddle.version.commit,
        "frame_version": paddle.__version__,
    }
    write_text(output, json.dumps(figures, indent=2) + "\n")
    return f"{figures['ips']:.2f} samples/s ({item}, batch size {batch}, {device_num})"


def _git(*words: str) -> str:
    """What git says of the project; empty where it is no checkout, or has no branch."""
    try:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:  # no git on this machine
        return ""
