"""Keeps the processes of a run together: when one fails or falls silent, all of them end, for the same reason.

A process that waits in an all-reduce for one that is gone waits for ever: gloo has no time limit, and NCCL's is half an
hour. So beside the collectives there is a process of its own for each process of the run, see
`cait.distributed.watchdog_process`; the one of process 0 is connected with all others. Counts and other plain values go
this way too: what comes through the GPU is only there when the GPU has done all that it was given before.
"""

import contextlib
import io
import json
import os
import queue
import subprocess
import sys
import threading
import time
from typing import Any

from cait.command import stops
from cait.distributed import watchdog_process
from cait.errors import one_line

BEAT_SECONDS = 2.0
SILENCE_SECONDS = 30.0
DELIVERY_SECONDS = 5.0


class Watchdog:
    """One of the processes, from `listen` or `connect` and `join` to `finish` or `fail`.

    Args:
        rank: of this process, from 0.
        num_processes: of the run.
        is_spokesman: prints why the run ended; one process of each machine should.
        silence_seconds: after which a process that is not heard of counts as gone.
    """

    def __init__(self, rank: int, num_processes: int, is_spokesman: bool, silence_seconds: float = SILENCE_SECONDS):
        self.rank, self.num_processes, self.is_spokesman = rank, num_processes, is_spokesman
        self.silence_seconds = silence_seconds
        self._values: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        self._finished, self._is_ending = threading.Event(), threading.Lock()

    def listen(self) -> int:
        """Process 0: the port that the others connect to."""
        self._begin(None)
        return self._next()["port"]

    def connect(self, host: str, port: int) -> None:
        """The others: connect to process 0."""
        self._begin((host, port))

    def join(self) -> None:
        """Waits until all are connected.

        Raises:
            OSError: they are not in time, or process 0 cannot be reached.
        """
        message = self._next()
        if "end" in message:  # of one that was connected, and is gone already
            self._end(message["end"], message["exit_code"])
        if "connected" not in message:
            raise OSError(message.get("unconnected", "the process that watches it ended"))
        threading.Thread(target=self._hear, daemon=True).start()
        if starter := int(os.environ.get("CAIT_STARTER", 0)):  # which shall not end before this process
            threading.Thread(target=self._look_after, args=(starter,), daemon=True).start()

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank; all must call it. Values are what JSON holds; tuples become lists."""
        self._say({"value": value})
        return self._values.get()

    def finish(self) -> None:
        """Waits, however long it takes, until every process has come here."""
        self._say({"done": True})
        self._finished.wait()
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._input.close()
            self._process.wait(4 * DELIVERY_SECONDS)

    def fail(self, message: str, exit_code: int) -> None:
        """Ends the run: every process ends with this exit code, and the spokesmen print the message."""
        self._say({"failed": one_line(message), "exit_code": exit_code})
        time.sleep(4 * DELIVERY_SECONDS)  # the answer ends this process
        self._end(message, exit_code)

    def _begin(self, address: tuple[str, int] | None) -> None:
        settings = {
            "rank": self.rank, "num_processes": self.num_processes, "process": os.getpid(),
            "is_spokesman": self.is_spokesman, "silence": self.silence_seconds, "beat": BEAT_SECONDS,
            "delivery": DELIVERY_SECONDS,
        }  # fmt: skip
        words = [sys.executable, "-I", "-S", watchdog_process.__file__, json.dumps(settings), json.dumps(address)]
        # In a session of its own: what stops the group of this process is not meant for it.
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdin is not None and isinstance(self._process.stdout, io.BufferedReader)
        self._input = self._process.stdin
        self._messages = watchdog_process.lines(self._process.stdout.read1)

    def _next(self) -> dict:
        return next(self._messages, {})

    def _say(self, message: dict) -> None:
        with contextlib.suppress(OSError):  # if it is gone, reading from it tells
            self._input.write(json.dumps(message).encode() + b"\n")
            self._input.flush()

    def _hear(self) -> None:
        for message in self._messages:
            if "values" in message:
                self._values.put(message["values"])
            elif "done" in message:
                self._finished.set()
            elif "end" in message:
                self._end(message["end"], message["exit_code"])
        if not self._finished.is_set():
            self._end("the process that watches over this run ended: it was killed", 1)

    def _look_after(self, starter: int) -> None:
        while os.getppid() == starter:
            time.sleep(BEAT_SECONDS)
        self.fail("the process that started this run ended", 1)

    def _end(self, message: str, exit_code: int) -> None:
        """Ends this process at once: its main thread may be waiting for one that is gone."""
        self._is_ending.acquire()  # and never released: another thread that comes here waits for the end
        sys.stdout.flush()
        if self.is_spokesman and not (stops.is_for_all() and (message, exit_code) in stops.STOPS.values()):
            print(f"error: {one_line(message)}", file=sys.stderr, flush=True)
        os._exit(exit_code)
