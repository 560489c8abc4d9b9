"""Checks two processes that train together: against one process, and when one stalls, stops or is killed.

    python -m cait.doctor.peers '{"fault": "", "processes": 2, ...}'

makes some steps in so many processes; with a fault, the last one has it before the second step.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from cait.bench.measure import environment_of_a_process, last_line, tell
from cait.bench.step import StepSpec, Trainer, difference_of
from cait.command.run import run_command
from cait.distributed.launch import must_start, share_cores, start
from cait.doctor.report import DIFFERS, FAILED, MISSING, OK, Line, judged
from cait.doctor.settings import Settings

CHECK = "processes"
STEPS = 3
ALLOWED = 1e-4  # of the largest gradient, between one process and two
END_SECONDS = 60.0  # within which a run whose peer is gone has ended: 30 s of silence, and what it takes to start


@dataclasses.dataclass(frozen=True)
class Run:
    """What `python -m cait.doctor.peers` does.

    Attributes:
        step: of all processes together, as a dictionary; its weights and gradients go to files for each process.
        processes: how many.
        fault: what the last process does before the second step: "stall", "stop" or "die"; empty: nothing.
        seconds: that it stalls.
    """

    step: dict
    processes: int
    fault: str = ""
    seconds: float = 0.0


def check(settings: Settings) -> Iterator[Line]:
    """One process and two, and two of which one has a fault."""
    import paddle

    from cait.machine.device import select_device

    select_device(settings.device)
    if settings.device == "gpu" and paddle.device.cuda.device_count() < 2:
        yield Line(CHECK, "two processes", MISSING, "this machine has one GPU")
        return
    step = StepSpec(settings.model, 2 * settings.batch_size, device=settings.device, golden=True, steps=STEPS)
    yield from _equal(settings, step)
    step = dataclasses.replace(step, batch_size=2)
    stall = f"one stalls for {settings.stall_seconds:g} s, and the run goes on"
    yield _ends(stall, Run(dataclasses.asdict(step), 2, "stall", settings.stall_seconds), "")
    words = "nothing was heard of process 1"
    yield _ends("one is stopped, and the run ends", Run(dataclasses.asdict(step), 2, "stop"), words)
    words = "process 1 ended without a word"
    yield _ends("one is killed, and the run ends", Run(dataclasses.asdict(step), 2, "die"), words)


def _equal(settings: Settings, step: StepSpec) -> Iterator[Line]:
    """The gradients of one process and two, and the weights of the two."""
    files: dict[tuple[str, int, int], str] = {}
    for processes in (1, 2):
        stem: dict[str, Any] = {kind: settings.file(f"{kind}-of-{processes}") for kind in ("gradients", "weights")}
        run = Run(dataclasses.asdict(dataclasses.replace(step, **stem)), processes)
        exit_code, words, _ = _start(run, END_SECONDS + settings.stall_seconds)
        if exit_code:
            yield Line(CHECK, f"{processes} processes", FAILED, words)
            return
        files |= {
            (kind, processes, rank): f"{path}{rank}.npy" for kind, path in stem.items() for rank in range(processes)
        }
    difference = difference_of(files["gradients", 2, 0], files["gradients", 1, 0])
    yield judged(CHECK, "two with half the batch, against one", difference, ALLOWED, of="the largest gradient")
    same = np.array_equal(*(np.load(files["weights", 2, rank]) for rank in range(2)))
    detail = f"the weights after {STEPS} steps are {'equal bit for bit' if same else 'not the same'}"
    yield Line(CHECK, "both of two", OK if same else DIFFERS, detail)


def _ends(name: str, run: Run, expected: str) -> Line:
    """Of a run with a fault: that it ends as it should, with these words or, without any, as if there were no fault."""
    exit_code, words, seconds = _start(run, END_SECONDS + run.seconds)
    is_right = (exit_code == 0 and not expected) or (exit_code == 1 and bool(expected) and expected in words)
    detail = f"it ended after {seconds:.0f} s with exit code {exit_code}{words and f', {words}'}"
    return Line(CHECK, name, OK if is_right else FAILED, detail, {"seconds": seconds, "exit_code": exit_code})


def _start(run: Run, limit: float) -> tuple[int, str, float]:
    """Exit code, last words and seconds of a run; one that does not end is killed after `limit` seconds."""
    tell(f"{run.processes} processes{run.fault and f', of which one has a fault: {run.fault}'}")
    words = [sys.executable, "-m", "cait.doctor.peers", json.dumps(dataclasses.asdict(run))]
    started = time.monotonic()
    try:
        done = subprocess.run(
            words, env=environment_of_a_process(), capture_output=True, text=True, errors="replace", timeout=limit
        )
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL, f"it had not ended after {limit:.0f} s", time.monotonic() - started
    last = last_line(done.stderr, done.stdout) if done.returncode else ""
    return done.returncode, last, time.monotonic() - started


def _fault(run: Run) -> None:
    if run.fault == "stall":
        time.sleep(run.seconds)
    elif run.fault:
        os.kill(os.getpid(), {"stop": signal.SIGSTOP, "die": signal.SIGKILL}[run.fault])


def _train(run: Run) -> None:
    import paddle

    from cait.distributed import collectives
    from cait.machine.device import select_device

    step = StepSpec(**run.step)
    select_device(step.device)
    with collectives.joined():
        trainer, rank, processes = Trainer(step), collectives.rank(), collectives.world_size()
        trainer.images, trainer.labels = trainer.images[rank::processes], trainer.labels[rank::processes]
        for number in range(step.steps):
            if number == 1 and rank == processes - 1:
                _fault(run)
            trainer.backward(share=1.0 / processes)
            collectives.sum_gradients(trainer.model.parameters())
            if number == 0 and step.gradients:
                np.save(f"{step.gradients}{rank}.npy", trainer.gradients())
            trainer.step()
        if step.device == "gpu":
            paddle.device.synchronize()
        if step.weights:
            np.save(f"{step.weights}{rank}.npy", trainer.weights())


def main() -> None:
    run = Run(**json.loads(sys.argv[1]))
    if must_start(run.processes):
        sys.exit(start(["-m", "cait.doctor.peers", *sys.argv[1:]], run.processes))
    share_cores()
    _train(run)


if __name__ == "__main__":
    run_command(main)
