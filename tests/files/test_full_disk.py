"""A disk that is full, or a file that may not grow: every write ends in a sentence that names the file."""

import contextlib
import errno
import io
import os
import re
import resource
import sys

import numpy as np
import paddle
import pytest

from cait import files
from cait.data.prepare.digits import write_digits
from cait.data.prepare.lite import write_lite
from cait.deploy.export import build_description, export
from cait.errors import CaitError
from cait.records.figure import picture
from cait.records.predictions import write_reprod_log, write_results
from cait.train import jobs
from cait.train.checkpoint import save_checkpoint
from cait.train.confusion import write_confusion
from cait.weights import download
from cait.weights.read import load_tensors
from cait.weights.write import save_weights, write_any
from models import small_model
from project import CLASS_NAMES

LARGE = np.arange(60_000, dtype="float32").reshape(300, 200)


@contextlib.contextmanager
def full_disk(limit=8192):
    """No file of this process may grow beyond `limit` bytes, which fails as on a full disk: midway, without a name."""
    before, writes_bytecode = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # Python does not notice that it writes half of it
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = writes_bytecode


def write_table(path):
    with write_results(path, ["a" * 1000]) as write:
        for number in range(100):
            write(f"{number}.jpg", [(0, 1.0)])


def write_picture(path):
    with picture(path, 4, 3) as figure:
        figure.add_subplot().imshow(np.random.default_rng(0).random((200, 200)))


def save_large(path):
    model = small_model()
    model.state_dict = lambda: {"head.weight": paddle.to_tensor(LARGE)}  # 240 kB
    save_weights(model, path)


WRITERS = {
    "a.txt": lambda path: files.write_text(path, "x" * 100_000),
    "a.csv": write_table,
    "a.jsonl": write_table,
    "a.npy": lambda path: write_reprod_log(path, {"logits": LARGE}),
    "a.png": write_picture,
    "a.pdparams": save_large,
    "b.pdparams": lambda path: write_any({"head.weight": LARGE}, path),
    "a.safetensors": lambda path: write_any({"head.weight": LARGE}, path),
    "a.pth": lambda path: write_any({"head.weight": LARGE}, path),
    "digits": write_digits,
    "lite": lambda path: write_lite(path, path.with_name("none"), 20, 10, whole_train=False, whole_infer=False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_fails_names_the_file_and_leaves_the_old_one(tmp_path, name):
    if name == "a.pth":
        pytest.importorskip("torch")
    path = tmp_path / name
    limit = 100 if name in ("digits", "lite") else 8192
    with full_disk(limit), pytest.raises(CaitError) as caught:
        WRITERS[name](path)
    place = re.escape(str(path)) if name != "lite" else r"\S+/\.lite\.\S+\.tmp/\w+\.txt"  # the first that is too large
    assert re.fullmatch(rf"{place}: cannot be written \(file too large\)", str(caught.value))
    assert not path.exists() and not list(tmp_path.glob(".*.tmp"))
    if path.suffix in (".pdparams", ".txt", ".npy"):
        assert not list(tmp_path.iterdir())
        path.write_bytes(b"old")
        with full_disk(), pytest.raises(CaitError):
            files.write_text(path, "x" * 100_000)
        assert path.read_bytes() == b"old"


def test_tables_of_a_confusion_and_an_export_name_what_fails(tmp_path, tiny_weights):
    with full_disk(), pytest.raises(CaitError, match=re.escape(f"{tmp_path}/confusion.csv: cannot be written")):
        write_confusion(tmp_path, np.eye(200, dtype="int64"), ["a"] * 200, np.zeros(200, "int64"))
    config, model, path = tiny_weights
    folder = tmp_path / "bundle"
    expected = re.escape(f"{folder}: cannot be written (file too large)")
    with full_disk(), pytest.raises(CaitError, match=expected):
        export(model, build_description(config, CLASS_NAMES, path), folder, fused=False)
    assert not (folder / "inference.yaml").exists()


def test_a_download_blames_the_disk_and_not_the_network(tmp_path):
    part = tmp_path / "a.part"
    with full_disk(), pytest.raises(CaitError) as caught:
        download._receive(io.BytesIO(bytes(100_000)), part, 0, 100_000)
    assert str(caught.value) == f"{part}: cannot be written (file too large)"
    assert part.stat().st_size == 8192  # from which the next call goes on


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_the_systems_reason_is_told(tmp_path, number):
    expected = re.escape(f"{tmp_path}/a: cannot be written ({os.strerror(number).lower()[:5]}")
    with pytest.raises(CaitError, match=expected), files.replacing(tmp_path / "a"):
        raise OSError(number, os.strerror(number))


def test_errors_that_are_not_of_the_disk_stay_what_they_are(tmp_path):
    for error in (RuntimeError("a bug"), OSError("no number"), FileNotFoundError(errno.ENOENT, "No such file", "b")):
        with pytest.raises(type(error)) as caught, files.naming_what_fails(tmp_path):
            raise error
        assert caught.value is error
    with pytest.raises(CaitError, match="as it was"), files.replacing(tmp_path / "a"):
        raise CaitError("as it was")


def test_training_on_a_full_disk_ends_with_its_checkpoint_intact(tiny_config, tmp_path, monkeypatch):
    folder, saves = tmp_path / "run", []

    def save(*arguments, **options):
        saves.append(1)
        if len(saves) < 2:
            return save_checkpoint(*arguments, **options)
        with full_disk():
            return save_checkpoint(*arguments, **options)

    monkeypatch.setattr("cait.train.run.save_checkpoint", save)
    with pytest.raises(CaitError, match=r"run/\.?\S+\.pd\w+: cannot be written \(file too large\)"):
        jobs.run(tiny_config(TRAIN__NUM_EPOCHS=4))
    progress = load_tensors(folder / "latest.pdstates")["progress"]
    assert progress["epoch"] == 1 and load_tensors(folder / "latest.pdparams")
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]
