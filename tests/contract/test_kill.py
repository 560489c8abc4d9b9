"""A run killed at any moment leaves checkpoints that load, and ends, resumed, where an unbroken run ends."""

import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from cait.command.stops import STOPS
from cait.train import jobs
from cait.weights.read import load_tensors
from project import MAIN, ROOT, run_python
from runs import WHOLE_RECIPE, assert_ends_equal, rows_of


def command(tiny_yaml, digits, folder, epochs):
    return [
        MAIN, f"-cfg={tiny_yaml}", f"-data_path={digits}", f"-epochs={epochs}", f"-output_dir={folder}",
        "-o", "SAVE_FREQ=1", "MODEL.DROP_PATH=0.2",
    ]  # fmt: skip


def kill_when(process, condition):
    """Kills the process once `condition(seconds since its start)` holds; says whether it came to that."""
    started = time.monotonic()
    while process.poll() is None and not condition(time.monotonic() - started):
        pass
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def assert_all_load(folder):
    files = [path for end in ("pdparams", "pdstates") for path in folder.glob(f"*.{end}") if path.name[0] != "."]
    for path in files:
        assert load_tensors(path)
    return files


def train(tiny_yaml, digits, folder, epochs):
    result = run_python(*command(tiny_yaml, digits, folder, epochs))
    assert result.returncode == 0, result.stderr
    return folder


def train_with_kills(tiny_yaml, digits, folder, epochs, conditions):
    """Starts the run, kills it when each condition holds, resumes it, and lets it end."""
    kills = 0
    for condition in conditions:
        resume = [f"-resume={folder}"] if (folder / "config.yaml").is_file() else []
        words = command(tiny_yaml, digits, folder, epochs)
        process = subprocess.Popen(
            [sys.executable, *words[:1], *resume, *words[1:]], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        kills += kill_when(process, condition)
        assert_all_load(folder)
    result = run_python(MAIN, f"-resume={folder}")
    assert result.returncode == 0, result.stderr
    return kills


def test_a_kill_while_a_checkpoint_is_written(tiny_yaml, digits, tmp_path):
    unbroken = train(tiny_yaml, digits, tmp_path / "unbroken", epochs=12)
    folder = tmp_path / "killed"

    def writing(seconds):
        return (folder / "epoch_3.pdparams").is_file() and any(folder.glob(".latest.pdstates.*.tmp"))

    assert train_with_kills(tiny_yaml, digits, folder, 12, [writing]) == 1
    assert_ends_equal(unbroken, folder)


class Stop(BaseException):
    """Ends a run as a kill would, at a chosen write."""


def check_every_stop(tiny_config, tmp_path, monkeypatch, keys, first, written=lambda target: None):
    """Stops a run before each of its writes in turn, from the `first` on; resumed, it ends as an unbroken one does.

    `written` gets every file that was written. Returns the number of writes.
    """
    replace, writes, stop = os.replace, [], None

    def stopping_replace(source, target):
        writes.append(target)
        if len(writes) == stop:
            raise Stop
        replace(source, target)
        written(target)

    monkeypatch.setattr(os, "replace", stopping_replace)
    jobs.run(tiny_config(**keys, OUTPUT_DIR=str(tmp_path / "unbroken")))
    total = len(writes)
    for number in range(first, total + 1):
        folder, stop = tmp_path / f"stopped{number}", number
        writes.clear()
        with pytest.raises(Stop):
            jobs.run(tiny_config(**keys, OUTPUT_DIR=str(folder)))
        assert_all_load(folder)
        stop = None
        resume = {"TRAIN__RESUME": str(folder)} if number > 1 else {}  # before the first write there is no run
        jobs.run(tiny_config(**keys, **resume, OUTPUT_DIR=str(folder)))
        assert_ends_equal(tmp_path / "unbroken", folder)
    return total


def test_a_stop_before_any_write(tiny_config, tmp_path, monkeypatch):
    keys = {"TRAIN__NUM_EPOCHS": 3, "SAVE_FREQ": 1}
    assert check_every_stop(tiny_config, tmp_path, monkeypatch, keys, first=1) > 15


def test_a_stop_before_any_write_within_an_epoch(tiny_config, tmp_path, monkeypatch, digits):
    for line in (digits / "train_list.txt").read_text().splitlines()[:5]:
        (digits / line.split()[0]).write_bytes(b"no image")
    keys = {name.replace(".", "__"): value for name, value in WHOLE_RECIPE.items()} | {"TRAIN__NUM_EPOCHS": 2}
    saved, unbroken = [], tmp_path / "unbroken"

    def written(target):
        if str(target) == str(unbroken / "latest.pdstates"):
            saved.append("in_epoch" in load_tensors(target)["progress"])

    check_every_stop(tiny_config, tmp_path, monkeypatch, keys, first=2, written=written)
    assert saved == [True, True, False] * 2 and rows_of(unbroken)[0]["skipped_images"] > 0


def test_a_kill_within_an_epoch(tiny_yaml, all_digits, tmp_path):
    """In processes of their own, with others that read the images."""
    keys = [
        f"{name}={value}" for name, value in (WHOLE_RECIPE | {"TRAIN.ACCUM_ITER": 1, "DATA.NUM_WORKERS": 2}).items()
    ]
    words = [MAIN, f"-cfg={tiny_yaml}", f"-data_path={all_digits}", "-epochs=1", "-o", *keys, "DATA.BATCH_SIZE=32"]
    assert run_python(*words, f"OUTPUT_DIR={tmp_path / 'unbroken'}").returncode == 0
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, *words, f"OUTPUT_DIR={folder}"], cwd=ROOT, stdout=subprocess.DEVNULL)
    assert kill_when(process, lambda seconds: (folder / "latest.pdstates").is_file())
    progress = load_tensors(folder / "latest.pdstates")["progress"]
    assert progress["epoch"] == 0 and 2 <= progress["step"] < 45
    result = run_python(MAIN, f"-resume={folder}", "-o", "DATA.NUM_WORKERS=1")
    assert result.returncode == 0, result.stderr
    assert f"step {progress['step']}, within epoch 1" in result.stdout
    assert_ends_equal(tmp_path / "unbroken", folder)


@pytest.mark.slow
def test_kills_at_random_moments(tiny_yaml, all_digits, tmp_path):
    keys = [f"{name}={value}" for name, value in (WHOLE_RECIPE | {"DATA.NUM_WORKERS": 2, "SAVE_STEPS": 1}).items()]
    words = [MAIN, f"-cfg={tiny_yaml}", f"-data_path={all_digits}", "-epochs=8", "-o", *keys, "DATA.BATCH_SIZE=8"]
    assert run_python(*words, f"OUTPUT_DIR={tmp_path / 'unbroken'}").returncode == 0
    folder, moments = tmp_path / "killed", random.Random(0)
    for _ in range(5):
        resume = [f"-resume={folder}"] if (folder / "config.yaml").is_file() else []
        process = subprocess.Popen(
            [sys.executable, MAIN, *resume, *words[1:], f"OUTPUT_DIR={folder}"], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        moment = moments.uniform(2, 4)
        assert kill_when(process, lambda seconds, moment=moment: seconds > moment), "the run is too short"
        assert_all_load(folder)
    assert run_python(MAIN, f"-resume={folder}").returncode == 0
    assert_ends_equal(tmp_path / "unbroken", folder)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("processes", [1, 2])
def test_stops_at_random_moments(tiny_yaml, all_digits, tmp_path, number, processes):
    """Sent to every process of the run at once, from before the imports to the middle of an epoch."""
    word, code = STOPS[number]
    moments = random.Random(processes)
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        words = command(tiny_yaml, all_digits, folder, epochs=100)
        process = subprocess.Popen(
            [sys.executable, *words, "DATA.NUM_WORKERS=2", f"NGPUS={processes}"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.SIG_DFL
            ),  # ignored where tests run in the background
        )
        time.sleep(moments.uniform(0.3, 6))
        for each in family(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (code, f"error: {word}\n")
        assert_all_load(folder)


def family(number):
    """A process and all that descend from it, the eldest first."""
    found = [number]
    for parent in found:
        with contextlib.suppress(OSError):
            found += map(int, pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return found
