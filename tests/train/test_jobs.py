"""Training, evaluation and prediction from a config, in this process."""

import csv
import functools
import json
import os
import pathlib
import re

import numpy as np
import paddle
import pytest
import yaml

from cait.config.read import make_config
from cait.errors import CaitError, UsageError
from cait.machine import device
from cait.train import jobs
from cait.weights.read import load_tensors
from runs import assert_same_weights, rows_of, without_timing


@pytest.fixture(scope="module")
def head():
    return r"\d{4} \d\d:\d\d:\d\d [AP]M "


def test_training_leaves_logs_numbers_and_checkpoints(tiny_config, tmp_path, head):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=3, SAVE_FREQ=2, REPORT_FREQ=2))
    run = tmp_path / "run"
    names = {path.name for path in run.iterdir()}
    stems = {
        f"{stem}.{end}" for stem in ("latest", "best_model", "epoch_2", "epoch_3") for end in ("pdparams", "pdstates")
    }
    assert names == stems | {"log_train.txt", "metrics.jsonl", "config.yaml", "learning_curves.png"}
    log = (run / "log_train.txt").read_text()
    number = r"\d+\.\d+"
    for line in (
        rf"{head}Now training epoch 3\. LR=0\.\d{{6,}}",
        rf"{head}Epoch\[003/003\], Step\[0002/0003\], Avg Loss: {number}, Avg Acc: {number}, loss: .* eta: 0:00:00",
        rf"{head}----- Epoch\[003/003\], Train Loss: {number}, Train Acc: {number}, time: {number}",
        rf"{head}Val Step\[0000/0002\], Avg Loss: {number}, Avg Acc@1: {number}, Avg Acc@5: {number}",
        rf"{head}----- Epoch\[003/003\], Validation Loss: {number}, Validation Acc@1: {number}, "
        rf"Validation Acc@5: {number}, time: {number}",
        rf"{head}.*paddle {re.escape(paddle.__version__)}, .*, images resized .*, seed 0",
    ):
        assert re.search(f"^{line}$", log, re.MULTILINE), line
    rows = rows_of(run)
    assert [row["epoch"] for row in rows] == [1, 2, 3] and rows[-1]["step"] == 9
    assert yaml.safe_load((run / "config.yaml").read_text())["TRAIN"]["NUM_EPOCHS"] == 3


def test_best_model_is_the_best(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=4, SAVE_FREQ=1, TRAIN__BASE_LR=0.05, TRAIN__LINEAR_SCALED_LR=None))
    run = tmp_path / "run"
    accuracies = [row["val_acc1"] for row in rows_of(run)]
    best_epoch = int(np.argmax(accuracies)) + 1
    assert best_epoch != 4, "the test needs a run whose last epoch is not its best"
    assert_same_weights(run / "best_model.pdparams", run / f"epoch_{best_epoch}.pdparams")
    assert load_tensors(run / "latest.pdstates")["progress"]["best_acc1"] == max(accuracies)


@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_run_ends_where_an_unbroken_one_does(tiny_config, tmp_path, stop):
    whole = {"TRAIN__NUM_EPOCHS": 3, "MODEL__DROP_PATH": 0.3, "TRAIN__WARMUP_EPOCHS": 1, "SAVE_FREQ": 1}
    jobs.run(tiny_config(**whole))
    run, resumed = tmp_path / "run", tmp_path / "resumed"
    jobs.run(tiny_config(**whole, OUTPUT_DIR=str(resumed), TRAIN__RESUME=str(run / f"epoch_{stop}")))
    assert_same_weights(run / "latest.pdparams", resumed / "latest.pdparams")
    assert without_timing(rows_of(run)) == without_timing(rows_of(resumed))
    left, right = load_tensors(run / "latest.pdstates"), load_tensors(resumed / "latest.pdstates")
    for name in ("epoch", "step"):
        assert left["progress"][name] == right["progress"][name]
    for name, value in left["optimizer"].items():
        assert np.array_equal(value, right["optimizer"][name]), name


def test_resuming_in_place_keeps_the_rows_of_the_epochs_before(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1))
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "lost": true}\n')
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=2, TRAIN__RESUME=str(tmp_path / "run")))
    rows = rows_of(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [1, 2] and "lost" not in rows[1]
    log = (tmp_path / "run" / "log_train.txt").read_text()
    assert re.findall("changed since its last start: (.*)", log) == ["TRAIN.NUM_EPOCHS 2, not 1"]


def test_a_finished_run_trains_no_further(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1))
    before = (tmp_path / "run" / "latest.pdstates").read_bytes()
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1, TRAIN__RESUME=str(tmp_path / "run")))
    assert (tmp_path / "run" / "latest.pdstates").read_bytes() == before
    assert "nothing to train: 1 of 1 epochs are done" in (tmp_path / "run" / "log_train.txt").read_text()


def test_a_run_that_was_stopped_in_its_first_epoch_begins_again(tiny_config, tmp_path, digits):
    bad = digits / (digits / "train_list.txt").read_text().split()[0]
    content = bad.read_bytes()
    bad.unlink()
    with pytest.raises(CaitError):
        jobs.run(tiny_config())
    bad.write_bytes(content)
    jobs.run(tiny_config(TRAIN__RESUME=str(tmp_path / "run")))
    assert [row["epoch"] for row in rows_of(tmp_path / "run")] == [1, 2]


def test_fine_tuning_to_another_class_count_and_resolution(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1))
    other = {"MODEL__PRETRAINED": str(tmp_path / "run" / "latest"), "OUTPUT_DIR": str(tmp_path / "tuned")}
    other |= {"MODEL__NUM_CLASSES": 12, "DATA__IMAGE_SIZE": [16, 24], "TRAIN__NUM_EPOCHS": 1, "DATA__LABELS": ""}
    (tmp_path / "digits" / "labels.txt").unlink()
    with pytest.raises(CaitError, match="MODEL.RESET_HEAD"):
        jobs.run(tiny_config(**other))
    jobs.run(tiny_config(**other, MODEL__RESET_HEAD=True))
    log = (tmp_path / "tuned" / "log_train.txt").read_text()
    assert "position embedding resized from 4x4 to 4x6 patches; fresh head for 12 classes in place of 10" in log


def test_a_run_resumed_in_another_folder_has_its_own_best_model(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1))
    other = tmp_path / "other"
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=2, TRAIN__RESUME=str(tmp_path / "run"), OUTPUT_DIR=str(other)))
    assert_same_weights(other / "best_model.pdparams", other / "latest.pdparams")
    assert [row["epoch"] for row in rows_of(other)] == [1, 2]


def damage(digits, split, *indices):
    """Damages images of a list; their paths."""
    lines = (digits / f"{split}_list.txt").read_text().splitlines()
    paths = [digits / lines[index].rsplit(maxsplit=1)[0] for index in indices]
    for path in paths:
        path.write_bytes(b"no image")
    return paths


@pytest.mark.parametrize("answer", ["wrong", "skip"])
def test_a_bad_validation_image_costs_training_nothing(tiny_config, tmp_path, digits, answer):
    """Neither an epoch nor the best model; its count stands in the log and in the numbers of every epoch."""
    bad = damage(digits, "val", 0, 7)
    jobs.run(tiny_config(EVALUATE__ON_BAD_IMAGE=answer))
    rows = rows_of(tmp_path / "run")
    assert [row["val_unreadable"] for row in rows] == [2, 2] and all("val_acc1" in row for row in rows)
    assert (tmp_path / "run" / "best_model.pdparams").is_file()
    log = (tmp_path / "run" / "log_train.txt").read_text()
    words = "count as wrong" if answer == "wrong" else "are left out"
    assert log.count(f"Val: 2 of 20 images cannot be read and {words}, the first: {bad[0]}: the image") == 2
    assert "looked for 20 of 20 validation images, and decoded 20: 2 cannot be read" in log
    assert log.index(f"{bad[1]}: the image cannot be read") < log.index("Now training epoch 1")


@pytest.mark.parametrize("split, key", [("val", "EVALUATE__ON_BAD_IMAGE"), ("train", "DATA__ON_BAD_IMAGE")])
def test_bad_images_that_are_errors_stop_training_before_it_begins(tiny_config, tmp_path, digits, split, key):
    bad = damage(digits, split, 0, 7)
    with pytest.raises(CaitError, match=f"2 images cannot be read, the first: {bad[0]}: the image cannot be read"):
        jobs.run(tiny_config(**{key: "error"}))
    log = (tmp_path / "run" / "log_train.txt").read_text()
    assert all(f"{path}: the image cannot be read" in log for path in bad) and "Now training" not in log
    with pytest.raises(CaitError, match=f"; {key.replace('__', '.')}="):
        jobs.run(tiny_config(**{key: "error"}))
    with pytest.raises(CaitError, match="the image cannot be read"):  # without the look, by training or validation
        jobs.run(tiny_config(**{key: "error"}, DATA__CHECK_SECONDS=0))
    assert "Now training epoch 1" in (tmp_path / "run" / "log_train.txt").read_text()


def test_the_look_before_training_changes_nothing(tiny_config, tmp_path):
    for seconds in (0, 5):
        jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1, DATA__CHECK_SECONDS=seconds, OUTPUT_DIR=str(tmp_path / f"{seconds}")))
    assert_same_weights(tmp_path / "0" / "latest.pdparams", tmp_path / "5" / "latest.pdparams")


def test_what_is_left_out_of_folders_is_in_the_log(tiny_config, tmp_path, digits):
    (digits / "train" / "zero" / "notes.xyz").touch()
    (digits / "val" / "zero" / "._0000.png").touch()
    (digits / "train" / "nothing").mkdir()
    config = {"DATA__DATASET": "folder", "TRAIN__NUM_EPOCHS": 1}
    jobs.run(tiny_config(**config))
    log = (tmp_path / "run" / "log_train.txt").read_text()
    assert f"train: 1 files are no images and are left out (1 .xyz), the first: {digits}/train/zero/notes.xyz" in log
    assert f"{digits}/train: folders without images are left out: nothing" in log and "._0000" not in log
    with pytest.raises(UsageError, match=r"has 10 classes \(without images, and so left out: .*train/nothing\)"):
        jobs.run(tiny_config(**config, MODEL__NUM_CLASSES=11, OUTPUT_DIR=str(tmp_path / "other")))


def test_weights_that_are_not_finite_are_never_saved(tiny_config, tmp_path):
    rate = {"TRAIN__BASE_LR": 1e38, "TRAIN__LINEAR_SCALED_LR": None, "DATA__BATCH_SIZE": 64}
    with pytest.raises(CaitError, match="the loss is nan at validation"):
        jobs.run(tiny_config(**rate))
    assert not list((tmp_path / "run").glob("best_model*"))


def test_bare_weights_resume_from_the_epoch_that_is_given(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1))
    run = tmp_path / "run"
    (run / "latest.pdparams").rename(tmp_path / "weights.pdparams")
    config = {"TRAIN__RESUME": str(tmp_path / "weights"), "OUTPUT_DIR": str(tmp_path / "second")}
    with pytest.raises(UsageError, match="-last_epoch=N says how many"):
        jobs.run(tiny_config(**config))
    jobs.run(tiny_config(**config, TRAIN__LAST_EPOCH=1))
    assert [row["epoch"] for row in rows_of(tmp_path / "second")] == [2]


def test_no_run_is_written_over_another(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1))
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1, OUTPUT_DIR=str(tmp_path / "other")))
    before = (tmp_path / "run" / "latest.pdstates").read_bytes()
    for resume in ("", str(tmp_path / "other"), str(tmp_path / "run" / "best_model")):
        with pytest.raises(UsageError, match="run: holds a run"):
            jobs.run(tiny_config(TRAIN__RESUME=resume))
    assert (tmp_path / "run" / "latest.pdstates").read_bytes() == before
    for states in (tmp_path / "run").glob("*.pdstates"):
        states.unlink()
    with pytest.raises(UsageError, match="run: holds a run"):
        jobs.run(tiny_config())


def test_pretrained_weights_are_where_training_starts(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1))
    weights = tmp_path / "run" / "latest"
    tiny_rate = {"TRAIN__BASE_LR": 1e-12, "TRAIN__END_LR": 0.0, "TRAIN__WEIGHT_DECAY": 0.0}
    jobs.run(tiny_config(MODEL__PRETRAINED=str(weights), OUTPUT_DIR=str(tmp_path / "tuned"), **tiny_rate))
    left = load_tensors(tmp_path / "run" / "latest.pdparams")
    for name, value in load_tensors(tmp_path / "tuned" / "latest.pdparams").items():
        np.testing.assert_allclose(value, left[name], atol=1e-6, err_msg=name)


def test_evaluation_repeats_the_accuracy_of_training(tiny_config, tmp_path, head):
    jobs.run(tiny_config())
    weights = {"MODEL__PRETRAINED": str(tmp_path / "run" / "latest")}
    result = jobs.evaluate(tiny_config(EVAL=True, DATA__BATCH_SIZE_EVAL=7, **weights))
    row = rows_of(tmp_path / "run")[-1]
    assert (result.acc1, result.acc5) == (row["val_acc1"], row["val_acc5"])
    assert result.loss == pytest.approx(row["val_loss"], rel=1e-6)
    log = (tmp_path / "run" / "log_eval.txt").read_text()
    assert re.search(
        rf"^{head}Validation Loss: [\d.]+, Validation Acc@1: [\d.]+, Validation Acc@5: [\d.]+, time: ", log, re.M
    )


def test_prediction_names_image_class_and_probability(tiny_config, tmp_path, digits):
    jobs.run(tiny_config())
    jobs.run(tiny_config(PRED=True, MODEL__PRETRAINED=str(tmp_path / "run" / "latest"), PREDICT__TOP_K=3))
    with open(tmp_path / "run" / "predictions.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30 and [row["rank"] for row in rows[:3]] == ["1", "2", "3"]
    names = [str(digits / line) for line in (digits / "test_list.txt").read_text().split()]
    assert [row["image_name"] for row in rows[::3]] == names
    class_names = [line.split()[1] for line in (digits / "labels.txt").read_text().splitlines()]
    for first, second in zip(rows[::3], rows[1::3]):
        assert first["class_name"] == class_names[int(first["class_id"])]
        assert 1 >= float(first["prob"]) >= float(second["prob"]) > 0
    first = rows[0]
    words = f"class_id: {first['class_id']}, class_name: {first['class_name']}, prob: {first['prob']}"
    line = f"image_name: {names[0]}, {words}"
    assert line in (tmp_path / "run" / "log_pred.txt").read_text()


def test_prediction_goes_on_after_a_bad_image_and_gives_it_a_row(tiny_config, tmp_path, digits, tiny_weights):
    names = [str(digits / line) for line in (digits / "test_list.txt").read_text().split()]
    for index in (0, 3, 4, 9):  # at the beginning and the end, and a whole batch
        pathlib.Path(names[index]).write_bytes(b"no image")
    config = {"PRED": True, "MODEL__PRETRAINED": str(tiny_weights[2]), "PREDICT__TOP_K": 1, "DATA__BATCH_SIZE_EVAL": 2}
    with pytest.raises(CaitError, match="4 of 10 images could not be read"):
        jobs.run(tiny_config(**config))
    with open(tmp_path / "run" / "predictions.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image_name", "rank", "class_id", "class_name", "prob", "error"]
    assert [row["image_name"] for row in rows] == names
    for index, row in enumerate(rows):
        assert bool(row["error"]) == (index in (0, 3, 4, 9)) == (not row["class_id"])
    assert rows[3]["error"] == f"{names[3]}: the image cannot be read (cannot identify image file)"
    assert rows[3]["error"] in (tmp_path / "run" / "log_pred.txt").read_text()


def test_training_stops_at_a_bad_image_or_counts_it(tiny_config, tmp_path, digits):
    bad = digits / (digits / "train_list.txt").read_text().split()[0]
    bad.unlink()
    with pytest.raises(CaitError, match=f"{bad.name}: the image cannot be read \\(no such file\\)"):
        jobs.run(tiny_config())
    jobs.run(tiny_config(DATA__ON_BAD_IMAGE="skip", OUTPUT_DIR=str(tmp_path / "lenient")))
    assert [row["skipped_images"] for row in rows_of(tmp_path / "lenient")] == [1, 1]
    assert "1 images left out" in (tmp_path / "lenient" / "log_train.txt").read_text()


@pytest.mark.parametrize("answer, counted", [("wrong", 20), ("skip", 18)])
def test_evaluation_answers_bad_images_as_it_is_told(tiny_config, tmp_path, digits, tiny_weights, answer, counted):
    config = {"EVAL": True, "MODEL__PRETRAINED": str(tiny_weights[2]), "EVALUATE__CONFUSION": True}
    whole = jobs.evaluate(tiny_config(**config))
    labels = [int(line.split()[1]) for line in (digits / "val_list.txt").read_text().splitlines()]
    bad = damage(digits, "val", 0, 7)
    result = jobs.evaluate(tiny_config(**config, EVALUATE__ON_BAD_IMAGE=answer, DATA__BATCH_SIZE_EVAL=1))
    written = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert written == result.counts() and (written["num_images"], written["unreadable"]) == (counted, 2)
    assert round(whole.acc1 * 20) - 2 <= result.acc1 * counted <= round(whole.acc1 * 20)
    assert result.loss == pytest.approx(whole.loss, rel=0.5)
    log = (tmp_path / "run" / "log_eval.txt").read_text()
    assert f"2 of 20 images cannot be read and {'count' if answer == 'wrong' else 'are'}" in log
    with open(tmp_path / "run" / "per_class.csv", encoding="utf-8-sig", newline="") as file:
        of_class = {int(row["class_id"]): int(row["num_images"]) for row in csv.DictReader(file)}
    assert sum(of_class.values()) == counted
    if answer == "wrong":
        assert of_class == {index: labels.count(index) for index in range(10)}
    with pytest.raises(CaitError, match=f"{bad[0]}: the image cannot be read"):
        jobs.evaluate(tiny_config(**config, EVALUATE__ON_BAD_IMAGE="error"))


def test_an_evaluation_of_nothing_but_bad_images_is_an_error(tiny_config, digits, tiny_weights):
    damage(digits, "val", *range(20))
    with pytest.raises(CaitError, match="none of the 20 images could be read, the first: "):
        jobs.evaluate(tiny_config(EVAL=True, MODEL__PRETRAINED=str(tiny_weights[2])))


@pytest.mark.parametrize(
    "config, words",
    [
        ({"AMP": True}, "mixed precision needs a GPU"),
        ({"DEVICE": "gpu"}, "there is no GPU"),
    ],
)
def test_what_this_machine_cannot_do_is_an_error(tiny_config, config, words):
    if config.get("DEVICE") == "gpu" and paddle.device.is_compiled_with_cuda():
        pytest.skip("the GPU build of PaddlePaddle")
    with pytest.raises(UsageError, match=words):
        jobs.run(tiny_config(**config))


def test_an_output_folder_that_cannot_be_written_is_an_error(tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CaitError, match="file/run: the output folder cannot be written"):
        jobs.run(tiny_config(OUTPUT_DIR=str(tmp_path / "file" / "run")))


def test_without_a_folder_every_run_gets_its_own(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1, OUTPUT_DIR=""))
    assert len(list((tmp_path / "output").glob("train-*/latest.pdparams"))) == 2


def test_a_small_batch_does_not_turn_the_schedule_upside_down(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=4, TRAIN__WARMUP_EPOCHS=1, TRAIN__BASE_LR=5e-6, TRAIN__END_LR=1e-6))
    rates = [row["lr"] for row in rows_of(tmp_path / "run")]
    assert max(rates) == pytest.approx(5e-6 * 16 / 512) and rates == sorted(rates, reverse=True)


def test_the_learning_rate_follows_the_schedule_and_the_batch(tiny_config, tmp_path):
    jobs.run(
        tiny_config(
            TRAIN__NUM_EPOCHS=4, TRAIN__WARMUP_EPOCHS=2, TRAIN__BASE_LR=1e-3, TRAIN__LINEAR_SCALED_LR=8,
            TRAIN__WARMUP_START_LR=1e-6, TRAIN__END_LR=1e-5,
        )
    )  # fmt: skip
    rates = [row["lr"] for row in rows_of(tmp_path / "run")]
    half = 1e-5 + 0.5 * (2e-3 - 1e-5)
    assert rates == pytest.approx([1e-6, 1.0005e-3, half, 1e-5 + 0.5 * (2e-3 - 1e-5) * (1 - np.sqrt(0.5))])


@pytest.mark.parametrize("warmup, warns", [(2, False), (3, True), (5, True)])
def test_a_warm_up_that_never_reaches_the_peak_is_told(tiny_config, tmp_path, warmup, warns):
    keys = {"TRAIN__NUM_EPOCHS": 3, "TRAIN__WARMUP_EPOCHS": warmup, "VALIDATE_FREQ": 0, "TRAIN__BASE_LR": 8e-5}
    jobs.run(tiny_config(**keys, TRAIN__WARMUP_START_LR=0.0, TRAIN__LINEAR_SCALED_LR=None))
    log = (tmp_path / "run" / "log_train.txt").read_text()
    words = f"the run of 3 epochs ends within TRAIN.WARMUP_EPOCHS {warmup}: its learning rate rises to 0.0000"
    assert (words in log) == warns
    if warns:
        assert f"rises to {max(row['lr'] for row in rows_of(tmp_path / 'run')):.7f}".rstrip("0") in log


def test_the_learning_rate_of_a_fine_tuning_run_is_to_be_seen(tiny_config, tmp_path, tiny_weights):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=2, MODEL__PRETRAINED=str(tiny_weights[2]), TRAIN__END_LR=1e-7))
    logged = re.findall(r"Now training epoch \d\. LR=(\S+)$", (tmp_path / "run" / "log_train.txt").read_text(), re.M)
    rates = [row["lr"] for row in rows_of(tmp_path / "run")]
    assert max(rates) < 5e-7 and "e" not in "".join(logged)
    assert [float(text) for text in logged] == pytest.approx(rates, rel=0.005)


def test_validation_and_saving_follow_their_frequency(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=5, VALIDATE_FREQ=2, SAVE_FREQ=3))
    assert [row["epoch"] for row in rows_of(tmp_path / "run") if "val_acc1" in row] == [2, 4, 5]
    assert {path.stem for path in (tmp_path / "run").glob("epoch_*")} == {"epoch_3", "epoch_5"}


def test_without_validation_there_is_no_best_model(tiny_config, tmp_path):
    jobs.run(tiny_config(VALIDATE_FREQ=0))
    assert not list((tmp_path / "run").glob("best_model*")) and (tmp_path / "run" / "latest.pdparams").is_file()


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
@pytest.mark.parametrize("is_set", [False, True])
def test_flags_of_paddle_are_those_of_the_device(monkeypatch, kind, is_set):
    """As on a machine that has it; what the user has set stays."""
    found = {}
    for name in device.DEVICE_FLAGS[kind]:
        monkeypatch.setenv(name, "1")
        if not is_set:
            monkeypatch.delenv(name)
    monkeypatch.setenv("PADDLE_DISTRI_BACKEND", "")
    monkeypatch.setattr(device, "has_gpu", lambda: kind == "gpu")
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(paddle.device, "set_device", lambda name: found.update(device=name))
    monkeypatch.setattr(paddle, "set_flags", found.update)
    device.select_device("auto")
    assert found == {"device": kind, **({} if is_set else device.DEVICE_FLAGS[kind])}


@pytest.mark.parametrize("values, expected", [({}, "0"), ({"TF32": True}, "1"), ({"TF32": True, "EVAL": True}, "0")])
def test_tf32_is_for_training_that_asks_for_it(monkeypatch, values, expected):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")  # whatever was there
    switches = {}
    for name in ("set_cublas_switch", "set_cudnn_switch"):
        monkeypatch.setattr(device.core, name, functools.partial(switches.__setitem__, name), raising=False)
    monkeypatch.setattr(jobs, "_run_alone", lambda config: switches.update(seen=os.environ["NVIDIA_TF32_OVERRIDE"]))
    keys = {"TRAIN.TF32": values.get("TF32", False), "EVAL": values.get("EVAL", False), "MODEL.PRETRAINED": "weights"}
    jobs.run(make_config({**keys, "DEVICE": "cpu"}))
    allowed = expected == "1"
    assert switches == {"set_cublas_switch": allowed, "set_cudnn_switch": allowed, "seen": expected}


@pytest.mark.parametrize("is_gpu_build, has_one", [(False, False), (True, False), (True, True)])
def test_the_log_says_that_a_build_for_gpus_finds_none(monkeypatch, is_gpu_build, has_one):
    """Paddle's own warning of it is a line of its source code."""
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: is_gpu_build)
    monkeypatch.setattr(device, "has_gpu", lambda: has_one)
    monkeypatch.setattr(paddle.device, "get_device", lambda: "cpu")
    found = "cpu (this PaddlePaddle is built for GPUs and finds none)"
    assert device.device_words() == (found if is_gpu_build and not has_one else "cpu")


def test_paddle_knows_the_flags():
    """Those of GPUs, where this is a build for them."""
    for name in device.DEVICE_FLAGS["cpu"] | (device.DEVICE_FLAGS["gpu"] if paddle.is_compiled_with_cuda() else {}):
        assert name in paddle.get_flags(name)
