"""What holds the processes together, between two of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from cait.distributed import watchdog_process
from project import ROOT

pytestmark = pytest.mark.any_paddle
PROCESS = """
import ctypes, json, os, sys, time
from cait.distributed import watchdog
rank, port, steps, beat = (json.loads(word) for word in sys.argv[1:])
watchdog.BEAT_SECONDS, watchdog.DELIVERY_SECONDS = beat, 1.0
dog = watchdog.Watchdog(rank, 2, rank == 0, 1.5)
print(json.dumps(dog.listen() if rank == 0 else dog.connect("127.0.0.1", port)), flush=True)
dog.join()
for name, *words in steps:
    if name == "hold":  # Python's lock, as Paddle does while it waits for a GPU
        ctypes.PyDLL(None).usleep(int(1e6 * words[0]))
    elif name == "sleep":
        time.sleep(words[0])
    elif name == "die":
        os._exit(0)
    elif name == "gather letters":
        print(len(dog.gather("x" * words[0])[rank]), flush=True)
    else:
        print(json.dumps(getattr(dog, name)(*words)), flush=True)
"""


@pytest.fixture
def run():
    """Starts two processes that do what they are told; `(exit code, lines, errors, seconds)` of each at the end."""
    started = []

    def start(first, second, beat=0.2, meanwhile=lambda processes: None, seconds=25):
        def begin(rank, port, steps):
            words = [json.dumps(word) for word in (rank, port, steps, beat)]
            environment = os.environ | {"PYTHONPATH": str(ROOT / "CaiT")}
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen([sys.executable, "-c", PROCESS, *words], env=environment, **pipes))
            return started[-1]

        hub = begin(0, None, first)
        port = json.loads(hub.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\n")
        begin(1, port, second).stdout.readline()
        begun = time.monotonic()
        meanwhile(started)
        found = []
        for process in started:
            lines, errors = process.communicate(timeout=seconds)
            found.append((process.returncode, [json.loads(line) for line in lines.splitlines()], errors))
        return found, time.monotonic() - begun

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_all_finish_together(run):
    found, seconds = run([["finish"]], [["sleep", 2.0], ["finish"]])
    assert found == [(0, [None], ""), (0, [None], "")] and seconds >= 1.9


def test_values_of_all_are_gathered_in_order(run):
    """However many one gives before the other does."""
    values = [[["gather", [rank, number, "ä\n", 0.1, None]] for number in range(20)] for rank in range(2)]
    both = [[[rank, number, "ä\n", 0.1, None] for rank in range(2)] for number in range(20)]
    found, _ = run([*values[0], ["finish"]], [["sleep", 0.5], *values[1], ["finish"]])
    assert found == [(0, [*both, None], "")] * 2


def test_a_large_value_is_gathered(run):
    """In pieces, between which no sign of life may come."""
    large = [["gather letters", number * 1_000_000] for number in (3, 2, 1)]
    found, _ = run([*large, ["finish"]], [*large[::-1], ["finish"]], beat=0.001)
    assert [lines[:-1] for _, lines, _ in found] == [
        [3_000_000, 2_000_000, 1_000_000],
        [1_000_000, 2_000_000, 3_000_000],
    ]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_is_told(run, rank):
    steps = [[["sleep", 60.0]], [["sleep", 60.0]]]
    steps[rank] = [["fail", "no such\nfile", 2]]
    found, seconds = run(*steps)
    assert found == [(2, [], "error: no such\\nfile\n"), (2, [], "")] and seconds < 10


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_is_gone_ends_the_other(run, rank):
    steps = [[["sleep", 60.0]], [["sleep", 60.0]]]
    steps[rank] = [["die"]]
    found, seconds = run(*steps)
    assert found[1 - rank][0] == 1 and found[rank][0] == 0 and seconds < 10
    errors = found[0][2]  # the first is the spokesman
    assert rank == 0 or errors == "error: process 1 ended without a word: it was killed, or crashed\n"


def test_silence_is_the_end(run):
    """Of processes whose signs of life are too seldom."""
    found, seconds = run([["sleep", 60.0]], [["sleep", 60.0]], beat=5.0)
    assert [code for code, _, _ in found] == [1, 1] and seconds < 10
    first = "nothing was heard of process 1 for 1.5 s: its machine or the network fails"  # or the other one noted it
    assert first in found[0][2] or "process 1 ended without a word" in found[0][2]


def test_one_that_is_stopped_is_silent(run):
    def stop(processes):
        time.sleep(1.5)
        processes[1].send_signal(signal.SIGSTOP)

    found, seconds = run([["sleep", 60.0]], [["sleep", 60.0]], meanwhile=stop)
    assert found[0][0] == 1 and "nothing was heard of process 1 for 1.5 s" in found[0][2]
    assert found[1][0] == -signal.SIGKILL and seconds < 12


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_holds_pythons_lock_lives_and_is_no_danger_to_healthy_ones(run, rank):
    """For twice as long as silence may last."""
    steps = [[["gather", 1], ["finish"]], [["gather", 2], ["finish"]]]
    steps[rank].insert(0, ["hold", 3.0])
    found, seconds = run(*steps)
    assert found == [(0, [[1, 2], None], "")] * 2 and seconds >= 2.9


def test_one_that_does_not_read_is_ended_where_the_other_is_gone(run):
    """What it should read fills its pipe."""
    found, seconds = run(
        [["gather letters", 3_000_000], ["sleep", 0.5], ["die"]], [["_say", {"value": 1}], ["hold", 60.0]]
    )
    assert found[1][0] == -signal.SIGKILL and seconds < 15


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_holds_pythons_lock_is_ended_where_the_other_is_gone(run, rank):
    steps = [[["hold", 60.0]], [["hold", 60.0]]]
    steps[1 - rank] = [["sleep", 0.3], ["die"]]
    found, seconds = run(*steps)
    assert found[rank][0] == -signal.SIGKILL and seconds < 12
    assert rank == 1 or found[0][2] == "error: process 1 ended without a word: it was killed, or crashed\n"


def test_one_whose_watching_process_was_killed_ends(run):
    def kill(processes):
        time.sleep(1.5)  # until they are connected
        children = subprocess.run(["pgrep", "-P", str(processes[1].pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(children[0]), signal.SIGKILL)

    found, _ = run([["sleep", 60.0]], [["sleep", 60.0]], meanwhile=kill)
    assert [code for code, _, _ in found] == [1, 1]


def test_messages_are_whole_whatever_comes_at_a_time():
    message = {"value": "ä" * 100}
    data = json.dumps(message).encode() + b"\n[1]\nno JSON\n{}\n{"
    for size in (1, 7, 1000):
        chunks = iter([data[i : i + size] for i in range(0, len(data), size)] + [b""])
        assert list(watchdog_process.lines(lambda _, chunks=chunks: next(chunks))) == [message, {}, {}, {}]
