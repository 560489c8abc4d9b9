"""Where a run starts: which used folders a new run may take."""

import os
import shutil

import pytest

from cait.errors import CaitError, UsageError
from cait.train import jobs
from cait.weights.checkpoints import check_can_resume
from runs import assert_same_weights, rows_of, without_timing

KEPT = (
    "mine.pdparams",
    "inference.yaml",
    "notes.txt",
    "epoch_mine.pdparams",
    "epoch_2_old.pdstates",
    "latest2.pdparams",
)


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_replaceable_run_is_replaced_by_another(tiny_config, tmp_path):
    """It leaves nothing of the earlier run, and everything that is none of a run's files."""
    folder = tmp_path / "run"
    replaceable = {"ON_USED_FOLDER": "replace", "LOG_NAME": "train.log", "VALIDATE_FREQ": 0}
    jobs.run(tiny_config(**replaceable, TRAIN__NUM_EPOCHS=2, SAVE_FREQ=1))
    first = snapshot(folder)
    assert {"epoch_2.pdparams", "train.log"} <= first.keys() and "log_train.txt" not in first
    for name in KEPT:
        (folder / name).write_text("keep me")
    jobs.run(tiny_config(**replaceable, TRAIN__NUM_EPOCHS=1, SEED=1))
    second = snapshot(folder)
    assert "epoch_2.pdparams" not in second and second["latest.pdparams"] != first["latest.pdparams"]
    assert second["metrics.jsonl"].count(b"\n") == 1 and second["train.log"].count(b"Now training epoch 1.") == 1
    assert {second[name] for name in KEPT} == {b"keep me"}


def test_no_other_run_is_replaced(tiny_config, tmp_path):
    """Neither by a run that does not say so, nor one that was not started for it, nor what is resumed from."""
    replace = {"ON_USED_FOLDER": "replace", "TRAIN__NUM_EPOCHS": 1, "VALIDATE_FREQ": 0}
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1, SAVE_FREQ=1, VALIDATE_FREQ=0))
    before = snapshot(tmp_path / "run")
    with pytest.raises(UsageError, match="run: holds a run that was not started with ON_USED_FOLDER=replace"):
        jobs.run(tiny_config(**replace))
    with pytest.raises(UsageError, match="run: holds a run; give a new -output_dir"):
        jobs.run(tiny_config(**replace, TRAIN__RESUME=str(tmp_path / "run" / "epoch_1")))
    assert snapshot(tmp_path / "run") == before
    jobs.run(tiny_config(**replace, OUTPUT_DIR=str(tmp_path / "other")))
    before = snapshot(tmp_path / "other")
    with pytest.raises(UsageError, match="other: holds a run; give a new -output_dir"):
        jobs.run(tiny_config(OUTPUT_DIR=str(tmp_path / "other")))
    assert snapshot(tmp_path / "other") == before


def test_a_resumed_run_is_not_taken_for_a_new_one(tiny_config, tmp_path):
    folder = tmp_path / "run"
    jobs.run(tiny_config(ON_USED_FOLDER="replace", TRAIN__NUM_EPOCHS=1, VALIDATE_FREQ=0))
    words = {"ON_USED_FOLDER": "replace", "TRAIN__RESUME": str(folder), "VALIDATE_FREQ": 0}
    jobs.run(tiny_config(**words, TRAIN__NUM_EPOCHS=2))
    assert (folder / "metrics.jsonl").read_text().count("\n") == 2


@pytest.fixture
def run(tiny_config, tmp_path):
    """The folder of a run of three epochs."""
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=3, SAVE_FREQ=1, MODEL__DROP_PATH=0.2))
    return tmp_path / "run"


def go_on(tiny_config, folder, start, epochs=3):
    keys = {"TRAIN__NUM_EPOCHS": epochs, "SAVE_FREQ": 1, "MODEL__DROP_PATH": 0.2, "OUTPUT_DIR": str(folder)}
    jobs.run(tiny_config(**keys, TRAIN__RESUME=str(start)))


def damage(file):
    """Changes a byte, in all names of the file."""
    with open(file, "r+b") as stream:
        stream.seek(os.path.getsize(file) // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 4]))


SIGNS = {
    "metrics.jsonl": "no other checkpoint of it is whole; a new run needs another -output_dir",
    "best_model.pdparams": "-pretrained={}/best_model starts a new run from its weights",
    "latest.pdparams": "-pretrained={}/latest starts a new run from its weights",
    "epoch_2.pdparams": "-pretrained={}/epoch_2 starts a new run from its weights",
    "epoch_2.pdstates": "go on with -resume={}/epoch_2",
    "best_model.pdstates": "go on with -resume={}/best_model",
    "epoch_1.pdstates epoch_2.pdstates metrics.jsonl latest.pdparams": "go on with -resume={}/epoch_2",
}


def test_a_run_whose_state_is_gone_is_not_begun_again_over_what_is_left(run, tiny_config, tmp_path):
    for number, (kept, advice) in enumerate(SIGNS.items()):
        folder = tmp_path / f"copy{number}"
        folder.mkdir()
        for name in ("config.yaml", *kept.split()):
            shutil.copy(run / name, folder)
        before = snapshot(folder)
        for attempt in (lambda folder=folder: go_on(tiny_config, folder, folder), lambda f=folder: check_can_resume(f)):
            with pytest.raises(CaitError) as caught:
                attempt()
            words = f"{folder}: has files of a run but no latest.pdstates, and starting again would overwrite them; "
            assert str(caught.value).startswith(words) and str(caught.value).endswith(advice.format(folder))
        assert snapshot(folder) == before


def test_neither_is_it_when_weights_are_named_instead(run, tiny_config):
    (run / "latest.pdstates").unlink()
    before = snapshot(run)
    with pytest.raises(UsageError, match="run: holds a run; give a new -output_dir"):
        keys = {"TRAIN__RESUME": str(run / "latest"), "TRAIN__LAST_EPOCH": 1, "TRAIN__NUM_EPOCHS": 3}
        jobs.run(tiny_config(**keys))
    assert snapshot(run) == before


@pytest.mark.parametrize("is_gone", [True, False], ids=["gone", "damaged"])
def test_the_checkpoint_that_is_named_goes_on_in_the_same_folder(run, tiny_config, tmp_path, is_gone):
    """A damaged `latest` damages what is a hard link of it, so the one before it is named."""
    unbroken = shutil.copytree(run, tmp_path / "unbroken")
    newest = "epoch_3" if is_gone else "epoch_2"
    if is_gone:
        (run / "latest.pdstates").unlink()
    else:
        damage(run / "latest.pdstates")
    with pytest.raises(CaitError, match=f"; go on with -resume={run}/{newest}$"):
        go_on(tiny_config, run, run)
    with pytest.raises(UsageError, match="run: holds a run; give a new -output_dir"):
        go_on(tiny_config, run, run / "epoch_1")
    go_on(tiny_config, run, run / newest)
    if not is_gone:  # else nothing is left to train
        assert_same_weights(run / "latest.pdparams", unbroken / "latest.pdparams")
        assert without_timing(rows_of(run)) == without_timing(rows_of(unbroken))
        go_on(tiny_config, run, run, epochs=4)


def test_the_newest_checkpoint_goes_by_its_place_in_the_run_and_not_by_its_time(run, tiny_config):
    (run / "latest.pdstates").unlink()
    for name in ("epoch_3", "epoch_2", "epoch_1"):
        shutil.copy(run / f"{name}.pdstates", run / "copy")
        os.replace(run / "copy", run / f"{name}.pdstates")
    with pytest.raises(CaitError, match=f"; go on with -resume={run}/epoch_3$"):
        go_on(tiny_config, run, run)
    for name in ("epoch_3", "best_model"):
        content = (run / f"{name}.pdstates").read_bytes()
        (run / f"{name}.pdstates").write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    with pytest.raises(CaitError, match=f"; go on with -resume={run}/epoch_2$"):
        go_on(tiny_config, run, run)
