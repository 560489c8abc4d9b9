"""The benchmarks: measuring in turn, ratios, what a report holds. No test here asserts how fast anything is."""

import argparse
import contextlib
import io
import json
import sys

import numpy as np
import paddle
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cait.bench import input as bench_input
from cait.bench import measure, memory, photos, report, startup, step, train
from cait.bench.machine import describe_machine, in_words
from cait.bench.measure import Measurement
from cait.bench.report import Report, Table
from cait.errors import CaitError
from cait.train import mixed_precision
from project import ROOT, run_python
from scaler import Scaler

BENCHMARK = str(ROOT / "CaiT" / "benchmark.py")
SLOW, FAST = Measurement("slow", "images/s", [10.0, 20.0, 10.0]), Measurement("fast", "images/s", [20.0, 60.0, 22.0])


def test_contestants_take_turns_and_the_warm_up_does_not_count(capsys):
    calls = []

    def contestant(name):
        def work():
            calls.append(name)
            return float(len(calls))

        return work

    found = measure.measure_in_turn(
        "title", {"a": contestant("a"), "b": contestant("b")}, "s", rounds=2, warm_up=1, scale=10
    )
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()] == [
        f"title: round {number} of 3" for number in (1, 2, 3)
    ]
    assert [(m.name, m.unit, m.values) for m in found] == [("a", "s", [40, 50]), ("b", "s", [30, 60])]


def test_a_ratio_is_the_median_of_those_within_a_round():
    assert FAST.ratio_to(SLOW) == 2.2  # of 2, 3 and 2.2
    assert FAST.median == 22.0 and FAST.quartiles == (21.0, 41.0)
    assert Measurement("once", "MB", [3.0]).quartiles == (3.0, 3.0)


def test_contestants_return_seconds_of_a_call_or_an_amount_a_second(monkeypatch):
    times = iter([0.0, 6.0, 10.0, 12.0])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(times))
    calls = []
    assert measure.seconds_of(lambda: calls.append(1), times=3)() == 2.0 and len(calls) == 3
    assert measure.rate_of(lambda: None, amount=8)() == 4.0


def test_a_command_that_fails_ends_the_benchmark_with_its_last_line():
    assert measure.run_command_line(["-c", "print(1)"]) == "1\n"
    for run in (measure.run_command_line, measure.seconds_to_first_line):
        with pytest.raises(CaitError, match=r"exit code 3 \(no such thing\)"):
            run(["-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"])


def test_an_answer_is_there_before_the_end():
    answered, ended = measure.seconds_to_first_line(["-c", "import time; print('answer'); time.sleep(0.3)"])
    assert 0 < answered <= ended - 0.29


@pytest.mark.parametrize("goal, verdict", [(2.0, "holds"), (2.3, "missed")])
def test_a_rate_must_reach_its_goal(goal, verdict):
    table = Table("reading", [SLOW, FAST], "slow", {"fast": goal})
    assert f"| fast | 22 | 21 - 41 | 2.200 | at least {goal:g}: {verdict} |" in table.markdown()
    assert [row.get("holds") for row in table.rows()] == [None, verdict == "holds"]


@pytest.mark.parametrize("goal, verdict", [(0.6, "holds"), (0.4, "missed")])
def test_anything_else_must_stay_below_its_goal(goal, verdict):
    plain, saving = Measurement("plain", "MB", [1000.0]), Measurement("saving", "MB", [500.0])
    table = Table("peak memory", [plain, saving], "plain", {"saving": goal})
    assert f"| saving | 500 | 500 - 500 | 0.500 | at most {goal:g}: {verdict} |" in table.markdown()


def test_a_report_is_a_table_json_and_a_chart(tmp_path):
    curve = Table(
        "by resolution", [Measurement("224", "s", [1.0]), Measurement("448", "s", [9.0])], "", {}, "px", [224, 448]
    )
    report = Report("reading", "python CaiT/benchmark.py reading", [Table("reading", [SLOW, FAST], "slow"), curve])
    written = report.write(tmp_path / "new")
    assert [path.name for path in written] == ["reading.json", "reading.svg"]
    data = json.loads(written[0].read_text())
    assert data["machine"]["versions"]["numpy"] and data["command"] == report.command
    row = data["tables"][0]["rows"][1]
    assert (row["unit"], row["median"], row["ratio"], row["values"]) == ("images/s", 22.0, 2.2, FAST.values)
    assert written[1].read_text().count("<svg") == 1
    assert "| 448 | 9 | 9 - 9 |" in report.markdown() and report.command in report.markdown()


def test_without_matplotlib_there_is_no_chart_and_the_report_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    report = Report("reading", "", [Table("reading", [SLOW])])
    assert [path.name for path in report.write(tmp_path)] == ["reading.json"]
    assert "matplotlib is needed" in report.markdown()


def test_the_machine_is_described_from_what_the_system_says(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name : A\nflags : sse avx2 avx512_bf16\n\nmodel name : B\n")
    (tmp_path / "meminfo").write_text("MemTotal:       2048 kB\n")
    machine = describe_machine(str(tmp_path / "cpuinfo"), str(tmp_path / "meminfo"))
    assert machine["processor"] == "A" and machine["features"] == ["avx2", "avx512_bf16"] and machine["memory_mb"] == 2
    assert "avx512_bf16" in in_words(machine) and "numpy" in in_words(machine)
    elsewhere = describe_machine(str(tmp_path / "none"), str(tmp_path / "none"))
    assert elsewhere["processor"] and elsewhere["features"] == [] and elsewhere["memory_mb"] == 0


def test_the_photographs_are_jpeg_files_of_the_size_asked_for():
    files = photos.photos(4)
    assert len(set(files)) == 4 and all(40_000 < len(data) <= 50_000 for data in files)
    for data in files:
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "JPEG" and image.size == (500, 375) and image.mode == "RGB"
    assert photos.photos(4) == files != photos.photos(4, seed=1)


def fused_program_runs(bundle):
    from cait.deploy.bundle import read_description
    from cait.deploy.engine import Engine
    from cait.deploy.engine_config import choose_program

    return choose_program(Engine(), read_description(bundle))[1].startswith("fused program")


def test_startup_compares_infer_with_the_creation_of_its_predictor(tiny_bundle, tmp_path):
    image = tmp_path / "photo.jpg"
    image.write_bytes(photos.photos(1)[0])
    answer, end = startup.measure(tiny_bundle, image, rounds=1)
    base, infer, *plain = answer.rows()
    assert base["name"] == startup.BASELINE and infer["goal"] == startup.GOAL
    assert [row["name"] for row in plain] == [startup.PLAIN, startup.INFER_PLAIN] * fused_program_runs(tiny_bundle)
    assert infer["ratio"] == pytest.approx(infer["median"] / base["median"])
    assert infer["median"] < end.rows()[1]["median"]


def test_input_compares_readers_and_says_what_is_not_there(monkeypatch):
    for name in ("timm", "timm.data"):  # the second is found without the first where it was imported before
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    args = argparse.Namespace(images=2, rounds=1, command="")
    report = bench_input.run(args)
    training, evaluation = report.tables
    assert [row["name"] for row in training.rows()] == [bench_input.PADDLE, bench_input.PILLOW]
    assert training.rows()[1]["goal"] == 1.2 and evaluation.rows()[1]["goal"] == 1.2
    assert any("requirements-fast.txt" in note for note in report.notes)
    assert any("timm cannot be imported" in note for note in report.notes)


def test_evaluation_is_compared_with_a_pipeline_of_the_same_pixels():
    from paddle.vision import transforms

    from cait.data.transforms import EvalTransform

    files = photos.photos(2)
    theirs = transforms.Compose([transforms.Resize(224, "bicubic"), transforms.CenterCrop((224, 224))])
    for data in files:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        assert np.array_equal(EvalTransform((224, 224))(image), np.asarray(theirs(image)))


SMALL = {"depth": 1, "depth_token_only": 1, "embed_dim": 16, "num_heads": 2, "num_classes": 1000}


def test_memory_options_are_compared_in_memory_time_and_gradients():
    notes = []
    peak, seconds = memory.measure("cait_xxs24_224", 64, 2, 1, notes, **SMALL)
    assert [row["name"] for row in peak.rows()] == list(memory.OPTIONS) == [row["name"] for row in seconds.rows()]
    assert all(row["median"] > 50 for row in peak.rows()) and peak.rows()[1]["goal"] == memory.GOAL
    differences = [float(note.split(" by ")[1].split()[0]) for note in notes]
    assert len(differences) == 3 and max(differences) < 1e-5


def test_growth_is_a_curve_over_what_grows():
    seconds, peaks = train.grow("images a batch", "batch_size", [1, 3], **SMALL | {"image_size": 32})
    assert seconds.x == peaks.x == [1, 3] and [row["name"] for row in seconds.rows()] == ["1", "3"]
    assert all(len(row["values"]) == 1 and row["median"] > 0 for row in seconds.rows())
    assert all(len(row["values"]) == train.GROWTH_ROUNDS for row in peaks.rows())
    assert "grows with its power" in seconds.title


def test_a_curve_that_hardly_grows_is_not_at_the_edge_of_its_chart():
    axes = Figure().subplots()
    report._curve(axes, Table("", [Measurement("1", "MB", [300.0]), Measurement("2", "MB", [301.0])], x=[1, 2]))
    bottom, top = axes.get_ylim()
    assert bottom == 0 and top > 310


def test_the_wait_is_read_from_the_log_of_a_run():
    table = train.wait_for_images(1, 2, "MODEL.DEPTH=1", "DATA.IMAGE_SIZE=32", "DATA.NUM_WORKERS=0")
    step, wait = table.rows()
    assert len(step["values"]) == len(wait["values"]) == 2 and 0 < wait["median"] < step["median"]


@pytest.mark.parametrize("words", [[], ["speed"], ["startup", "--rounds=0"]])
def test_wrong_usage_ends_in_one_sentence(words):
    result = run_python(BENCHMARK, *words)
    assert result.returncode == 2 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_a_step_in_float16_has_the_gradients_of_float32(tiny_yaml, monkeypatch):
    """With a stand-in for the scaler, and no casts: whatever scale the loss has is taken out."""
    found = {}
    for dtype in ("float32", "float16"):
        if dtype == "float16":
            monkeypatch.setattr(paddle.amp, "GradScaler", Scaler)
            monkeypatch.setattr(paddle.amp, "auto_cast", lambda **_: contextlib.nullcontext())
            monkeypatch.setattr(mixed_precision, "why_not_mixed", lambda dtype: "")
        trainer = step.Trainer(step.StepSpec(str(tiny_yaml), 2, dtype=dtype, golden=True))
        found[dtype] = trainer.backward(), trainer.gradients()
    assert trainer._precision.scaler.scale_value == step.LOSS_SCALE
    np.testing.assert_allclose(found["float16"][1], found["float32"][1], rtol=1e-5, atol=1e-7)
    assert found["float16"][0] == pytest.approx(found["float32"][0]) and np.abs(found["float32"][1]).max() > 1e-3
