"""The processes of a run on one machine: starting them, and their shares of its cores. Nothing here needs Paddle."""

import os
import signal
import socket
import subprocess
import sys
import time

from cait.command.stops import STOPS
from cait.errors import UsageError
from cait.machine.processor import usable_cores

GRACE_SECONDS = 15.0
STOP_GRACE_SECONDS = 5.0


def must_start(num_processes: int) -> bool:
    """Whether so many processes are wanted, and nobody has started them yet.

    Raises:
        UsageError: a launcher started another number.
    """
    if "PADDLE_TRAINER_ID" not in os.environ:
        return num_processes > 1
    started = os.environ.get("PADDLE_LOCAL_SIZE", os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    if num_processes > 1 and str(num_processes) != started:
        raise UsageError(
            f"-ngpus={num_processes}, but the launcher started {started} on this machine: leave out -ngpus"
        )
    return False


def share_cores() -> None:
    """Gives this process its share of the machine's cores; to be called before Paddle is imported.

    Left alone, every process computes with as many threads as there are cores, and they get in each other's way.
    """
    local = int(os.environ.get("PADDLE_LOCAL_SIZE", os.environ.get("PADDLE_TRAINERS_NUM", "1")))
    if local > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // local)))
        os.environ.setdefault("GLOG_minloglevel", "1")  # who connected to whom


def start(words: list[str], num_processes: int) -> int:
    """Runs `python *words` in several processes of this machine and returns the exit code of them all.

    They are started as `paddle.distributed.launch` does it, but write where this process writes, and end with the exit
    code and the one message of the process that failed. They share the GPUs, one each, as far as there are any.
    """
    host, ports = "127.0.0.1", _free_ports(num_processes + 1)
    endpoints = [f"{host}:{port}" for port in ports[1:]]
    common = {
        "PADDLE_MASTER": f"{host}:{ports[0]}", "PADDLE_TRAINERS_NUM": str(num_processes),
        "PADDLE_LOCAL_SIZE": str(num_processes), "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "CAIT_STARTER": str(os.getpid()), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    processes: list[subprocess.Popen] = []
    stops_asked: list[int] = []

    def pass_on(number, frame):
        stops_asked.append(number)
        for process in processes:
            process.send_signal(number)

    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, pass_on)
    for rank in range(num_processes):
        own = {
            "PADDLE_TRAINER_ID": str(rank), "PADDLE_LOCAL_RANK": str(rank), "FLAGS_selected_gpus": str(rank),
            "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
        }  # fmt: skip
        # In a session of its own: a terminal's Ctrl-C shall reach each process once, through this one.
        processes.append(
            subprocess.Popen([sys.executable, *words], env=os.environ | common | own, start_new_session=True)
        )
    for number in stops_asked[-1:]:  # which came while they were started
        pass_on(number, None)
    return _wait(processes, stops_asked)


def _wait(processes: list[subprocess.Popen], stops_asked: list[int]) -> int:
    """Waits for all; once one has failed or a stop was asked for, they end by themselves, or after GRACE_SECONDS."""
    deadline, culprit = float("inf"), None
    while any(process.poll() is None for process in processes):
        if culprit is None and any(process.poll() for process in processes):
            culprit = next(rank for rank, process in enumerate(processes) if process.poll())
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if stops_asked:
            deadline = min(deadline, time.monotonic() + STOP_GRACE_SECONDS)
        if time.monotonic() > deadline:  # they were not connected yet, or hang
            if culprit is not None and not stops_asked and processes[0].poll() is None:  # which would have said why
                print(f"error: process {culprit} ended with exit code {processes[culprit].returncode}", file=sys.stderr)
            _kill(processes)
            break
        time.sleep(0.05)
    return _exit_code([process.returncode for process in processes], stops_asked)


def _kill(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def _exit_code(codes: list[int], stops_asked: list[int]) -> int:
    """Of all processes together: that of a stop, of which this says, or of the first that failed."""
    if any(codes):
        for number, (word, code) in STOPS.items():
            if number in stops_asked or code in codes or -number in codes:
                print(f"error: {word}", file=sys.stderr, flush=True)  # for all of them
                return code
    return next((code for code in codes if code > 0), 1 if any(codes) else 0)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports
