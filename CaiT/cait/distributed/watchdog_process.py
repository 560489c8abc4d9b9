"""The process beside each process of a run that keeps the run together: when one fails or falls silent, all end.

It is a process and no thread, for a thread cannot beat, hear or end anything while another one holds Python's lock, as
some of Paddle's reading of numbers does for as long as it waits for a GPU, and so for the other processes.

Each holds a TCP connection to that of process 0, which passes on what it hears. A process that fails tells so; of one
that was killed the connection closes; one whose machine is gone, or that was stopped, falls silent. Plain values of all
processes are gathered on the same way. The messages are lines of JSON, on the connections as on the pipes to the own
process. It needs nothing but the standard library; `cait.distributed.watchdog` starts it and says what the messages
mean.
"""

import collections
import contextlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

CONNECT_SECONDS = 30.0
KILL_SECONDS = 3.0  # after which a process that was told to end is killed
CHUNK = 1 << 16


def lines(receive: Callable[[int], bytes]) -> Iterator[dict]:
    """The messages that come until the other side closes."""
    chunks: list[bytes] = []
    while data := receive(CHUNK):
        head, *rest = data.split(b"\n")
        chunks.append(head)
        for more in rest:
            whole, chunks = b"".join(chunks), [more]
            try:
                message = json.loads(whole)
            except ValueError:  # a stranger's
                message = None
            yield message if isinstance(message, dict) else {}


def is_stopped(process: int) -> bool:
    """Whether a process was stopped, as by SIGSTOP; only Linux tells."""
    try:
        with open(f"/proc/{process}/stat", encoding="latin-1") as file:
            return file.read().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


class Watcher:
    """Of one process of the run.

    Args:
        rank: of its process, from 0.
        num_processes: of the run.
        process: id of its process.
        is_spokesman: whether to print why the run ended where its process cannot.
        silence: seconds after which a process that is not heard of counts as gone.
        beat: seconds between two signs of life.
        delivery: seconds that the others have to hear of the end.
    """

    def __init__(
        self, rank: int, num_processes: int, process: int, is_spokesman: bool, silence: float, beat: float,
        delivery: float,
    ):  # fmt: skip
        self.rank, self.num_processes, self.process, self.is_spokesman = rank, num_processes, process, is_spokesman
        self.silence, self.beat, self.delivery = silence, beat, delivery
        self._peers: dict[int, socket.socket] = {}
        self._values: dict[int, collections.deque] = {other: collections.deque() for other in range(num_processes)}
        self._done: set[int] = set()
        self._gone: set[int] = set()
        self._is_ending = False
        self._changed = threading.Condition()
        # A long message goes out in pieces, and another thread's must not come between them.
        self._sending = [threading.Lock() for _ in range(num_processes)]
        self._to_tell: queue.SimpleQueue[dict | None] = queue.SimpleQueue()
        threading.Thread(target=self._write).start()

    def listen(self) -> None:
        """For process 0: tells its process the port, then accepts the connections of all others.

        Raises:
            OSError: some did not connect in time.
        """
        with socket.create_server(("", 0), backlog=self.num_processes) as server:
            self.tell({"port": server.getsockname()[1]})
            server.settimeout(CONNECT_SECONDS)
            while len(self._peers) < self.num_processes - 1:
                connection, _ = server.accept()
                connection.settimeout(self.silence)
                messages = lines(connection.recv)
                try:
                    peer = next(messages, {}).get("rank")
                except OSError:
                    peer = None
                if not isinstance(peer, int) or not 0 < peer < self.num_processes or peer in self._peers:
                    connection.close()  # a stranger's
                    continue
                self._peers[peer] = connection
                self._start(self._hear, peer, messages)

    def connect(self, host: str, port: int) -> None:
        """For the other processes: connects to process 0.

        Raises:
            OSError: it cannot be reached.
        """
        connection = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
        connection.settimeout(self.silence)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peers[0] = connection
        self._send(0, {"rank": self.rank})
        self._start(self._hear, 0, lines(connection.recv))

    def run(self) -> None:
        """Does what its process says until that is gone."""
        self._start(self._beat)
        self.tell({"connected": True})
        for message in lines(sys.stdin.buffer.raw.read):  # type: ignore[union-attr]
            if "failed" in message:
                self._start(self._fail, message["failed"], message["exit_code"])
            elif self.rank == 0:
                self._receive(0, message)
            else:
                self._send(0, message)
        self._leave()

    def _leave(self) -> None:
        """Its process is gone: ends, once the others have heard that all are done."""
        with self._changed:
            if self.rank == 0 and len(self._done) == self.num_processes:
                self._changed.wait_for(lambda: len(self._gone) == len(self._peers), timeout=2 * self.delivery)
        os._exit(0)

    def tell(self, message: dict | None) -> None:
        """Writes to its process, which need not read at once; None: nothing more comes."""
        self._to_tell.put(message)

    def _write(self) -> None:
        while (message := self._to_tell.get()) is not None:
            with contextlib.suppress(OSError):  # if it is gone, reading from it tells
                sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
                sys.stdout.buffer.flush()

    def _start(self, target: Callable, *arguments) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()

    def _send(self, peer: int, message: dict) -> None:
        with self._sending[peer], contextlib.suppress(OSError):  # whoever listens to that peer will notice
            self._peers[peer].sendall(json.dumps(message).encode() + b"\n")

    def _beat(self) -> None:
        while os.getppid() == self.process:
            if not is_stopped(self.process):
                for peer in self._peers:
                    if not self._sending[peer].locked():  # what is being sent is a sign of life itself
                        self._send(peer, {})
            time.sleep(self.beat)
        self._leave()  # processes that it has left behind hold the pipe

    def _receive(self, sender: int, message: dict) -> None:
        """Of process 0: what any process, this one too, has done or gives to be gathered."""
        with self._changed:
            if "value" in message:
                self._values[sender].append(message["value"])
            if "done" in message:
                self._done.add(sender)
            answers: list[dict] = []
            while all(self._values.values()):
                answers.append({"values": [self._values[other].popleft() for other in range(self.num_processes)]})
            if len(self._done) == self.num_processes and "done" in message:
                answers.append({"done": True})
            for answer in answers:  # within the lock, so that all get them in the same order
                for peer in self._peers:
                    self._send(peer, answer)
        for answer in answers:
            self.tell(answer)

    def _hear(self, peer: int, messages: Iterator[dict]) -> None:
        reason = f"process {peer} ended without a word: it was killed, or crashed"
        try:
            for message in messages:
                if "failed" in message:  # in a thread of its own: this one has to see the peer close
                    self._start(self._end, message["failed"], message["exit_code"])
                elif self.rank == 0:
                    self._receive(peer, message)
                elif message:
                    if "done" in message:
                        self._done.add(peer)
                    self.tell(message)
        except TimeoutError:
            reason = f"nothing was heard of process {peer} for {self.silence:g} s: its machine or the network fails"
        except OSError:
            pass
        with self._changed:
            self._gone.add(peer)
            self._changed.notify_all()
            if peer in self._done or self._is_ending:
                return
        self._end(reason, 1)

    def _fail(self, message: str, exit_code: int) -> None:
        if self.rank > 0:
            self._send(0, {"failed": message, "exit_code": exit_code})
            time.sleep(self.delivery)  # process 0 answers all, and that answer ends this process as well
        self._end(message, exit_code)

    def _end(self, message: str, exit_code: int) -> None:
        """Tells all, and ends its process, which may wait for one that is gone."""
        with self._changed:
            if self._is_ending:
                return
            self._is_ending = True
        if self.rank == 0:
            for peer in self._peers:
                self._send(peer, {"failed": message, "exit_code": exit_code})
            with self._changed:  # they close when they have it; ending before would tear it from them
                self._changed.wait_for(lambda: len(self._gone) == len(self._peers), timeout=self.delivery)
        self.tell({"end": message, "exit_code": exit_code})
        deadline = time.monotonic() + KILL_SECONDS
        while os.getppid() == self.process and time.monotonic() < deadline:
            time.sleep(0.02)
        if os.getppid() == self.process:
            if self.is_spokesman:
                print(f"error: {message}", file=sys.stderr, flush=True)
            with contextlib.suppress(OSError):
                os.kill(self.process, signal.SIGKILL)
        self._leave()


def main() -> None:
    """The arguments are JSON: those of `Watcher`, and for all but process 0 the host and the port of process 0's."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # which are its process's to answer
        signal.signal(number, signal.SIG_IGN)
    settings, address = (json.loads(word) for word in sys.argv[1:])
    watcher = Watcher(**settings)
    try:
        watcher.connect(*address) if address else watcher.listen()
    except OSError as error:
        watcher.tell({"unconnected": str(error)})
        watcher.tell(None)
        return
    watcher.run()


if __name__ == "__main__":
    main()
