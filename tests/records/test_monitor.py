"""What a run shows of itself: LayerScale, gradient norms, VisualDL, profiles, curves."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from cait.errors import CaitError, UsageError
from cait.machine.device import why_no_profiler
from cait.records.monitor import StepProfiler, write_scalars
from cait.train import jobs, run
from cait.weights.read import load_tensors
from runs import rows_of


def test_metrics_hold_the_gradient_norm_and_layerscale_by_depth(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1, MODEL__DEPTH=2, MODEL__INIT_VALUES=0.1))
    (row,) = rows_of(tmp_path / "run")
    weights = load_tensors(tmp_path / "run" / "latest.pdparams")
    for name in ("gamma_1", "gamma_2"):
        expected = [np.abs(weights[f"blocks.{index}.{name}"]).mean() for index in range(2)]
        np.testing.assert_allclose(row[name], expected, rtol=1e-6)
    assert 0 < row["grad_norm"] < 100


def test_the_norm_is_that_before_clipping(tiny_config, tmp_path):
    """The learning rate is next to nothing, so that clipping changes nothing but the norm would show it."""
    norms = []
    for folder, keys in (("plain", {}), ("clipped", {"TRAIN__GRAD_CLIP": 1e-3})):
        keys |= {"TRAIN__BASE_LR": 1e-12, "TRAIN__END_LR": 0.0, "TRAIN__WARMUP_START_LR": 0.0}
        jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1, VALIDATE_FREQ=0, OUTPUT_DIR=str(tmp_path / folder), **keys))
        norms.append(rows_of(tmp_path / folder)[0]["grad_norm"])
    assert norms[1] == pytest.approx(norms[0], rel=1e-4) and norms[0] > 1e-3


def test_a_run_leaves_its_curves(learning_curves, tiny_config, tmp_path):
    jobs.run(tiny_config())
    with Image.open(tmp_path / "run" / "learning_curves.png") as image:
        assert image.format == "PNG" and image.width > 1000


def test_curves_are_an_extra(tiny_config, tmp_path, monkeypatch):
    def missing(*_):
        raise CaitError("matplotlib is needed for the picture")

    monkeypatch.setattr(run, "plot_learning_curves", missing)
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=1))
    log = (tmp_path / "run" / "log_train.txt").read_text()
    assert "no learning_curves.png: matplotlib is needed for the picture" in log
    assert not (tmp_path / "run" / "learning_curves.png").exists()


class Writer:
    """What visualdl's LogWriter does, into one JSON file."""

    def __init__(self, logdir, file_name):
        assert file_name.startswith("vdlrecords.")
        self.path = logdir + "/" + file_name

    def add_scalar(self, tag, value, step):
        with open(self.path, "a") as file:
            file.write(json.dumps([tag, float(value), step]) + "\n")

    def close(self):
        pass


def test_visualdl_gets_every_number_of_every_epoch(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "visualdl", type(sys)("visualdl"))
    monkeypatch.setattr(sys.modules["visualdl"], "LogWriter", Writer, raising=False)
    (tmp_path / "run" / "visualdl").mkdir(parents=True)
    jobs.run(tiny_config(VISUALDL=True))
    lines = (tmp_path / "run" / "visualdl" / "vdlrecords.run.log").read_text().splitlines()
    scalars = {(tag, step): value for tag, value, step in map(json.loads, lines)}
    for row in rows_of(tmp_path / "run"):
        for name in ("train_loss", "train_acc1", "lr", "grad_norm", "ips", "val_acc1"):
            assert scalars[name, row["epoch"]] == row[name]
        assert scalars["gamma_1/00", row["epoch"]] == row["gamma_1"][0]


def test_visualdl_itself_keeps_what_a_resumed_run_adds(tmp_path):
    visualdl = pytest.importorskip("visualdl")
    for epoch in (1, 2):
        write_scalars(tmp_path, {"epoch": epoch, "train_loss": 1.0 / epoch})
    (file,) = tmp_path.iterdir()
    records = visualdl.LogReader(file_path=str(file)).get_data("scalar", "train_loss")
    assert [(record.id, record.value) for record in records] == [(1, 1.0), (2, 0.5)]


def test_visualdl_that_is_not_installed_is_one_sentence(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "visualdl", None)
    with pytest.raises(UsageError, match="VISUALDL needs visualdl, which is not installed"):
        jobs.run(tiny_config(VISUALDL=True))
    assert not (tmp_path / "run").exists()


needs_profiler = pytest.mark.skipif(bool(why_no_profiler()), reason=why_no_profiler())


@needs_profiler
def test_a_few_steps_are_profiled(tiny_config, tmp_path):
    jobs.run(tiny_config(TRAIN__NUM_EPOCHS=2, PROFILE_STEPS=1, VALIDATE_FREQ=0))
    (trace,) = (tmp_path / "run" / "profile").iterdir()
    events = json.loads(trace.read_text())["traceEvents"]
    assert any("matmul" in event.get("name", "") for event in events)


def test_a_profile_that_cannot_be_had_is_one_sentence(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr("cait.machine.device.paddle.device.is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr("cait.machine.device.paddle.device.cuda.device_count", lambda: 0)
    with pytest.raises(UsageError, match="PROFILE_STEPS: this PaddlePaddle is built for GPUs and finds none, and"):
        jobs.run(tiny_config(PROFILE_STEPS=1))
    assert not (tmp_path / "run").exists()


@needs_profiler
def test_a_run_that_ends_before_the_profile_does_ends_it(tmp_path):
    profiler = StepProfiler(tmp_path, 100)
    profiler.step()
    profiler.stop()
    profiler.step()  # as after the profile: nothing happens
    StepProfiler(tmp_path, 0).stop()
