"""A checkpoint knows whether it is as it was saved, and others' files are read as they are."""

import hashlib
import os
import shutil

import numpy as np
import paddle
import pytest

from cait.errors import CaitError
from cait.train import checkpoint
from cait.train.optim import adamw
from cait.weights import load, trailer, write
from cait.weights.trailer import MARK, append_record, check_content, is_whole, read_record
from kills import kill_at
from models import assert_equal_weights, small_model, trained

CLASSES = {"names": ["猫", "狗", "\udc80"]}
PROGRESS = {"epoch": 3, "step": 7, "classes": CLASSES}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with `latest`, and the model that was saved."""
    folder = tmp_path_factory.mktemp("saved")
    model, optimizer = trained()
    checkpoint.save_checkpoint(folder, ["latest"], model, optimizer, PROGRESS)
    return folder, model


@pytest.mark.parametrize("suffix", [".pdparams", ".pdstates"])
def test_the_record_is_found_without_the_content(saved, tmp_path, suffix):
    file = saved[0] / f"latest{suffix}"
    content = file.read_bytes()
    assert {name: value for name, value in read_record(file).items() if name not in ("sha256", "input")} == PROGRESS
    (tmp_path / "a").write_bytes(content[-1000:])
    assert read_record(tmp_path / "a") == read_record(file) and not is_whole(tmp_path / "a")


def damages(content):
    """Kinds of damage, each as what became of the content."""
    size = len(content)
    places = {*range(0, size, size // 50), *range(size - 150, size)}
    yield from (content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :] for place in places)
    for length in (1, 512, 4096, size):
        for place in {*range(0, size, size // 9), size - length}:
            hole = content[:place] + bytes(min(length, size - place)) + content[place + length :]
            if hole != content:
                yield hole
    # One that happens to end as a pickle does has no record, and it is for `paddle.load` to miss its end.
    cuts = (content[:-length] for length in (1, 8, 40, 48, 512, 4096))
    yield from (cut for cut in cuts if not cut.endswith(b"."))
    yield content + b"\0"


@pytest.mark.parametrize("record", [b"[]", b"1", b"null", b"{", b"\xff", b"[" * 100_000])
def test_a_record_that_is_no_table_is_refused(tmp_path, record):
    write.save_weights(small_model(), tmp_path / "a.pdparams")
    content = (tmp_path / "a.pdparams").read_bytes()
    pickled = content[: content.rindex(b'{"sha256"')]
    footer = hashlib.sha256(record).digest() + len(record).to_bytes(8, "little") + MARK
    (tmp_path / "a.pdparams").write_bytes(pickled + record + footer)
    with pytest.raises(CaitError, match=r"a\.pdparams: not a checkpoint of this project \(its record is no table"):
        load.load_weights(small_model(), tmp_path / "a")


@pytest.mark.parametrize("suffix", [".pdparams", ".pdstates"])
def test_every_damage_is_found(saved, tmp_path, suffix):
    content, path, count = (saved[0] / f"latest{suffix}").read_bytes(), tmp_path / f"a{suffix}", 0
    path.write_bytes(content)
    check_content(path)
    for damaged in damages(content):
        path.write_bytes(damaged)
        with pytest.raises(CaitError, match="damaged"):
            check_content(path)
        count += 1
    assert count > 200


def test_what_paddle_would_load_although_it_is_damaged_is_refused(saved, tmp_path):
    """A byte of a tensor: the file is still a pickle, and only the checksum tells."""
    for suffix in (".pdparams", ".pdstates"):
        content = bytearray((saved[0] / f"latest{suffix}").read_bytes())
        content[content.index(saved[1].head.weight.numpy().tobytes()[:16]) + 5] ^= 1
        (tmp_path / f"latest{suffix}").write_bytes(content)
        assert paddle.load(str(tmp_path / f"latest{suffix}"))
    other = small_model()
    with pytest.raises(CaitError, match="latest.pdparams: damaged .* SHA-256 .*; copy it again from"):
        load.load_weights(other, tmp_path / "latest")
    with pytest.raises(CaitError, match="latest.pdstates: damaged .* SHA-256 .*; copy it again from"):
        checkpoint.load_checkpoint(other, adamw(other, 0.05), tmp_path)


def test_files_without_a_record_are_read_unchecked(saved, tmp_path):
    """One put in the place of a checkpoint, as well as one of others."""
    folder, model = saved
    for suffix in (".pdparams", ".pdstates"):
        shutil.copy(folder / f"latest{suffix}", tmp_path)
        content = paddle.load(str(folder / f"latest{suffix}"))
        paddle.save(content, str(tmp_path / f"latest{suffix}"))
        assert read_record(tmp_path / f"latest{suffix}") is None
    other = small_model()
    load.load_weights(other, tmp_path / "latest")
    assert checkpoint.load_checkpoint(other, adamw(other, 0.05), tmp_path) == PROGRESS
    assert_equal_weights(model, other)


def test_a_lone_copy_is_checked(saved, tmp_path):
    shutil.copy(saved[0] / "latest.pdparams", tmp_path / "mine.pdparams")
    load.load_weights(small_model(), tmp_path / "mine")
    assert read_record(tmp_path / "mine.pdparams")["classes"] == CLASSES


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_the_names_of_a_checkpoint_share_a_computation(tmp_path, monkeypatch, links):
    if not links:

        def link(*_):
            raise PermissionError("not on this file system")

        monkeypatch.setattr(os, "link", link)
    seen, sha256_of = [], trailer.sha256_of
    monkeypatch.setattr(trailer, "sha256_of", lambda *words: seen.append(words) or sha256_of(*words))
    checkpoint.save_checkpoint(tmp_path, ["latest", "best_model", "epoch_3"], *trained(), PROGRESS)
    assert len(seen) == 2
    files = sorted(tmp_path.iterdir())
    assert len(files) == 6 and all(map(is_whole, files))
    assert len({path.stat().st_ino for path in files}) == (2 if links else 6)


def test_a_kill_at_any_step_of_a_save_raises_no_false_alarm(tmp_path, monkeypatch):
    first, second = trained(), trained(steps=2)
    names, progress = ["latest", "best_model"], PROGRESS | {"epoch": 4}
    expected, step = {3, 4}, 1
    (tmp_path / "start").mkdir()
    checkpoint.save_checkpoint(tmp_path / "start", names, *first, PROGRESS)
    while True:
        folder = shutil.copytree(tmp_path / "start", tmp_path / str(step))
        if not kill_at(step, lambda folder=folder: checkpoint.save_checkpoint(folder, names, *second, progress)):
            break
        files = [path for path in folder.iterdir() if path.suffix in (".pdparams", ".pdstates")]
        assert len(files) == 4
        for path in files:
            check_content(path)
            assert read_record(path)["epoch"] in expected
        step += 1
    assert step > 6 and {read_record(path)["epoch"] for path in folder.glob("*.pd*")} == {4}


def test_numbers_are_those_of_the_file_format(tmp_path):
    """As the docstring of the module states it, read here without the module."""
    import hashlib
    import json

    paddle.save({"a": paddle.ones([2])}, str(tmp_path / "a.pdparams"))
    pickled = (tmp_path / "a.pdparams").read_bytes()
    append_record(tmp_path / "a.pdparams", {"epoch": 1})
    content = (tmp_path / "a.pdparams").read_bytes()
    length = int.from_bytes(content[-16:-8], "little")
    record = content[-48 - length : -48]
    assert content[: -48 - length] == pickled and content[-8:] == MARK
    assert hashlib.sha256(record).digest() == content[-48:-16]
    assert json.loads(record) == {"sha256": hashlib.sha256(pickled).hexdigest(), "epoch": 1}
    assert np.array_equal(paddle.load(str(tmp_path / "a.pdparams"))["a"].numpy(), [1, 1])
