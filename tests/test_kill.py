"""A run killed at any moment leaves checkpoints that load, and ends, resumed, where an unbroken run ends."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cait import jobs
from cait.checkpoint import load_tensors
from conftest import MAIN, ROOT, run_python
from test_jobs import assert_same_weights, rows_of, without_timing


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


def assert_ends_equal(left, right):
    assert_same_weights(left / "latest.pdparams", right / "latest.pdparams")
    assert_same_weights(left / "best_model.pdparams", right / "best_model.pdparams")
    assert without_timing(rows_of(left)) == without_timing(rows_of(right))
    states = [load_tensors(folder / "latest.pdstates") for folder in (left, right)]
    assert states[0]["progress"] == states[1]["progress"]
    for name, value in states[0]["optimizer"].items():
        assert np.array_equal(value, states[1]["optimizer"][name]), name


def test_a_kill_while_a_checkpoint_is_written(tiny_yaml, digits, tmp_path):
    unbroken = train(tiny_yaml, digits, tmp_path / "unbroken", epochs=12)
    folder = tmp_path / "killed"

    def writing(seconds):
        return (folder / "epoch_3.pdparams").is_file() and (folder / ".latest.pdstates.tmp").is_file()

    assert train_with_kills(tiny_yaml, digits, folder, 12, [writing]) == 1
    assert_ends_equal(unbroken, folder)


class Stop(BaseException):
    """Ends a run as a kill would, at a chosen write."""


def test_a_stop_before_any_write(tiny_config, tmp_path, monkeypatch):
    keys = {"TRAIN__NUM_EPOCHS": 3, "SAVE_FREQ": 1}
    replace, writes = os.replace, []

    def stopping_replace(source, target):
        writes.append(target)
        if len(writes) == stop:
            raise Stop
        replace(source, target)

    monkeypatch.setattr(os, "replace", stopping_replace)
    stop = None
    jobs.run(tiny_config(**keys, OUTPUT_DIR=str(tmp_path / "unbroken")))
    total = len(writes)
    assert total > 15
    for number in range(1, total + 1):
        folder, stop = tmp_path / f"stopped{number}", number
        writes.clear()
        with pytest.raises(Stop):
            jobs.run(tiny_config(**keys, OUTPUT_DIR=str(folder)))
        assert_all_load(folder)
        stop = None
        resume = {"TRAIN__RESUME": str(folder)} if number > 1 else {}  # before the first write there is no run
        jobs.run(tiny_config(**keys, **resume, OUTPUT_DIR=str(folder)))
        assert_ends_equal(tmp_path / "unbroken", folder)


@pytest.mark.slow
def test_kills_at_random_moments(tiny_yaml, digits, tmp_path):
    unbroken = train(tiny_yaml, digits, tmp_path / "unbroken", epochs=200)
    folder = tmp_path / "killed"
    moments = [random.Random(seed).uniform(1.2, 3.5) for seed in range(10)]
    conditions = [lambda seconds, moment=moment: seconds > moment for moment in moments]
    assert train_with_kills(tiny_yaml, digits, folder, 200, conditions) >= 3
    assert_ends_equal(unbroken, folder)
