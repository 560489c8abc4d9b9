"""Reading works whatever /dev/shm is like, and the log says how."""

import collections
import errno
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from cait.data import shared_memory
from cait.data.build import build_loaders
from cait.data.shared_memory import OTHER_BYTES, SEMAPHORES, Sending, how_to_send
from cait.errors import CaitError
from project import MAIN

Usage = collections.namedtuple("Usage", "free")


def free(monkeypatch, number):
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: Usage(number))


def broken(monkeypatch, code):
    def lock():
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(multiprocessing, "Lock", lock)


def test_shared_memory_is_used_where_there_is_enough(monkeypatch):
    assert how_to_send(0, 10**9) == Sending(0, False)
    needed = 8 * (10**6 + OTHER_BYTES)  # two batches of two processes, and four on their way
    free(monkeypatch, needed)
    assert how_to_send(2, 10**6) == Sending(2, True)
    free(monkeypatch, needed - 1)
    workers, shared, note = how_to_send(2, 10**6)
    assert (workers, shared) == (2, False) and "has 8.5 MB free, and batches need 8.5 MB" in note
    free(monkeypatch, SEMAPHORES - 1)
    assert how_to_send(2, 1)[:2] == (0, False)


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOENT, errno.EACCES, errno.ENOSPC])
def test_without_shared_memory_there_are_no_reading_processes(monkeypatch, code):
    broken(monkeypatch, code)
    assert how_to_send(2, 1)[:2] == (0, False) and os.strerror(code) in how_to_send(2, 1).note


@pytest.mark.parametrize("workers", [0, 2], ids=["no processes", "pipes"])
def test_all_ways_give_the_same_batches(tiny_config, monkeypatch, caplog, workers):
    def batches(**options):
        loaders = build_loaders(tiny_config(DATA__NUM_WORKERS="2", **options))
        loaders.log_notes(logging.getLogger("test"))
        loaders.train.set_epoch(1)
        return [(batch.images.numpy(), batch.labels.numpy()) for batch in loaders.train]

    expected = batches()
    assert not caplog.records
    if workers:
        free(monkeypatch, 2 * SEMAPHORES)
        monkeypatch.setattr(shared_memory, "OTHER_BYTES", SEMAPHORES)
    else:
        broken(monkeypatch, errno.EROFS)
    found = batches()
    assert len(found) == len(expected) > 1
    for ours, theirs in zip(found, expected):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))
    (record,) = caplog.records
    assert ("sent through pipes" if workers else "read in this process") in record.message


def test_processes_that_cannot_be_started_are_one_sentence(tiny_config, monkeypatch):
    loader = build_loaders(tiny_config(DATA__NUM_WORKERS="1")).train
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("paddle.io.DataLoader.__iter__", refuse)
    with pytest.raises(CaitError, match="cannot be started .No space left on device.* DATA.NUM_WORKERS=0 does without"):
        list(loader)


@pytest.mark.slow
@pytest.mark.parametrize("options", ["ro", "size=64k", "size=1200k"])
def test_training_with_another_dev_shm(tiny_yaml, digits, tmp_path, options):
    mounted = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o {options} none /dev/shm && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*mounted, "true"], capture_output=True).returncode:
        pytest.skip("this user cannot mount")
    words = [sys.executable, MAIN, f"-cfg={tiny_yaml}", f"-data_path={digits}", f"-output_dir={tmp_path / 'run'}"]
    more = ["-epochs=2", "-o", "DATA.NUM_WORKERS=2", "DATA.IMAGE_SIZE=64", "DATA.BATCH_SIZE=40"]
    result = subprocess.run([*mounted, *words, *more], capture_output=True, text=True)
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    assert "/dev/shm " in result.stdout and (tmp_path / "run" / "latest.pdparams").is_file()
