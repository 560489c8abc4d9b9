"""The training job: how the recipe's parts reach the loop, and what cannot go together."""

import re

import numpy as np
import pytest

from cait.data.build import build_loaders
from cait.errors import CaitError, UsageError
from cait.train import jobs
from cait.train.optim import FROZEN
from cait.weights.read import load_tensors
from runs import WHOLE_RECIPE, assert_same_weights, rows_of, without_timing

RECIPE = {name.replace(".", "__"): value for name, value in WHOLE_RECIPE.items()}


def test_the_whole_recipe_does_not_depend_on_the_workers(tiny_config, tmp_path):
    for num_workers in (0, 2):
        folder = str(tmp_path / str(num_workers))
        jobs.run(tiny_config(**RECIPE, TRAIN__NUM_EPOCHS=1, DATA__NUM_WORKERS=num_workers, OUTPUT_DIR=folder))
    assert_same_weights(tmp_path / "0" / "latest.pdparams", tmp_path / "2" / "latest.pdparams")
    assert_same_weights(tmp_path / "0" / "best_model_ema.pdparams", tmp_path / "2" / "best_model_ema.pdparams")
    assert without_timing(rows_of(tmp_path / "0")) == without_timing(rows_of(tmp_path / "2"))


@pytest.mark.parametrize(
    "key, value",
    [
        ("AUG__AUTO_AUGMENT", "rand-m9-mstd0.5-inc1"),
        ("AUG__AUTO_AUGMENT", "three-augment"),
        ("AUG__COLOR_JITTER", 0.4),
        ("AUG__RANDOM_ERASING", 0.5),
        ("AUG__REPEATED_AUG", 3),
        ("AUG__MIXUP", 0.8),
        ("AUG__CUTMIX", 1.0),
        ("TRAIN__LAYER_DECAY", 0.5),
        ("MODEL__ATTENTION_DROPOUT", 0.5),
    ],
)
def test_every_part_takes_effect(tiny_config, tmp_path, key, value):
    for folder, keys in (("plain", {}), ("changed", {key: value})):
        keys = {"TRAIN__NUM_EPOCHS": 1, "VALIDATE_FREQ": 0, "OUTPUT_DIR": str(tmp_path / folder)} | keys
        jobs.run(tiny_config(**keys))
    left, right = (load_tensors(tmp_path / folder / "latest.pdparams") for folder in ("plain", "changed"))
    assert not np.array_equal(left["blocks.0.mlp.fc1.weight"], right["blocks.0.mlp.fc1.weight"])


def test_mixed_targets_take_their_number_of_classes_and_smoothing_from_the_config(tiny_config, tmp_path):
    """Fresh logits are near zero, where the cross-entropy is the logarithm of the number of classes."""
    keys = {"TRAIN__NUM_EPOCHS": 1, "AUG__MIXUP": 0.8, "TRAIN__BASE_LR": 1e-9, "TRAIN__END_LR": 0.0}
    jobs.run(tiny_config(**keys, MODEL__NUM_CLASSES=10, TRAIN__SMOOTHING=0.1))
    assert rows_of(tmp_path / "run")[0]["train_loss"] == pytest.approx(np.log(10), abs=0.03)


def test_frozen_layers_stay_bit_for_bit(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1))
    start = load_tensors(tmp_path / "run" / "latest.pdparams")
    tuned = {"TRAIN__FREEZE": "all_but_class_attention", "OUTPUT_DIR": str(tmp_path / "tuned")}
    tuned |= {"TRAIN__WEIGHT_DECAY": 0.5, "TRAIN__BASE_LR": 0.01, "TRAIN__EMA_DECAY": 0.5, "SAVE_FREQ": 1}
    tuned |= {"MODEL__PRETRAINED": str(tmp_path / "run" / "latest")}
    jobs.run(tiny_config(**tuned, TRAIN__NUM_EPOCHS=2))
    for file in ("latest", "epoch_2_ema"):
        end = load_tensors(tmp_path / "tuned" / f"{file}.pdparams")
        for name, value in end.items():
            is_frozen = name.split(".")[0] in FROZEN["all_but_class_attention"]
            if is_frozen or name == "head.weight":
                assert np.array_equal(value, start[name]) == is_frozen, name
    log = (tmp_path / "tuned" / "log_train.txt").read_text()
    assert re.search(r"\d+ parameters \(\d+ of them trained\)", log)
    resumed = {"TRAIN__RESUME": str(tmp_path / "tuned" / "epoch_1"), "OUTPUT_DIR": str(tmp_path / "resumed")}
    jobs.run(tiny_config(**tuned | resumed, TRAIN__NUM_EPOCHS=2))
    assert_same_weights(tmp_path / "tuned" / "latest.pdparams", tmp_path / "resumed" / "latest.pdparams")


@pytest.mark.parametrize(
    "base, key, value",
    [
        ({"AUG__RANDOM_ERASING": 1.0}, "AUG__ERASING_MODE", "const"),
        ({"AUG__RANDOM_ERASING": 1.0}, "AUG__ERASING_COUNT", 3),
        ({"AUG__MIXUP": 0.8}, "AUG__MIX_PROB", 0.3),
        ({"AUG__MIXUP": 0.8, "AUG__CUTMIX": 1.0}, "AUG__SWITCH_PROB", 1.0),
        ({"AUG__MIXUP": 0.8}, "TRAIN__SMOOTHING", 0.1),
        ({"DISTILL__TYPE": "soft"}, "DISTILL__TAU", 4.0),
        ({"DISTILL__TYPE": "hard"}, "DISTILL__ALPHA", 0.9),
    ],
)
def test_every_setting_of_a_part_takes_effect(tiny_config, tiny_bundle, tmp_path, base, key, value):
    if "DISTILL__TYPE" in base:
        base = base | {"DISTILL__TEACHER": str(tiny_bundle)}
    for folder, keys in (("plain", base), ("changed", base | {key: value})):
        keys = {"TRAIN__NUM_EPOCHS": 1, "VALIDATE_FREQ": 0, "OUTPUT_DIR": str(tmp_path / folder)} | keys
        jobs.run(tiny_config(**keys))
    left, right = (load_tensors(tmp_path / folder / "latest.pdparams") for folder in ("plain", "changed"))
    assert any(not np.array_equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("kind, alpha", [("hard", 0.5), ("soft", 0.5), ("hard", 0.0)])
def test_distillation_reaches_the_loss(tiny_config, tiny_bundle, tmp_path, kind, alpha):
    distill = {"DISTILL__TYPE": kind, "DISTILL__ALPHA": alpha, "DISTILL__TEACHER": str(tiny_bundle)}
    for folder, keys in (("plain", {}), ("taught", distill)):
        jobs.run(tiny_config(**keys, TRAIN__NUM_EPOCHS=1, VALIDATE_FREQ=0, OUTPUT_DIR=str(tmp_path / folder)))
    plain, taught = (rows_of(tmp_path / folder)[0]["train_loss"] for folder in ("plain", "taught"))
    assert (plain == taught) == (alpha == 0)


def test_a_distilled_run_goes_on_bit_for_bit(tiny_config, tiny_bundle, tmp_path):
    """With mixed targets; the teacher is built before the rest of the run, and again when it is resumed."""
    keys = RECIPE | {"DISTILL__TYPE": "hard", "DISTILL__TEACHER": str(tiny_bundle), "TRAIN__NUM_EPOCHS": 2}
    jobs.run(tiny_config(**keys | {"OUTPUT_DIR": str(tmp_path / "whole"), "SAVE_FREQ": 1}))
    resumed = {"TRAIN__RESUME": str(tmp_path / "whole" / "epoch_1"), "OUTPUT_DIR": str(tmp_path / "resumed")}
    jobs.run(tiny_config(**keys | resumed))
    assert_same_weights(tmp_path / "whole" / "latest.pdparams", tmp_path / "resumed" / "latest.pdparams")


def test_saving_memory_changes_no_result(tiny_config, tmp_path):
    for folder, keys in (("plain", {}), ("saving", {"TRAIN__RECOMPUTE": True, "TRAIN__QUERY_CHUNK": 5})):
        keys = {"TRAIN__NUM_EPOCHS": 1, "VALIDATE_FREQ": 0, "OUTPUT_DIR": str(tmp_path / folder)} | keys
        jobs.run(tiny_config(**keys, MODEL__DROP_PATH=0.3, MODEL__DROPOUT=0.1))
    plain, saving = (rows_of(tmp_path / folder)[0]["train_loss"] for folder in ("plain", "saving"))
    assert saving == pytest.approx(plain, rel=1e-6)


def test_below_frozen_blocks_nothing_is_computed_again(tiny_config, tmp_path, capfd):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1))
    keys = {"TRAIN__FREEZE": "all_but_class_attention", "MODEL__PRETRAINED": str(tmp_path / "run" / "latest")}
    keys |= {"TRAIN__RECOMPUTE": True, "TRAIN__QUERY_CHUNK": 5, "OUTPUT_DIR": str(tmp_path / "tuned")}
    jobs.run(tiny_config(**keys, TRAIN__NUM_EPOCHS=1))
    assert "recompute" not in "".join(capfd.readouterr())


class Stop(BaseException):
    """Ends a run within an epoch."""


@pytest.fixture
def stopped(tiny_config, tmp_path, monkeypatch):
    """The folder of a run that was stopped after its first step, saved there."""
    from cait.train import training

    save = training.Run.save

    def save_and_stop(self, names, ema_names=(), **more):
        save(self, names, ema_names, **more)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "save", save_and_stop)
        with pytest.raises(Stop):
            jobs.run(tiny_config(SAVE_STEPS=1))
    return str(tmp_path / "run")


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"DATA__BATCH_SIZE": 8}, "DATA.BATCH_SIZE 16, not 8"),
        ({"TRAIN__ACCUM_ITER": 2}, "TRAIN.ACCUM_ITER 1, not 2"),
        ({"AUG__REPEATED_AUG": 3}, "AUG.REPEATED_AUG 1, not 3"),
        ({"SEED": 1}, "SEED 0, not 1"),
    ],
)
def test_an_epoch_goes_on_only_with_its_own_order(tiny_config, stopped, keys, words):
    with pytest.raises(UsageError, match=f"saved within epoch 1, which can only go on with {words}"):
        jobs.run(tiny_config(TRAIN__RESUME=stopped, **keys))


def test_an_epoch_goes_on_only_with_its_own_images(tiny_config, stopped, digits):
    lines = (digits / "train_list.txt").read_text().splitlines()
    (digits / "train_list.txt").write_text("\n".join(lines[1:]))
    with pytest.raises(UsageError, match="number of training images 40, not 39"):
        jobs.run(tiny_config(TRAIN__RESUME=stopped))


def test_the_rest_of_an_epoch_counts_its_own_time(tiny_config, stopped, tmp_path):
    jobs.run(tiny_config(TRAIN__RESUME=stopped))
    log = (tmp_path / "run" / "log_train.txt").read_text()
    assert "starting from" in log and "epoch 0, step 1, within epoch 1" in log
    assert rows_of(tmp_path / "run")[0]["step"] == 3 and "Step[0002/0003]" in log


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"TRAIN__FREEZE": "all_but_head"}, "TRAIN.FREEZE=all_but_head would freeze random weights"),
        ({"AUG__MIXUP": 0.8, "DATA__BATCH_SIZE": 1}, "DATA.BATCH_SIZE must be above 1"),
        ({"AUG__CUTMIX": 1.0, "DATA__BATCH_SIZE": 1}, "DATA.BATCH_SIZE must be above 1"),
        ({"AUG__AUTO_AUGMENT": "rand-m9"}, "add -inc1"),
    ],
)
def test_what_does_not_go_together_is_an_error_before_anything_is_written(tiny_config, tmp_path, keys, words):
    with pytest.raises(UsageError, match=words):
        jobs.run(tiny_config(**keys))
    assert not (tmp_path / "run").exists()


def test_a_diverging_run_says_where(tiny_config, tmp_path):
    rate = {"TRAIN__BASE_LR": 1e38, "TRAIN__LINEAR_SCALED_LR": None}
    with pytest.raises(CaitError, match=r"the loss is (nan|inf) at epoch 1, step 1, learning rate 1e\+38; the first "):
        jobs.run(tiny_config(**rate))
    assert not list((tmp_path / "run").glob("*.pdparams"))


@pytest.mark.parametrize(
    "later, expected", [(False, [1, 2, 3, 1 + 1.5 * (1 + np.cos(0.75 * np.pi))]), (True, [1, 1, 2, 3])]
)
def test_the_rates_are_those_of_timms_loop_or_of_the_authors(tiny_config, tmp_path, later, expected):
    """Also of a run that goes on."""
    rates = {"TRAIN__BASE_LR": 4e-4, "TRAIN__WARMUP_START_LR": 1e-4, "TRAIN__END_LR": 1e-4, "TRAIN__WARMUP_EPOCHS": 3}
    rates |= {"TRAIN__LINEAR_SCALED_LR": None, "TRAIN__NUM_EPOCHS": 4, "TRAIN__LR_EPOCH_LATER": later}
    folder = tmp_path / "run"
    jobs.run(tiny_config(**rates, SAVE_FREQ=2))
    found = [row["lr"] for row in rows_of(folder)]
    np.testing.assert_allclose(found, np.array(expected) * 1e-4, rtol=1e-6)
    jobs.run(tiny_config(**rates, TRAIN__RESUME=str(folder / "epoch_2"), OUTPUT_DIR=str(tmp_path / "again")))
    assert [row["lr"] for row in rows_of(tmp_path / "again")][-2:] == found[-2:]


def test_the_batches_of_a_step_hold_an_image_once(tiny_config):
    """All that makes a step is dealt to its batches; of 40 images, 8 are left for the last."""
    loaders = build_loaders(tiny_config(AUG__REPEATED_AUG=3, TRAIN__ACCUM_ITER=4, DATA__BATCH_SIZE=4))
    loaders.train.set_epoch(1)
    batches = [[index for _, index, _ in keys] for keys in loaders.train._sampler]
    assert [len(batch) for batch in batches] == [4] * 8 + [2] * 4
    assert all(len(set(batch)) == len(batch) for batch in batches)
