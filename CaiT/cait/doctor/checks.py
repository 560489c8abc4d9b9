"""The checks, each in a process of its own: what one of them breaks does not reach the others.

    python -m cait.doctor.checks NAME '{"model": "FILE.yaml", "device": "cpu", "scratch": "FOLDER"}'

prints every line of a check as JSON, as soon as it is known.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence

from cait.bench.measure import environment_of_a_process, last_line, tell
from cait.command.run import run_command
from cait.command.stops import wait_for_own
from cait.doctor.report import FAILED, Line
from cait.doctor.settings import Settings
from cait.zoo import model_of_yaml

# By name: the module in this package, the function in it, and what it looks at. They run in this order.
CHECKS = {
    "alignment": ("numerics", "alignment", "the alignment ladder against timm's numbers, in float64 and float32"),
    "step": ("numerics", "training_step", "a training step in each precision, against float32 on the CPU"),
    "repeats": ("numerics", "repeats", "training steps, twice: equal bit for bit"),
    "memory": ("numerics", "memory", "recomputation and attention in chunks, against the plain step"),
    "processes": ("peers", "check", "two processes against one; one that stalls, is stopped, is killed"),
    "deployment": ("deployment", "deployment", "export and every way to run a bundle, against the model"),
    "teacher": ("deployment", "teacher", "an ONNX file as a teacher"),
    "throughput": ("throughput", "throughput", "images a second and peak memory by batch size"),
    "tipc": ("tipc", "tipc", "the lite chain of TIPC"),
}
LIMIT_SECONDS = 1800.0  # for a check


def run_checks(names: Sequence[str], model: pathlib.Path, device: str) -> Iterator[Line]:
    """The lines of several checks of a model, as they come.

    Args:
        names: of CHECKS.
        model: YAML of the model.
        device: cpu or gpu.

    Raises:
        CaitError: it is no YAML of a model.
    """
    model_of_yaml(model)
    with tempfile.TemporaryDirectory(prefix="cait-doctor-", ignore_cleanup_errors=True) as scratch:
        settings = Settings(str(model.resolve()), device, scratch)
        for name in names:
            tell(f"{name}: {CHECKS[name][2]}")
            yield from run_check(name, settings)


def run_check(name: str, settings: Settings, limit: float = LIMIT_SECONDS) -> Iterator[Line]:
    """The lines of a check as they come; where it breaks or does not end within `limit` seconds, a last one says so."""
    words = [sys.executable, "-m", "cait.doctor.checks", name, json.dumps(dataclasses.asdict(settings))]
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            words,
            env=environment_of_a_process(),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        is_late = threading.Event()

        def end_late(process: subprocess.Popen = process, is_late: threading.Event = is_late) -> None:
            is_late.set()
            _kill(process)

        assert process.stdout is not None
        timer = threading.Timer(limit, end_late)
        timer.start()
        try:
            for line in process.stdout:
                if line.startswith("{"):  # what libraries print is none
                    yield Line(**json.loads(line))
            code = process.wait()
        finally:
            timer.cancel()
            _kill(process)
            process.wait()
            process.stdout.close()
        if is_late.is_set():
            yield Line(name, "the check itself", FAILED, f"it had not ended after {limit / 60:.0f} minutes")
        elif code:
            wait_for_own(code)
            errors.seek(0)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            yield Line(name, "the check itself", FAILED, f"it ended with {how}, {last_line(errors.read())}")


def _kill(process: subprocess.Popen) -> None:
    """With all that it started and left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _print(name: str, settings: Settings) -> None:
    module, function, _ = CHECKS[name]
    for line in getattr(importlib.import_module(f"cait.doctor.{module}"), function)(settings):
        print(json.dumps(line._asdict()), flush=True)


if __name__ == "__main__":
    run_command(lambda: _print(sys.argv[1], Settings(**json.loads(sys.argv[2]))))
