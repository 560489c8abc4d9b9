"""The other end of `cait.bench.runtime_worker`: starts an engine's process and tells it when to run."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from cait.bench.measure import check_process, environment_of_a_process
from cait.bench.runtime_worker import Spec
from cait.errors import CaitError


class RuntimeProcess:
    """An engine in a process of its own; leaving its context ends it.

    Attributes:
        missing: why there is no such engine here; empty if it is ready.
        start_mb, peak_mb: resident memory before the model was there, and the largest until now.
        gpu_peak_mb: of an engine on a GPU, the largest memory for tensors there until now.

    Raises:
        CaitError: the process failed.
    """

    def __init__(
        self,
        kind: str,
        source: str | os.PathLike,
        batch_size: int,
        precision: str,
        threads: int,
    ):
        spec = Spec(kind, str(source), batch_size, precision, threads)
        self._command = [sys.executable, "-m", "cait.bench.runtime_worker", json.dumps(dataclasses.asdict(spec))]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed on leaving the context)
        environment = environment_of_a_process() | {"OMP_NUM_THREADS": str(threads)}
        streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        self._process = subprocess.Popen(self._command, env=environment, text=True, **streams)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self.start_mb = self.peak_mb = 0.0
        self.gpu_peak_mb: float | None = None
        try:
            self.missing = self._answer()["missing"]
        except CaitError:
            self.__exit__()
            raise

    def __enter__(self) -> "RuntimeProcess":
        return self

    def __exit__(self, *_: Any) -> None:
        self._input.close()
        self._process.wait()
        self._output.close()
        self._errors.close()

    def seconds(self, runs: int) -> list[float]:
        """Measures some runs, one after the other, after one that does not count; returns the seconds of each."""
        found = self._ask(f"{1 + runs}")
        self.start_mb, self.peak_mb, self.gpu_peak_mb = found["start_mb"], found["peak_mb"], found["gpu_peak_mb"]
        return found["seconds"][1:]

    def operators(self, times: int) -> dict[str, float]:
        """Milliseconds a run of each kind of operator; of an engine of PaddlePaddle, and once only."""
        return self._ask(f"operators {times}")

    def _ask(self, line: str) -> dict[str, Any]:
        self._input.write(f"{line}\n")
        self._input.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        for line in self._output:
            if line.startswith("{"):  # what libraries print is not an answer
                return json.loads(line)
        self._errors.seek(0)
        check_process(self._command, self._process.wait() or 1, "", self._errors.read())
        raise AssertionError("a failed process raises")
