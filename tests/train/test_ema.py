"""The average of the weights: its values, its checkpoints, its validation."""

import json
import re

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from cait.align.golden import golden_images
from cait.train import jobs
from cait.train.ema import ModelEma
from cait.train.optim import adamw
from cait.weights.layout import swap_layout
from cait.weights.read import load_tensors
from models import one_step, seeded_model, tiny_golden_model
from project import GOLDEN
from runs import assert_same_weights, rows_of


def test_the_average_is_the_references():
    model = tiny_golden_model()
    optimizer, ema = adamw(model, 0.05), ModelEma(model, 0.9)
    optimizer.set_lr(1e-3)
    images = paddle.to_tensor(golden_images(1, 8, 16, 16))
    for _ in range(10):
        F.cross_entropy(model(images), paddle.to_tensor(np.arange(8) % 10)).backward()
        optimizer.step()
        optimizer.clear_grad()
        ema.update()
    golden, found = np.load(GOLDEN / "train_tiny.npz"), swap_layout({n: t.numpy() for n, t in ema.averages.items()})
    names = [key for key in golden if key.startswith("ema0.9/param_abs_sum/")]
    assert len(names) == len(found) == 18 * (3 + 2) + 8
    for key in names:
        name = key.rsplit("/", 1)[-1]
        assert np.abs(found[name]).sum() == pytest.approx(float(golden[key]), rel=1e-7, abs=1e-9), name


def test_an_average_disturbs_neither_names_nor_weights():
    model = seeded_model()
    names = [parameter.name for parameter in model.parameters()]
    ema = ModelEma(model, 0.5)
    assert [parameter.name for parameter in model.parameters()] == names
    before = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    optimizer = adamw(model, 0.0)
    optimizer.set_lr(0.1)
    one_step(model, optimizer)
    ema.update()
    own = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    for name, value in own.items():
        np.testing.assert_allclose(ema.averages[name].numpy(), (before[name] + value) / 2, rtol=1e-5, atol=1e-7)
    with pytest.raises(KeyError), ema.applied():
        assert np.array_equal(model.head.weight.numpy(), ema.averages["head.weight"].numpy())
        raise KeyError
    for name, tensor in model.state_dict().items():
        assert np.array_equal(tensor.numpy(), own[name]), name
    one_step(model, optimizer)  # the optimizer still has the parameters of the model
    assert not np.array_equal(model.head.weight.numpy(), own["head.weight"])


RATES = {"TRAIN__BASE_LR": 0.02, "TRAIN__LINEAR_SCALED_LR": None}


def test_training_validates_and_saves_the_average(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=4, TRAIN__EMA_DECAY=0.7, SAVE_FREQ=1, **RATES))
    run = tmp_path / "run"
    rows = rows_of(run)
    accuracies = [row["val_ema_acc1"] for row in rows]
    assert any(row["val_loss"] != row["val_ema_loss"] for row in rows)
    best = int(np.argmax(accuracies)) + 1
    assert_same_weights(run / "best_model_ema.pdparams", run / f"epoch_{best}_ema.pdparams")
    progress = load_tensors(run / "latest.pdstates")["progress"]
    assert (progress["best_ema_acc1"], progress["best_ema_epoch"]) == (max(accuracies), best)
    assert not (run / "best_model_ema.pdstates").exists()
    log = (run / "log_train.txt").read_text()
    assert f"----- Epoch[004/004], EMA Loss: {rows[3]['val_ema_loss']:.4f}, EMA Acc@1: " in log
    assert "EMA Step[0000/0002], Avg Loss: " in log and re.search(r"saved latest, .*best_model_ema", log)
    weights = {"MODEL__PRETRAINED": str(run / "best_model_ema")}
    result = jobs.evaluate(tiny_config(EVAL=True, **weights))
    assert result.acc1 == max(accuracies)
    jobs.run(tiny_config(PRED=True, **weights))


def test_the_average_changes_nothing_else(tiny_config, tmp_path):
    jobs.run(tiny_config(OUTPUT_DIR=str(tmp_path / "without")))
    jobs.run(tiny_config(OUTPUT_DIR=str(tmp_path / "with"), TRAIN__EMA_DECAY=0.9))
    assert_same_weights(tmp_path / "without" / "latest.pdparams", tmp_path / "with" / "latest.pdparams")
    assert not list((tmp_path / "without").glob("*_ema*"))
    assert "val_ema_acc1" not in json.dumps(rows_of(tmp_path / "without"))


@pytest.mark.parametrize("accum_iter, steps", [(1, 3), (2, 2)])
def test_the_average_moves_once_an_optimizer_step(tiny_config, monkeypatch, accum_iter, steps):
    calls, update = [], ModelEma.update
    monkeypatch.setattr(ModelEma, "update", lambda self: calls.append(1) or update(self))
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1, TRAIN__ACCUM_ITER=accum_iter, TRAIN__EMA_DECAY=0.9))
    assert len(calls) == steps


def test_a_checkpoint_without_an_average_starts_one(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1))
    run = tmp_path / "run"
    weights = {name: value for name, value in load_tensors(run / "latest.pdparams").items()}
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=2, TRAIN__EMA_DECAY=0.99999, TRAIN__RESUME=str(run)))
    assert "it holds no average of the weights: that starts from these weights" in (run / "log_train.txt").read_text()
    for name, value in load_tensors(run / "best_model_ema.pdparams").items():
        np.testing.assert_allclose(value, weights[name], atol=1e-6, err_msg=name)
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=3, TRAIN__RESUME=str(run)))  # and the other way round
    assert "val_ema_acc1" not in rows_of(run)[2] and "ema" not in load_tensors(run / "latest.pdstates")


def test_the_average_starts_from_pretrained_weights(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1, **RATES))
    tuned = {"MODEL__PRETRAINED": str(tmp_path / "run" / "latest"), "OUTPUT_DIR": str(tmp_path / "tuned")}
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1, TRAIN__EMA_DECAY=0.99999, **RATES, **tuned))
    left = load_tensors(tmp_path / "run" / "latest.pdparams")
    for name, value in load_tensors(tmp_path / "tuned" / "best_model_ema.pdparams").items():
        np.testing.assert_allclose(value, left[name], atol=1e-5, err_msg=name)
