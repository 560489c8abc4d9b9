"""Keeps the processes of a run together: when one fails or falls silent, all of them end, for the same reason.

A process that waits in an all-reduce for one that is gone waits for ever: gloo has no time limit, and NCCL's is half an
hour. So beside the collectives every process holds one plain TCP connection to process 0. A process that fails tells so
there; one that was killed closes its connection; one whose machine is gone falls silent. Process 0 passes it on.
The messages are lines of JSON. Waiting in a collective lets Python's threads run, so these live through it.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

from cait import stops
from cait.lines import one_line

BEAT_SECONDS = 2.0
SILENCE_SECONDS = 30.0
DELIVERY_SECONDS = 5.0


class Watchdog:
    """One of the processes, from `listen` or `connect` to `finish` or `fail`.

    Args:
        rank: of this process, from 0.
        num_processes: of the run.
        is_spokesman: prints why the run ended; one process of each machine should.
        silence_seconds: after which a process that is not heard of counts as gone.
    """

    def __init__(self, rank: int, num_processes: int, is_spokesman: bool, silence_seconds: float = SILENCE_SECONDS):
        self.rank, self.num_processes = rank, num_processes
        self.is_spokesman, self.silence_seconds = is_spokesman, silence_seconds
        self.parent = int(os.environ.get("CAIT_STARTER", 0))  # process that shall not end before this one
        self._peers: dict[int, socket.socket] = {}
        self._done: set[int] = set()
        self._gone: set[int] = set()
        self._is_ending = False
        self._changed = threading.Condition()

    def listen(self, server: socket.socket) -> None:
        """Process 0: takes the connections of all others.

        Raises:
            OSError: some did not connect in time.
        """
        server.settimeout(self.silence_seconds)
        while len(self._peers) < self.num_processes - 1:
            connection, _ = server.accept()
            connection.settimeout(self.silence_seconds)
            lines = _lines(connection)
            peer = next(lines, {}).get("rank")
            if not isinstance(peer, int) or not 0 < peer < self.num_processes:
                connection.close()  # a stranger's
                continue
            self._peers[peer] = connection
            self._start(self._hear, peer, lines)
        server.close()
        self._start(self._beat)

    def connect(self, host: str, port: int) -> None:
        """The others: connect to process 0.

        Raises:
            OSError: it cannot be reached.
        """
        connection = socket.create_connection((host, port), timeout=self.silence_seconds)
        connection.settimeout(self.silence_seconds)
        self._peers[0] = connection
        self._send(0, {"rank": self.rank})
        self._start(self._hear, 0, _lines(connection))
        self._start(self._beat)

    def finish(self) -> None:
        """Waits, however long it takes, until every process has come here."""
        if self.rank > 0:
            self._send(0, {"done": True})
        with self._changed:
            self._changed.wait_for(lambda: len(self._done) == len(self._peers))
        for peer in self._peers if self.rank == 0 else ():
            self._send(peer, {"done": True})

    def fail(self, message: str, exit_code: int) -> None:
        """Ends the run: every process ends with this exit code, and the spokesmen print the message."""
        if self.rank > 0:
            self._send(0, {"failed": message, "exit_code": exit_code})
            time.sleep(DELIVERY_SECONDS)  # process 0 answers all, and that answer ends this process as well
        self._end(message, exit_code)
        time.sleep(2 * DELIVERY_SECONDS)  # another thread came first, and is about to end this process

    def _start(self, target, *arguments) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()

    def _send(self, peer: int, message: dict) -> None:
        with contextlib.suppress(OSError):  # whoever listens to that peer will notice
            self._peers[peer].sendall(json.dumps(message).encode() + b"\n")

    def _beat(self) -> None:
        while True:
            for peer in self._peers:
                self._send(peer, {})
            time.sleep(BEAT_SECONDS)
            if self.parent and os.getppid() != self.parent:
                self.fail("the process that started this run ended", 1)

    def _hear(self, peer: int, lines: Iterator[dict]) -> None:
        reason = f"process {peer} ended without a word: it was killed, or crashed"
        try:
            for message in lines:
                if "failed" in message:  # in a thread of its own: this one has to see the peer close
                    self._start(self._end, message["failed"], message["exit_code"])
                if "done" in message:
                    with self._changed:
                        self._done.add(peer)
                        self._changed.notify_all()
        except TimeoutError:
            reason = (
                f"nothing was heard of process {peer} for {self.silence_seconds:g} s: its machine or the network fails"
            )
        except OSError:
            pass
        with self._changed:
            self._gone.add(peer)
            self._changed.notify_all()
            if peer in self._done or self._is_ending:
                return
        self._end(reason, 1)

    def _end(self, message: str, exit_code: int) -> None:
        """Tells all, and ends this process at once: its main thread may be waiting for one that is gone."""
        with self._changed:
            if self._is_ending:
                return
            self._is_ending = True
        if self.rank == 0:
            for peer in self._peers:
                self._send(peer, {"failed": message, "exit_code": exit_code})
            with self._changed:  # they close when they have it; ending before would tear it from them
                self._changed.wait_for(lambda: len(self._gone) == len(self._peers), timeout=DELIVERY_SECONDS)
        sys.stdout.flush()
        if self.is_spokesman and not (stops.is_for_all() and (message, exit_code) in stops.STOPS.values()):
            print(f"error: {one_line(message)}", file=sys.stderr, flush=True)
        os._exit(exit_code)


def _lines(connection: socket.socket) -> Iterator[dict]:
    """The messages of a connection until it is closed; TimeoutError where none comes in time."""
    buffer = b""
    while data := connection.recv(4096):
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:  # a stranger's
                message = None
            yield message if isinstance(message, dict) else {}
