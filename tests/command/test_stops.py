"""SIGTERM and Ctrl-C at moments when libraries would swallow them, turn them into something else, or get them twice."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cait.command.stops import STOPS
from cait.distributed import launch
from project import ROOT, SCRIPTS

START = """
import os, sys, signal, time, pathlib
sys.path.insert(0, "CaiT")
from cait.command import stops
from cait.command.run import run_command

def main():
    print("ready", flush=True)
    {}

run_command(main)
"""
# What a main program does when it is stopped.
BODIES = {
    "waits": "time.sleep(30)",
    "turned into another error": """
    try:
        time.sleep(30)
    except BaseException as error:
        raise SystemError("returned a result with an exception set") from None""",
    "swallowed by a bare except": """
    try:
        time.sleep(30)
    except:
        pass
    for _ in range(300):
        time.sleep(0.1)""",
    "swallowed by a destructor": """
    class Slow:
        def __del__(self):
            time.sleep(1)
    Slow()
    for _ in range(300):
        time.sleep(0.1)""",
    "swallowed at the very end": """
    try:
        time.sleep(30)
    except BaseException:
        pass""",
    "asked to leave": """
    try:
        time.sleep(30)
    except BaseException:
        sys.exit(7)""",
    "leaves its errors redirected": """
    import io
    sys.stderr = io.StringIO()
    time.sleep(30)""",
}


def begin(code, *words):
    """Starts the code in a process group of its own and waits until it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def end(process, number):
    """(exit code, what it said) once it ended."""
    _, errors = process.communicate(timeout=20)
    word, code = STOPS[number]
    assert (process.returncode, errors) == (code, f"error: {word}\n")


@pytest.mark.any_paddle
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_whatever_a_stop_becomes_it_is_that_stop(number):
    running = {name: begin(START.format(body)) for name, body in BODIES.items()}
    time.sleep(0.1)
    for process in running.values():
        process.send_signal(number)
    for process in running.values():
        end(process, number)


@pytest.mark.any_paddle
def test_a_stop_that_comes_twice_is_unwound_once_and_a_later_one_ends_at_once(tmp_path):
    body = """
    try:
        time.sleep(30)
    finally:
        time.sleep(float(sys.argv[2]))
        pathlib.Path(sys.argv[1]).write_text("cleaned up")"""
    quick, hanging = (begin(START.format(body), tmp_path / str(wait), wait) for wait in (0.4, 60))
    for process in (quick, hanging):
        process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    quick.send_signal(signal.SIGTERM)
    quick.send_signal(signal.SIGINT)
    end(quick, signal.SIGTERM)
    assert (tmp_path / "0.4").read_text() == "cleaned up"
    time.sleep(2)
    hanging.send_signal(signal.SIGTERM)
    hanging.communicate(timeout=20)
    assert hanging.returncode == 143 and not (tmp_path / "60").exists()


@pytest.mark.any_paddle
def test_a_signal_after_the_work_is_done_changes_nothing():
    code = START.replace("run_command(main)", "import atexit; atexit.register(time.sleep, 0.5)\nrun_command(main)")
    process = begin(code.format("pass"))
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.any_paddle
def test_a_process_that_works_for_its_parent_ends_with_it_alone(tmp_path):
    """By the parent's word or its end, and not by what the whole group is sent."""
    body = """
    parent = os.getpid()
    with stops.held(*stops.STOPS):
        child = os.fork()
        if not child:
            stops.end_with_parent(parent)
            while True:
                time.sleep(1)
    try:
        print("started", flush=True)
        time.sleep(30)
    finally:
        time.sleep(0.3)
        ended, _ = os.waitpid(child, os.WNOHANG)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        pathlib.Path(sys.argv[1]).write_text(f"{ended} {status}")"""
    process = begin(START.format(body), tmp_path / "seen")
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGTERM)
    end(process, signal.SIGTERM)
    ended, status = (tmp_path / "seen").read_text().split()
    assert ended == "0" and int(status) in (0, 256)  # 256 where the parent's word was lost beside the group's
    process = begin(START.format(body), tmp_path / "seen")
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=20)  # which waits for the child too: it holds the other end of the pipes


@pytest.mark.any_paddle
def test_every_script_runs_as_a_command():
    for script in SCRIPTS:
        assert script.read_text().split('if __name__ == "__main__":\n    ')[1].startswith("run_command(main"), script


EARLY = """
import importlib.abc, os, signal, sys

class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "cait":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.any_paddle
def test_ctrl_c_in_the_first_moment_of_a_script_shows_no_traceback(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(EARLY)
    options = {"cwd": ROOT, "env": {**os.environ, "PYTHONPATH": str(tmp_path)}, "capture_output": True, "text": True}
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    for script in (path for path in SCRIPTS if path.parent.name == "CaiT"):
        assert script.read_text().split('"""\n\n')[1].startswith("import interruptible"), script
    for name in ("infer.py", "main_single_gpu.py"):
        result = subprocess.run([sys.executable, f"CaiT/{name}", "-h"], **options)
        assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.any_paddle
def test_scripts_import_nothing_slow_before_they_can_be_stopped():
    code = """
import pathlib, runpy, sys
for name in ("CaiT", "test_tipc"):
    sys.path.insert(0, name)
    for script in pathlib.Path(name).glob("*.py"):
        runpy.run_path(str(script), run_name="script")
        slow = {"numpy", "paddle", "yaml", "yacs", "PIL", "tqdm"} & set(sys.modules)
        assert not slow, f"{script} imports {slow}"
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_signal_during_an_import_of_paddle_ends_it():
    body = "import cait.model; time.sleep(30)"
    running = [(number, begin(START.format(body))) for number in STOPS]
    time.sleep(0.4)
    for number, process in running:
        process.send_signal(number)
    for number, process in running:
        end(process, number)


SCRIPT = """
import os, sys, time
if os.environ["PADDLE_TRAINER_ID"] == "0":
    time.sleep(0.3)
sys.exit(143)
"""


def test_a_launcher_says_of_a_stop_once_for_all(tmp_path, capsys, monkeypatch):
    handlers = {number: signal.getsignal(number) for number in STOPS}
    (tmp_path / "script.py").write_text(SCRIPT)
    try:
        assert launch.start([str(tmp_path / "script.py")], 2) == 143
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == "error: terminated\n"
