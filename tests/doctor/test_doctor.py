"""The doctor: a report without private paths, and checks that find what is wrong and survive what breaks."""

import importlib.util
import json
import os
import pathlib
import sys

import numpy as np
import pytest

from cait.doctor import checks, deployment, machine, numerics, peers, report, throughput
from cait.doctor.report import DIFFERS, FAILED, MISSING, OK, Line, judged, public
from cait.doctor.settings import Settings
from cait.errors import CaitError
from project import ROOT, run_python

SCRIPT = ROOT / "CaiT" / "doctor.py"


@pytest.fixture
def settings(tiny_yaml, tmp_path):
    """Checks of the tiny model, in which a step of more than two milliseconds is long."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Settings(str(tiny_yaml), "cpu", str(scratch), step_seconds=0.002)


def verdicts(lines):
    return {(line.check, line.name): line.verdict for line in lines}


def test_the_report_is_of_this_machine_and_tells_no_path(tmp_path):
    result = run_python(SCRIPT, f"--output={tmp_path / 'out'}")
    assert result.returncode == 0, result.stderr
    text, document = (
        (tmp_path / "out" / "doctor.md").read_text(),
        json.loads((tmp_path / "out" / "doctor.json").read_text()),
    )
    assert text.strip() in result.stdout and text.startswith(report.MARK)
    facts = document["machine"]
    for section, name in (
        ("System", "processor"), ("System", "Python"), ("PaddlePaddle", "built for"), ("GPUs", "driver"),
        ("Inference", "ONNX Runtime"), ("Inference", "TensorRT"), ("Compiled parts", "g++"),
        ("Compiled parts", "fused operators"), ("Images", "libjpeg_turbo"), ("Space", "/dev/shm"),
    ):  # fmt: skip
        assert facts[section][name] and f"- {name}: {facts[section][name]}" in text
    import paddle

    assert facts["PaddlePaddle"]["version"].startswith(paddle.__version__)
    everything = text + json.dumps(document)
    for private in (str(ROOT), os.environ["HOME"], str(pathlib.Path(sys.prefix)), str(tmp_path)):
        assert private not in everything
    assert document["checks"] == [] and document["passed"] is True


@pytest.mark.parametrize(
    "text, expected",
    [
        ("{root}/output/x: broken", "./output/x: broken"),
        ("~/.cache and {home}/.cache/cait", "~/.cache and ~/.cache/cait"),
        ("/data/secret/project/photo.jpg: damaged", "…/photo.jpg: damaged"),
        ("'/mnt/my disk/a b.png' and \"/srv/x y\"", "'…/a b.png' and \"…/x y\""),
        ("/proc/meminfo and /dev/shm and /usr/lib/libx.so.1", "/proc/meminfo and /dev/shm and /usr/lib/libx.so.1"),
        ("12/13 images, 3.5e-4/1e-3, text/html", "12/13 images, 3.5e-4/1e-3, text/html"),
        ("https://www.paddlepaddle.org.cn/whl/x.html", "https://www.paddlepaddle.org.cn/whl/x.html"),
    ],
)
def test_private_paths_are_taken_out(text, expected):
    assert public(text.replace("{home}", os.environ["HOME"]).replace("{root}", str(ROOT))) == expected


def test_a_fact_that_cannot_be_had_does_not_cost_the_others(monkeypatch):
    def fail(*_):
        raise OSError("first line\nthe reason")

    monkeypatch.setattr(machine.shutil, "disk_usage", fail)
    monkeypatch.setattr(machine.paddle.device, "is_compiled_with_cuda", lambda: True)  # and it is not
    facts = machine.describe()
    assert facts["Space"]["/dev/shm"] == "not known (the reason)" and facts["System"]["memory"].endswith(" MB")
    assert (
        facts["PaddlePaddle"]["built for"].startswith("CUDA ")
        and "code for compute capability" in facts["PaddlePaddle"]
    )


@pytest.mark.parametrize(
    "difference, verdict", [(1e-5, OK), (2e-4, DIFFERS), (float("inf"), DIFFERS), (float("nan"), DIFFERS)]
)
def test_a_difference_is_judged(difference, verdict):
    line = judged("step", "one", difference, 1e-4)
    assert line.verdict == verdict and "allowed are 1.0e-04" in line.text()
    json.dumps(report.document({}, [line], "x"), allow_nan=False)


def test_the_ladder_is_climbed_in_both_precisions(settings):
    lines = list(checks.run_check("alignment", settings))
    assert verdicts(lines) == {("alignment", f"tiny, {dtype}"): OK for dtype in ("float64", "float32")}


def test_steps_are_compared_and_mixed_precision_is_missing_on_a_cpu(settings):
    lines = list(checks.run_check("step", settings))
    found = verdicts(lines)
    assert (
        found.pop(("training step", "float32 on the CPU, against float64")) == OK and lines[0].numbers["difference"] > 0
    )
    assert set(found.values()) == {MISSING} and len(found) == 4
    assert all("mixed precision needs a GPU" in line.detail for line in lines[1:])


def test_a_device_that_computes_something_else_differs(settings, monkeypatch):
    """As TF32 would: a thousandth of the largest gradient."""

    def measure(step):
        gradients = np.linspace(-1, 1, 100) + (1e-3 if step.device == "gpu" else 0.0)
        np.save(step.gradients, gradients)
        return {"loss": 2.0}

    monkeypatch.setattr(numerics, "measure_step", measure)
    monkeypatch.setattr(numerics, "why_not_mixed_on", lambda *_: "")
    found = verdicts(numerics.training_step(Settings(settings.model, "gpu", settings.scratch)))
    assert found["training step", "float32 on the GPU"] == DIFFERS
    assert found["training step", "AMP O1 in float16"] == OK  # within what half precision explains
    assert len(found) == 6


def test_steps_repeat_and_the_memory_options_change_nothing(settings):
    assert verdicts(checks.run_check("repeats", settings)) == {("repeats", "4 steps in float32"): OK}
    found = verdicts(checks.run_check("memory", settings))
    assert len(found) == 3 and set(found.values()) == {OK}


def test_runs_that_are_not_the_same_are_found(settings, monkeypatch):
    count = iter(range(10))

    def measure(step):
        np.save(step.gradients, np.zeros(3))
        np.save(step.weights, np.full(3, float(next(count))))

    monkeypatch.setattr(numerics, "measure_step", measure)
    (line,) = numerics.repeats(settings)
    assert (line.verdict, line.detail) == (DIFFERS, "the weights of two runs are not the same")


def test_what_is_deployed_is_judged_way_by_way(settings, monkeypatch):
    lines = list(deployment.deployment(settings))
    found = verdicts(lines)
    assert found["deployment", "static program"] == found["deployment", "Paddle Inference, oneDNN"] == OK
    assert found["deployment", "Paddle Inference, GPU with TensorRT fp16"] == MISSING
    assert FAILED not in found.values() and DIFFERS not in found.values()
    teacher = list(deployment.teacher(settings))
    assert [line.verdict for line in teacher] == [OK] and "CPUExecutionProvider" in teacher[0].detail

    from cait.align import parity

    def broken(folder, engine):
        raise CaitError("it does not load") if not engine.onednn else KeyError

    monkeypatch.setattr(parity, "Predictor", broken)
    monkeypatch.setattr(parity.Gate, "why_not", lambda gate, name: "" if "without oneDNN" in name else "not now")
    (images,) = pathlib.Path(settings.scratch).glob("images")
    monkeypatch.setattr(deployment, "_write_images", lambda folder: images)
    found = {line.name: line for line in deployment.deployment(settings)}
    assert found["Paddle Inference, without oneDNN"].verdict == FAILED  # and the others are judged all the same
    assert found["ONNX Runtime"].verdict == MISSING


def test_images_a_second_end_where_a_batch_takes_too_long(settings):
    lines = {line.name: line for line in checks.run_check("throughput", settings)}
    training = lines["training in float32"]
    assert training.verdict == OK and "would take more than 0.002 s" in training.detail
    assert training.numbers["seconds"]["1"] > 0 and lines["training in bfloat16"].verdict == MISSING
    assert lines["inference, plain, fp32"].verdict == OK


def test_images_a_second_end_where_memory_does(settings):
    def measure(size):
        if size > 16:
            raise CaitError("python x: failed (error: there is not enough memory on GPU 0; take smaller batches)")
        return 1e-3 * size, 100.0 * size

    on_gpu = Settings(settings.model, "gpu", settings.scratch)
    line = throughput._series("training", on_gpu, measure)
    assert line.verdict == OK and line.detail.endswith(
        "batch 16 1e+03 images/s, 1600 MB; batch 64 does not fit into memory"
    )
    line = throughput._series("training", on_gpu, lambda size: measure(64))
    assert line.verdict == FAILED and "not enough memory" in line.detail


CRASHES = {
    "dies": ("import os; os.kill(os.getpid(), 9)", "it ended with signal 9"),
    "fails": ("raise ValueError('broken inside')", "it ended with exit code 1, ValueError: broken inside"),
    "hangs": ("import time; time.sleep(600)", "it had not ended after"),
}


@pytest.mark.parametrize("name", CRASHES)
def test_a_check_that_breaks_is_a_line(settings, tmp_path, monkeypatch, name):
    """One that printed a line before; what libraries print is none."""
    code, words = CRASHES[name]
    first = json.dumps(Line(name, "one thing", OK)._asdict())
    (tmp_path / "python").write_text(f"#!{sys.executable}\nprint('noise')\nprint({first!r}, flush=True)\n{code}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    lines = list(checks.run_check(name, settings, limit=2.0))
    assert lines[0] == Line(name, "one thing", OK, "", {}) and lines[1].verdict == FAILED
    assert words in lines[1].detail and len(lines) == 2


def test_the_command_fails_where_a_check_differs(tiny_yaml, tmp_path, monkeypatch, capsys):
    wrong = Line("step", "float32 on the GPU", DIFFERS, "differs by 1e-2", {"difference": 0.01})
    monkeypatch.setattr(checks, "run_check", lambda name, settings: iter([Line(name, "first", OK), wrong]))
    monkeypatch.setattr(
        sys, "argv", ["doctor.py", "--check", "--only", "step", f"-cfg={tiny_yaml}", f"--output={tmp_path}"]
    )
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("doctor_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with pytest.raises(CaitError, match="1 of 2 checks differ or failed"):
        script.main()
    assert "differs        step: float32 on the GPU: differs by 1e-2" in capsys.readouterr().out
    document = json.loads((tmp_path / "doctor.json").read_text())
    assert document["passed"] is False and document["checks"][1]["numbers"] == {"difference": 0.01}
    assert "1 ok, 1 differs" in (tmp_path / "doctor.md").read_text()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--only", "step"], "--only needs --check"),
        (["--check", "--only", "nothing"], "invalid choice: 'nothing'"),
        (["--check", "-cfg=nowhere.yaml"], "nowhere.yaml"),
        (["--device", "gpu"], "--device gpu: there is no GPU"),
    ],
)
def test_wrong_usage_is_one_sentence(tmp_path, words, message):
    result = run_python(SCRIPT, *words, f"--output={tmp_path}")
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1


def test_what_is_not_ours_is_not_replaced(tmp_path):
    (tmp_path / "doctor.md").write_text("# my own notes\n")
    result = run_python(SCRIPT, f"--output={tmp_path}")
    assert result.returncode == 2 and "so it is not replaced" in result.stderr
    assert (tmp_path / "doctor.md").read_text() == "# my own notes\n"


def test_one_gpu_is_not_two(settings, monkeypatch):
    monkeypatch.setattr("cait.machine.device.select_device", lambda device: None)
    monkeypatch.setattr("paddle.device.cuda.device_count", lambda: 1)
    (line,) = peers.check(Settings(settings.model, "gpu", settings.scratch))
    assert (line.verdict, line.detail) == (MISSING, "this machine has one GPU")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_checks_pass_on_this_machine(tiny_yaml, tmp_path):
    """By command; one of two processes stalls for longer than gloo waits by itself."""
    result = run_python(SCRIPT, "--check", f"-cfg={tiny_yaml}", f"--output={tmp_path}")
    assert result.returncode == 0, result.stdout + result.stderr
    document = json.loads((tmp_path / "doctor.json").read_text())
    found = {(line["check"], line["name"]): line["verdict"] for line in document["checks"]}
    assert set(found.values()) == {OK, MISSING}
    assert found["processes", "one stalls for 40 s, and the run goes on"] == OK
    assert {check for check, _ in found} >= {"alignment", "training step", "processes", "deployment", "tipc"}
