"""A folder has the old bundle or the new one, whole, whenever an export is broken off."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cait.deploy import bundle_folder as folders
from cait.deploy import export as exporting
from cait.deploy.bundle import Description, read_description, verify, write_description
from cait.deploy.bundle_folder import COMMITTED, JOB, TRIAL, bundle_folder, commit, finish
from cait.deploy.engine import Engine
from cait.deploy.export import build_description, export
from cait.deploy.predictor import Predictor
from cait.errors import CaitError, UsageError
from cait.files.digest import sha256_of
from cait.files.folder_lock import FolderInUse, held
from kills import kill_at
from project import CLASS_NAMES, ROOT

EXPORT = str(ROOT / "CaiT" / "export_model.py")


def write_trial(folder, generation, *more):
    """A bundle in TRIAL whose files hold the generation; only its checksums are real."""
    trial = folder / TRIAL
    trial.mkdir()
    (trial / "left").mkdir()  # such as Paddle's cache
    for name in ("inference.json", "inference.pdiparams", *more):
        (trial / name).write_text(f"{name} {generation}")
    files = {path.name: sha256_of(path) for path in trial.iterdir() if path.is_file()}
    numbers = ([16, 16], 1.0, "bicubic", "scale", 4, [4, 4], 2, 1, [0.5], [0.5])
    rest = (CLASS_NAMES, "0" * 64, {}, "fp32", ["logits"], files, 0, [0.0] * len(CLASS_NAMES))
    write_description(trial, Description(generation, *numbers, *rest))
    return files


def generation_of(folder):
    """Of the bundle that our commands see; fails if it is not whole."""
    description = read_description(folder)
    for name in description.files:
        verify(folder, description, name)
    return description.variant


@pytest.fixture
def old(tmp_path):
    """A folder with an old bundle and a file of the user's."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    commit(folder, write_trial(folder, "old", "inference.onnx"))
    return folder


@pytest.mark.parametrize("links", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["links", "no links"])
def test_a_kill_at_any_step_leaves_a_whole_bundle(tmp_path, monkeypatch, links):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # which takes most of the time
    if not links:

        def link(*_):
            raise PermissionError("not on this file system")

        monkeypatch.setattr(os, "link", link)
    step, found = 1, []
    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
        commit(folder, write_trial(folder, "old", "inference.onnx", "fused_fp32.json"))
        files = write_trial(folder, "new")
        if not kill_at(step, lambda folder=folder, files=files: commit(folder, files)):
            break
        found.append(generation_of(folder))
        with held(folder, JOB):  # the next export, as `export` does it
            finish(folder)
            folders.shutil.rmtree(folder / TRIAL, ignore_errors=True)
            commit(folder, write_trial(folder, "newest"))
        assert generation_of(folder) == "newest"
        names = {"inference.json", "inference.pdiparams", "inference.yaml", "mine.txt"}
        assert {path.name for path in folder.iterdir()} - {".export.lock"} == names
        step += 1
    assert len(found) > 10 and set(found) == {"old", "new"} and found == sorted(found, reverse=True)


def test_a_bundle_that_cannot_be_put_in_its_place_is_read_where_it_is(old, monkeypatch):
    files = write_trial(old, "new")
    with monkeypatch.context() as patch:
        patch.setattr(folders, "finish", lambda folder: None)
        commit(old, files)

    def refuse(*_, **__):
        raise CaitError("a read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(folders, "held", refuse)
        assert bundle_folder(old) == old / COMMITTED and generation_of(old) == "new"
    assert bundle_folder(old) == old and generation_of(old) == "new"
    assert not (old / COMMITTED).exists() and not (old / "inference.onnx").exists()


def test_an_old_description_cannot_name_what_is_removed_outside_the_bundle(old):
    (old.parent / "precious").write_text("mine")
    text = (old / "inference.yaml").read_text().replace("inference.onnx:", "../precious: x\n  mine.txt: x\n  7:")
    (old / "inference.yaml").write_text(text)
    assert "mine.txt" in folders.described(old)["files"]
    commit(old, write_trial(old, "new"))
    assert (old.parent / "precious").is_file() and (old / "mine.txt").is_file()


class Stop(BaseException):
    """Ctrl-C or SIGTERM."""


def test_a_stopped_export_leaves_the_old_bundle(tiny_weights, tiny_bundle, tmp_path, monkeypatch):
    config, model, path = tiny_weights
    folder = exporting.shutil.copytree(tiny_bundle, tmp_path / "bundle")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def stop(*_):
        raise Stop

    monkeypatch.setattr(exporting, "_compare", stop)
    with pytest.raises(Stop):
        export(model, build_description(config, CLASS_NAMES, path), folder, fused=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    Predictor(folder, Engine(fused=False))


def test_two_exports_into_a_folder_do_not_meet(tiny_weights, tmp_path):
    config, model, path = tiny_weights
    with held(tmp_path, JOB), pytest.raises(FolderInUse, match="is doing the same job"):
        export(model, build_description(config, CLASS_NAMES, path), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"variant": "other"}, "holds the bundle of another model, of variant old and not other"),
        ({"image_size": [32, 32]}, r"another model, of image_size \[16, 16\] and not \[32, 32\]"),
        ({"channels": 3}, "another model, of channels 1 and not 3"),
        ({"class_names": CLASS_NAMES[::-1]}, "of a model with other class names"),
        ({"class_names": ["0", "1"]}, "of a model with other class names"),
    ],
    ids=str,
)
def test_another_models_bundle_is_not_replaced(old, changes, words):
    new = exporting.dataclasses.replace(read_description(old), **changes)
    with pytest.raises(UsageError, match=f"{words}; choose another folder, or replace what is there with --force"):
        exporting._check_replaceable(old, new)


@pytest.mark.parametrize("name", ["inference.pdmodel", "inference.yaml", "fused_bf16.json", "inference.onnx"])
def test_files_that_no_export_wrote_are_not_replaced(old, tmp_path, name):
    new = read_description(old)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).write_text("mine: true")
    with pytest.raises(UsageError, match=f"{name}: no file of a bundle that export_model.py wrote"):
        exporting._check_replaceable(tmp_path / "other", new)


def test_a_bundle_of_the_same_model_is_replaced(old):
    new = exporting.dataclasses.replace(read_description(old), weights="other", precision="bf16", outputs=[])
    exporting._check_replaceable(old, new)
    numbers = [str(index) for index in range(len(CLASS_NAMES))]  # exported without the data set, whose names it lacks
    exporting._check_replaceable(old, exporting.dataclasses.replace(new, class_names=numbers))


def test_export_asks_for_force(tiny_weights, tmp_path):
    config, model, path = tiny_weights
    (tmp_path / "inference.pdiparams").write_text("mine")
    description = build_description(config, CLASS_NAMES, path)
    with pytest.raises(UsageError, match="inference.pdiparams: no file of a bundle"):
        export(model, description, tmp_path, fused=False)
    assert (tmp_path / "inference.pdiparams").read_text() == "mine"
    export(model, description, tmp_path, fused=False, force=True)
    assert read_description(tmp_path).class_names == CLASS_NAMES


def test_an_export_needs_no_home(tiny_weights, tmp_path, monkeypatch):
    config, model, path = tiny_weights
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.delenv("USERPROFILE", raising=False)
    export(model, build_description(config, CLASS_NAMES, path), tmp_path, fused=False)
    assert os.environ["HOME"] == "/proc/none" and "USERPROFILE" not in os.environ
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
def test_a_killed_export_leaves_a_bundle_and_does_not_hinder_the_next(tiny_weights, tiny_yaml, tmp_path):
    folder, path = tmp_path / "bundle", tiny_weights[2]
    words = [sys.executable, EXPORT, f"-cfg={tiny_yaml}", f"--model_path={path}", f"--save-inference-dir={folder}"]
    subprocess.run(words, check=True)
    for mark in ("inference.yaml", "inference.pdiparams"):
        with subprocess.Popen(words) as process:
            while process.poll() is None and not (folder / TRIAL / mark).is_file():
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL and (folder / TRIAL).is_dir()
        Predictor(folder, Engine())
    subprocess.run(words, check=True)
    assert {path.name for path in folder.iterdir()} == {*read_description(folder).files, "inference.yaml"}
