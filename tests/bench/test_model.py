"""The benchmark of models: its engines, each in a process of its own, and what is made of their answers."""

import argparse
import json

import numpy as np
import pytest

from cait.bench import measure, model, runtime_worker
from cait.bench.measure import Measurement
from cait.bench.report import Table
from cait.bench.runtime_client import RuntimeProcess
from cait.deploy.engine_config import processor_has_bf16
from cait.errors import CaitError
from cait.machine.device import why_no_profiler
from cait.ops import library


class Fake:
    """An engine that answers always the same."""

    missing, start_mb, peak_mb = "", 100.0, 150.0

    def __init__(self, seconds=0.1, operators=None):
        self.answer, self.found, self.asked = seconds, operators or {}, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def seconds(self, runs):
        self.asked.append(runs)
        return [self.answer] * runs

    def operators(self, times):
        return self.found


@pytest.mark.parametrize("kind", ["fused", "plain"])
def test_an_engine_runs_a_bundle_in_its_own_process(kind, tiny_bundle):
    if kind == "fused":
        try:
            library.register()
        except library.OperatorsUnavailable as reason:
            pytest.skip(str(reason))
    with RuntimeProcess(kind, tiny_bundle, 2, "fp32", 1) as runtime:
        assert runtime.missing == ""
        seconds = runtime.seconds(3)
        assert len(seconds) == 3 and all(0 < value < 10 for value in seconds)
        assert 10 < runtime.start_mb < runtime.peak_mb  # before Paddle was imported, and after
        if why_no_profiler():
            return
        operators = runtime.operators(2)
        assert all(value > 0 for value in operators.values())
        assert ("cait_blocks" in operators) == (kind == "fused") and ("softmax" in operators) == (kind == "plain")


def test_the_model_itself_is_an_engine_too():
    with RuntimeProcess("eager", "cait_xxs24_224", 1, "fp32", 2) as runtime:
        assert runtime.missing == "" and runtime.seconds(1)[0] > 0


def test_an_engine_that_is_not_there_says_why(tiny_bundle):
    with RuntimeProcess("eager", "cait_xxs24_224", 1, "bf16", 1) as runtime:
        assert runtime.missing == "PaddlePaddle has no eager bf16 on the CPU"
    if processor_has_bf16():
        with RuntimeProcess("fused", tiny_bundle, 1, "bf16", 1) as runtime:
            assert "exported without a fused one of bf16" in runtime.missing
    with RuntimeProcess("openvino", "no.onnx", 1, "fp32", 1) as runtime:
        assert runtime.missing


def test_an_engine_that_fails_ends_the_benchmark_with_its_last_line(tmp_path):
    with pytest.raises(CaitError, match="failed with exit code 1 .*inference.yaml"):
        RuntimeProcess("plain", tmp_path, 1, "fp32", 1)


def test_a_round_is_the_median_of_runs_that_take_half_a_second_after_a_rest(monkeypatch):
    rests = []
    monkeypatch.setattr(model.time, "sleep", rests.append)
    ours, theirs = Fake(0.1), Fake(0.25)
    table = model.speed({"fused": ours, "openvino": theirs}, 3, "cait_xxs24_224", 16, "bf16")
    assert ours.asked == [2, 5, 5, 5, 5] and theirs.asked == [2, 2, 2, 2, 2]
    assert rests == [model.PAUSE_SECONDS] * 8
    row = table.rows()[0]
    assert row["name"] == "this project" and row["values"] == pytest.approx([160.0] * 3)
    assert row["ratio"] == pytest.approx(2.5) and row["goal"] == 1.7 and row["holds"]
    assert row["latency_ms"] == pytest.approx(100) and "| 160 | 160 - 160 | 100 | 2.500 |" in table.markdown()


def test_without_openvino_there_is_no_ratio_and_no_goal():
    table = model.speed({"fused": Fake(), "plain": Fake()}, 1, "cait_xxs24_224", 16, "fp32")
    assert all("ratio" not in row and "goal" not in row for row in table.rows())
    assert "at least" not in table.markdown()


def test_a_goal_without_a_baseline_is_one_of_the_value():
    rows = Table(
        "error", [Measurement("a", "logit", [2e-5]), Measurement("b", "logit", [2e-3])], goals={"a": 1e-4, "b": 1e-4}
    )
    assert [row["holds"] for row in rows.rows()] == [True, False]
    assert "at most 0.0001: missed" in rows.markdown()


def test_operators_below_one_percent_are_summed(monkeypatch):
    fake = Fake(operators={"softmax": 30.0, "fc": 69.0, "scale": 0.4, "cast": 0.6})
    monkeypatch.setattr(model, "RuntimeProcess", lambda *_: fake)
    monkeypatch.setattr("cait.machine.device.why_no_profiler", lambda: "")
    models = argparse.Namespace(runtimes=lambda *_: _Ready({"plain": fake, "fused": fake}))
    table = model.operators(models, "cait_xxs24_224", 16, 1)[0]
    assert [(row["name"], row["median"]) for row in table.rows()] == [
        ("fc", 69),
        ("softmax", 30),
        ("all others", pytest.approx(1)),
    ]


def test_operators_without_a_profiler_are_a_note(monkeypatch):
    monkeypatch.setattr("cait.machine.device.why_no_profiler", lambda: "there is none")
    models = argparse.Namespace(notes=[])
    assert model.operators(models, "cait_xxs24_224", 16, 1) == []
    assert models.notes == ["operators: missing (there is none)."]


class _Ready(dict):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_growth_is_a_curve_of_time_and_of_memory(monkeypatch, tmp_path):
    def start(kind, source, batch_size, precision, threads):
        return Fake((int(source.name.removeprefix("cait_xxs24_224-fp32-image_size")) / 224) ** 2)

    monkeypatch.setattr(model, "RuntimeProcess", start)
    monkeypatch.setattr(model, "write_bundle", lambda folder, *_, **arguments: folder)
    seconds, memory = model.growth(model.Models(tmp_path, []), "pixels", "image_size", [224, 448], "fp32", 1)
    assert "grows with its power 2.0" in seconds.title
    assert [row["median"] for row in seconds.rows()] == [1000, 4000] and memory.rows()[0]["median"] == 50


def test_a_peer_that_cannot_be_exported_is_noted(monkeypatch, tmp_path):
    def fails(variant, path):
        raise CaitError("no timm")

    monkeypatch.setattr(model, "timm_onnx", fails)
    notes = []
    models = model.Models(tmp_path, notes)
    with models.runtimes(["openvino", "onnxruntime"], "cait_xxs24_224", 1, "fp32", 1) as runtimes:
        assert runtimes == {}
    assert len(notes) == 1 and "(no timm)" in notes[0]


def test_the_cases_are_the_goals_or_what_was_named():
    assert model._cases(None, None) == list(model.GOALS)
    assert model._cases(["a"], None) == [("a", 1), ("a", 16)]
    assert model._cases(None, [4])[0] == ("cait_xxs24_224", 4) and len(model._cases(None, [4])) == 3


@pytest.mark.slow
def test_the_benchmark_measures_a_model_from_its_export_on(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "GROWTH", {"depth": ("depth", [1, 2])})
    args = argparse.Namespace(
        variants=["cait_xxs24_224"],
        batch_sizes=[1],
        precisions=["fp32"],
        engines=["fused", "plain"],
        threads=1,
        demo=tmp_path / "none",
        only=None,
        rounds=1,
        command="",
    )
    report = model.run(args)
    exact, speed, *operators, seconds, memory = report.tables
    assert exact.rows()[0]["holds"] and np.isfinite(speed.rows()[0]["median"])
    assert len(operators) == 2 and seconds.x == memory.x == [1, 2]
    assert any("make demo" in note for note in report.notes)
    assert json.loads(report.write(tmp_path)[0].read_text())["settings"]["threads"] == 1


def test_an_engine_process_is_found_wherever_it_is_started(tmp_path, monkeypatch, tiny_bundle):
    monkeypatch.chdir(tmp_path)
    assert (measure.SCRIPTS / "cait" / "bench" / "runtime_worker.py").is_file()
    with RuntimeProcess("plain", tiny_bundle, 1, "fp32", 1) as runtime:
        assert not runtime.missing


def test_a_model_is_made_where_it_is_to_run(monkeypatch):
    """On a machine with a GPU it would lie there otherwise."""
    import paddle

    from cait import zoo

    places = []

    def make(name):
        places.append(name)
        raise KeyError(name)

    monkeypatch.setattr(paddle, "set_device", places.append)
    monkeypatch.setattr(zoo, "create_model", make)
    with pytest.raises(KeyError):
        runtime_worker._eager(runtime_worker.Spec("eager", "cait_xxs24_224"))
    assert places == ["cpu", "cait_xxs24_224"]
