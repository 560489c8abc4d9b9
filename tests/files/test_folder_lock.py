"""A folder is held by one job of a kind at a time, for as long as its process lives."""

import contextlib
import errno
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from cait.errors import CaitError
from cait.files import folder_lock
from cait.files.folder_lock import FolderInUse, held, lock_file
from cait.train import jobs
from project import MAIN, ROOT, run_python

HOLD = """
import pathlib, sys, time
from cait.files.folder_lock import held
with held(pathlib.Path(sys.argv[1]), sys.argv[2]) as note:
    assert note == ""
    {fork}
    print("held", flush=True)
    time.sleep(60)
"""
WORKER = "import os\n    if os.fork() == 0: time.sleep(60)"  # as the processes that read images are forked


@contextlib.contextmanager
def holder(folder, job="train", fork=""):
    """Another process that holds the folder."""
    words = [sys.executable, "-c", HOLD.format(fork=fork), str(folder), job]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "CaiT")}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment, start_new_session=True, text=True) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(folder, process, job="train"):
    return rf"{folder}: process {process.pid} on {socket.gethostname()} is doing the same job \({job}\)"


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_in_a_folder_is_refused_before_it_writes(tiny_config, tmp_path, resume):
    run, other = tmp_path / "run", tmp_path / "other"
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1))
    (tmp_path / "link").symlink_to(run)
    with holder(run) as process:
        before = content(run)
        for folder in (run, tmp_path / "link"):
            keys = {"OUTPUT_DIR": str(folder), "TRAIN__RESUME": str(folder) if resume else ""}
            with pytest.raises(CaitError, match=refusal(folder, process)):
                jobs.run(tiny_config(**keys))
        assert content(run) == before
        if resume:  # what the other run has saved so far may be gone on with elsewhere
            jobs.run(tiny_config(OUTPUT_DIR=str(other), TRAIN__RESUME=str(run)))
    if resume:
        jobs.run(tiny_config(TRAIN__RESUME=str(run)))


@pytest.mark.parametrize("job", ["eval", "pred"])
def test_a_run_may_be_evaluated_while_it_trains_but_by_one_at_a_time(tiny_config, tiny_weights, tmp_path, job):
    keys = {job.upper(): True, "MODEL__PRETRAINED": str(tiny_weights[2])}
    (tmp_path / "run").mkdir()
    with holder(tmp_path / "run", "train"):
        jobs.run(tiny_config(**keys))
    with holder(tmp_path / "run", job) as process:
        before = content(tmp_path / "run")
        with pytest.raises(CaitError, match=refusal(tmp_path / "run", process, job)):
            jobs.run(tiny_config(**keys))
        assert content(tmp_path / "run") == before


@pytest.mark.parametrize("output", ["run", ""])
def test_every_training_holds_its_folder_to_its_end(tiny_config, tmp_path, monkeypatch, output):
    """From before the check that it is free, so that no other run can come between the two."""
    from cait.train import training

    monkeypatch.chdir(tmp_path)
    seen = []

    def note_lock(name):
        original = getattr(training, name)

        def noting(*arguments):
            seen.append((name, [path.parent for path in tmp_path.rglob(lock_file(pathlib.Path(), "train").name)]))
            return original(*arguments)

        monkeypatch.setattr(training, name, noting)

    for name in ("check_is_free", "build_loaders", "open_job", "train_one_epoch"):
        note_lock(name)
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1, OUTPUT_DIR=output))
    folder = next(tmp_path.rglob("latest.pdparams")).parent
    assert seen == [(name, [folder]) for name in ("check_is_free", "build_loaders", "open_job", "train_one_epoch")]
    assert not lock_file(folder, "train").exists()


def test_a_killed_run_is_gone_on_with_at_once(tmp_path):
    with holder(tmp_path, fork=WORKER) as process:
        workers = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        process.wait()
        with held(tmp_path, "train") as note:
            assert note == ""
            files = [os.readlink(path) for path in pathlib.Path(f"/proc/{workers[0]}/fd").iterdir()]
            assert str(lock_file(tmp_path, "train")) in files  # its worker lives, and has inherited the open file


def test_the_lock_is_not_given_up_by_a_refusal(tmp_path):
    """Closing any descriptor of a file gives up what the process has locked of it."""
    with held(tmp_path, "train"):
        with pytest.raises(CaitError, match="this process is doing the same job"), held(tmp_path, "train"):
            pass
        assert f"process {os.getpid()} on {socket.gethostname()}" in try_to_hold(tmp_path)
    assert try_to_hold(tmp_path) == "" and list(tmp_path.iterdir()) == []


def try_to_hold(folder):
    """What another process is told."""
    words = (
        "import sys, pathlib; from cait.files.folder_lock import held\n"
        "with held(pathlib.Path(sys.argv[1]), 'train'): pass"
    )
    return run_python("-c", words, folder, cwd=ROOT / "CaiT").stderr


def test_of_many_that_start_together_one_at_a_time_holds_the_folder(tmp_path):
    """The lock's file comes and goes meanwhile, in a folder that comes and goes."""
    words = """
import os, pathlib, sys, time
from cait.errors import CaitError
from cait.files.folder_lock import held
folder, end, wins = pathlib.Path(sys.argv[1]), time.monotonic() + 1, 0
while time.monotonic() < end:
    try:
        with held(folder, "train"):
            os.close(os.open(folder / "alone", os.O_CREAT | os.O_EXCL))
            os.unlink(folder / "alone")
            wins += 1
    except CaitError:
        pass
print(wins)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", words, str(tmp_path)], cwd=ROOT / "CaiT", stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    wins = [int(process.communicate()[0]) for process in processes]
    assert sum(wins) > 100 and all(process.returncode == 0 for process in processes)


def no_locks(monkeypatch, code):
    def lockf(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(folder_lock.fcntl, "lockf", lockf)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, None])
def test_where_there_are_no_locks_nobody_is_refused(tmp_path, monkeypatch, code):
    if code is None:
        monkeypatch.setattr(folder_lock, "fcntl", None)
    else:
        no_locks(monkeypatch, code)
    with held(tmp_path, "train") as note, held(tmp_path, "train"):
        assert "is not locked" in note and (os.strerror(code) if code else "no record locks") in note
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_lock_says_so_in_one_line(tiny_config, tmp_path, monkeypatch):
    no_locks(monkeypatch, errno.ENOLCK)
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1))
    assert (tmp_path / "run" / "log_train.txt").read_text().count("is not locked") == 1


def test_a_platform_without_record_locks_imports_the_module():
    words = (
        "import sys; sys.modules['fcntl'] = None; from cait.files import folder_lock; assert folder_lock.fcntl is None"
    )
    assert run_python("-c", words, cwd=ROOT / "CaiT").stderr == ""


def test_a_lock_that_cannot_be_had_names_its_file(tmp_path, monkeypatch):
    lock_file(tmp_path, "train").mkdir()
    with pytest.raises(CaitError, match=r"\.train\.lock: cannot be opened"), held(tmp_path, "train"):
        pass
    no_locks(monkeypatch, errno.EIO)
    with pytest.raises(CaitError, match=r"\.eval\.lock: cannot be locked \(Input/output"), held(tmp_path, "eval"):
        pass


def test_a_job_that_fails_before_it_writes_leaves_no_folder(tiny_config, tmp_path):
    for keys in ({"DATA__DATA_PATH": "nowhere"}, {"MODEL__PRETRAINED": "nothing"}):
        with pytest.raises(CaitError):
            jobs.run(tiny_config(**keys))
        assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    with pytest.raises(CaitError):
        jobs.run(tiny_config(DATA__DATA_PATH="nowhere"))
    assert list((tmp_path / "run").iterdir()) == []


def test_a_refusal_ends_all_processes_of_a_run(tiny_yaml, digits, tmp_path):
    words = [MAIN, f"-cfg={tiny_yaml}", f"-data_path={digits}", f"-output_dir={tmp_path / 'run'}", "-ngpus=2"]
    (tmp_path / "run").mkdir()
    with holder(tmp_path / "run") as process:
        result = run_python(*words, timeout=60)
    assert result.returncode == 1 and list(content(tmp_path / "run")) == [".train.lock"]
    assert result.stderr.count("error: ") == 1 and f"process {process.pid} on {socket.gethostname()}" in result.stderr


def test_who_waits_gets_the_folder_when_the_job_there_ends(tmp_path):
    order = []

    def second():
        with held(tmp_path, "build", wait=True):
            order.append("second")

    with held(tmp_path, "build"):
        thread = threading.Thread(target=second)
        thread.start()
        with pytest.raises(FolderInUse), held(tmp_path, "build"):
            pass
        time.sleep(3 * folder_lock.POLL_SECONDS)
        order.append("first")
    thread.join()
    assert order == ["first", "second"] and not content(tmp_path)
    with holder(tmp_path, "build") as process:
        os.kill(process.pid, signal.SIGKILL)
        with held(tmp_path, "build", wait=True) as note:
            assert note == ""
