"""Where a run starts: which used folders a new run may take."""

import pytest

from cait import jobs
from cait.errors import UsageError

KEPT = ("mine.pdparams", "inference.yaml", "notes.txt")


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
