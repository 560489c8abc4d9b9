"""TIPC: the commands of the shipped files, as this and other harnesses compose them, and chains that really run."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

import other_harnesses as other
from cait.config.flags import parse_command
from cait.deploy import engine_config
from cait.deploy.engine import Engine
from cait.machine.device import why_no_profiler
from harness.commands import train_words
from harness.data import images_for_speed
from harness.parameters import MODES, Parameters
from harness.plan import plan
from harness.rows import Row
from isolation import copy_project
from project import ROOT
from tipc_runs import CHAIN, CONFIGS, LITE, SHIPPED, run_script, table_of, write_file

FILES = sorted(path.name for path in CONFIGS.glob("train*.txt"))
FAMILIES = ("PaddleOCR", "PaddleClas")
MAIN = "CaiT/main_single_gpu.py"
ONE_CONFIGURATION = {43: "--cpu_threads:1", 44: "--batch_size:4"}

pytestmark = pytest.mark.timeout(300)


def shell(command, cwd=ROOT, **variables):
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **variables, "PATH": path}
    return subprocess.run(["bash", "-c", command], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture
def checkout(tmp_path, tiny_yaml):
    """A checkout of git, and in it a function that writes a shipped file for the tiny model; nothing may be left in it.

    What commands leave must be in places that git ignores.
    """
    folder = copy_project(ROOT, tmp_path / "checkout")
    shutil.copy(tiny_yaml, folder / "tiny.yaml")

    def write(more=None, source=SHIPPED):
        text = source.read_text().replace("-cfg=CaiT/configs/cait_xxs24_224.yaml", "-cfg=tiny.yaml")
        (folder / "whole.txt").write_text(text)
        path = write_file(folder / "params.txt", {2: "model_name:tiny"} | (more or {}), folder / "whole.txt")
        save = (
            "git -c init.defaultBranch=main init -q && git add -A && git -c user.name=a -c user.email=b commit -qm all"
        )
        assert shell(save, folder).returncode == 0
        return path

    write.folder = folder
    yield write
    status = shell("git status --porcelain --untracked-files=all", folder)
    assert (status.returncode, status.stdout) == (0, "")


def prepare(checkout, path, mode):
    result = run_script("prepare.sh", path, mode, root=checkout.folder, cwd=checkout.folder)
    assert result.returncode == 0, result.stderr
    return result.stdout


# Rows and commands of the shipped files


@pytest.mark.parametrize("name", FILES)
def test_every_row_of_inference_can_run_on_some_machine(name, monkeypatch):
    lines = other.Lines(CONFIGS / name)
    monkeypatch.setattr(engine_config, "has_gpu", lambda: True)
    monkeypatch.setattr(engine_config, "processor_has_bf16", lambda: True)
    monkeypatch.setattr(engine_config.paddle.amp, "is_bfloat16_supported", lambda: True)
    for name in ("get_trt_compile_version", "get_trt_runtime_version"):
        monkeypatch.setattr(engine_config.inference, name, lambda: (8, 6, 1))
    use_gpus, mkldnns, tensorrts, precisions = (lines.value(number).split("|") for number in (41, 42, 45, 46))
    for precision in precisions:
        engines = [Engine(False, mkldnn == "True", precision=precision) for mkldnn in mkldnns]
        engines = engines if "False" in use_gpus else []
        of_gpu = [Engine(True, precision=precision, tensorrt=tensorrt == "True") for tensorrt in tensorrts]
        engines += of_gpu if "True" in use_gpus else []
        assert engines and not [reason for reason in map(engine_config.why_not, engines) if reason]


def config_of(command):
    """The config of a training command, which must be one that this project takes."""
    words = shlex.split(command)
    return parse_command(words[words.index(MAIN) + 1 :])


@pytest.mark.parametrize("name", FILES)
def test_every_row_of_training_can_run_on_some_machine(name):
    lines = other.Lines(CONFIGS / name)
    for mode in MODES[:3]:
        rows = list(other.paddleocr(lines, mode, "out"))
        configs = [config_of(row["train"]) for row in rows]
        assert len(rows) == len(lines.value(4).split("|")) * len(lines.value(6).split("|"))
        assert not [config for config in configs if config.AMP and config.DEVICE == "cpu"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", FILES)
def test_every_row_of_the_benchmark_can_run_and_be_measured(name, family):
    """Under the scripts of other projects: commands that training takes, and enough steps for the collector."""
    path = CONFIGS / name
    batches, items, _, _, exported = other.benchmark_items(other.Lines(path))
    assert all(map(other.is_identifier, exported)) and set(items) <= {"fp32", "fp16"}
    num_images = images_for_speed(Parameters(path))
    processes = 2 if "nproc_per_node 2" in other.Lines(path).value(16) else 1
    for batch in batches:
        for item in (*items, "null"):
            profiled, plain = (config_of(words) for words in other.benchmark(path, family, batch, item, "out"))
            assert profiled.PROFILE_STEPS > 0 and plain.PROFILE_STEPS == 0
            for config in (profiled, plain):
                assert (config.DATA.BATCH_SIZE, config.AMP) == (int(batch), item == "fp16")
                assert not (config.AMP and config.DEVICE == "cpu") and config.REPORT_FREQ == 1
            assert plain.TRAIN.NUM_EPOCHS * (num_images // (int(batch) * processes)) >= 13


def test_the_harness_composes_what_the_standard_says(monkeypatch):
    monkeypatch.setattr("harness.plan.missing_for", lambda parameters, mode: {})
    row = next(other.paddleocr(other.Lines(SHIPPED), LITE, "out"))
    commands = [step.command for step in plan(Parameters(SHIPPED), LITE, pathlib.Path("out"))]
    assert commands[:3] == [row["train"], row["evaluate"], row["export"]]
    assert [command for command in commands if "infer.py" in command] == row["infer"]
    assert len(row["infer"]) >= 4


def test_commands_for_several_devices():
    parameters = Parameters(SHIPPED)
    save = pathlib.Path("out")
    words = train_words(parameters, Row("0,1", "gpu", "True"), 16, save, "2", "4")
    assert shlex.join(words).startswith("python -m paddle.distributed.launch --gpus=0,1 CaiT/main_single_gpu.py -cfg=")
    assert shlex.join(words).endswith(
        "-o REPORT_FREQ=1 ON_USED_FOLDER=replace LOG_NAME=train.log DEVICE=gpu OUTPUT_DIR=out TRAIN.NUM_EPOCHS=2 "
        "MODEL.PRETRAINED=test_tipc/data/LSVRC2012/weights/cait_xxs24_224 AMP=True DATA.BATCH_SIZE=4"
    )
    words = train_words(parameters, Row("10.0.0.1,10.0.0.2;0,1", "gpu", "null"), 16, save, "2", "4")
    assert words[:5] == ["python", "-m", "paddle.distributed.launch", "--ips=10.0.0.1,10.0.0.2", "--gpus=0,1"]
    fleet = Parameters(CONFIGS / "train_fleet_infer_python.txt")
    words = train_words(fleet, Row("-1", "cpu", "null"), 16, save, "2", "4")
    assert shlex.join(words).startswith("python -m paddle.distributed.launch --nproc_per_node 2 ")
    assert "DEVICE=cpu" in words and "CaiT/main_single_gpu.py" in words


# Chains that really run, with the tiny model


def run_all(commands, cwd, **variables):
    """Runs commands that must succeed; returns what they printed."""
    printed = []
    for command in commands:
        result = shell(command, cwd, **variables)
        assert result.returncode == 0, f"{command}\n{result.stderr}"
        printed.append(result.stdout)
    return printed


def test_the_files_commands_run_twice_in_the_same_place(checkout):
    """As another harness composes them; of inference, the first and the last configuration."""
    path = checkout()
    assert "RANDOM weights" in prepare(checkout, path, LITE)
    lines = other.Lines(path)
    row = next(other.paddleocr(lines, LITE, "test_tipc/output/tiny/lite"))
    last = other.cpu_inference(lines, row["save"], lines.value(12), other.OTHER_ORDER)[-1]
    weights = checkout.folder / row["save"] / "latest.pdparams"
    printed = run_all([row["train"], row["evaluate"], row["export"], row["infer"][0]], checkout.folder)
    for text, words in zip(
        printed, ("----- Epoch[002/002], Train Loss: ", "Validation Acc@1: ", "exported: tiny", "prob: ")
    ):
        assert words in text
    assert (weights.parent / "train.log").is_file()  # which some harnesses append to their own
    written = weights.stat().st_mtime_ns
    printed = run_all([row["train"], row["export"], last], checkout.folder)
    assert weights.stat().st_mtime_ns > written and "preprocess_time(ms): " in printed[-1]


def chain(checkout, path, mode, script=CHAIN):
    """Prepares and runs a mode by this project's harness; returns the result."""
    prepare(checkout, path, mode)
    return run_script(script, path, mode, root=checkout.folder, cwd=checkout.folder)


def test_the_whole_chain(checkout):
    """Really trained, exported and inferred with."""
    result = chain(checkout, checkout(ONE_CONFIGURATION), LITE)
    assert result.returncode == 0, result.stdout + result.stderr
    assert set(table_of(result).values()) == {"passed"}
    assert result.stdout.count("10 images agree; ") == 2
    folder = checkout.folder / "test_tipc" / "output" / "tiny" / LITE
    log = (folder / "norm_train_gpus_-1_autocast_null.log").read_text()
    assert re.search(r"loss: [\d.]+ avg_reader_cost: [\d.]+ sec avg_batch_cost: [\d.]+ sec ips: [\d.]+ samples/s", log)
    block = (folder / "python_infer_cpu_usemkldnn_True_threads_1_precision_fp32_batchsize_4.log").read_text()
    assert "root INFO:  drivier_version: " in block and "root INFO:  batch_size: 4" in block


@pytest.mark.skipif(bool(why_no_profiler()), reason=why_no_profiler())
@pytest.mark.parametrize("family", [FAMILIES[0], pytest.param(FAMILIES[1], marks=pytest.mark.slow)])
def test_the_benchmarks_of_other_projects(checkout, family):
    path = checkout({54: "batch_size:8"})
    prepare(checkout, path, "benchmark_train")
    commands = other.benchmark(path, family, "8", "fp32", "test_tipc/output/tiny/benchmark_train")
    profiled, plain = run_all(commands, checkout.folder, CUDA_VISIBLE_DEVICES="0")
    log = checkout.folder / "test_tipc" / "output" / "plain.log"
    log.write_text(plain)
    speed, loss = other.analyse(log)
    assert speed > 0 and float(loss) > 0 and other.analyse(log, num_gpus=2)[0] == 2 * speed


@pytest.fixture
def everything(checkout, tiny_weights, all_digits):
    """The checkout with what the whole modes need: a small ImageNet, and trained weights."""
    folder = checkout.folder
    shutil.copy(tiny_weights[2], folder / "CaiT" / "cait_xxs24_224.pdparams")
    names = [line.split()[0] for line in (all_digits / "train_list.txt").read_text().splitlines()[:24]]
    for number, name in enumerate(names):
        split = ("train", "val")[number % 2]
        wordnet_id = ("n01440764", "n01443537")[number % 4 // 2]  # classes 0 and 1
        place = folder / "dataset" / "LSVRC2012" / split / wordnet_id
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(all_digits / name, place / f"{number}.JPEG")
    return checkout


SHORT = ONE_CONFIGURATION | {
    7: "TRAIN.NUM_EPOCHS:2",
    9: "DATA.BATCH_SIZE:4",
    42: "--enable_mkldnn:True",
    54: "batch_size:4",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_runs_twice_and_leaves_nothing_in_the_checkout(everything, mode):
    path = everything(SHORT)
    script = "benchmark_train.sh" if mode == "benchmark_train" else CHAIN
    for _ in range(2):
        result = chain(everything, path, mode, script)
        table = table_of(result)
        failed = [step for step, outcome in table.items() if outcome != "passed"]
        # The accuracy is not the published one: these are not the published weights.
        assert [step.split()[0] for step in failed] == (["accuracy"] if mode == "whole_infer" else []), result.stdout
        assert len(table) >= 2


@pytest.mark.slow
def test_another_harness_on_released_weights_leaves_nothing_in_the_checkout(everything):
    path = everything(SHORT)
    prepare(everything, path, "whole_infer")
    commands = other.paddleocr_released(other.Lines(path))
    assert "prob: " in run_all(commands * 2, everything.folder)[-1]


@pytest.mark.slow
def test_the_chain_of_two_processes(checkout):
    """The file for `paddle.distributed.launch`; the log tells of both processes. It too runs again in its place."""
    source = CONFIGS / "train_fleet_infer_python.txt"
    path = checkout(ONE_CONFIGURATION, source)
    result = chain(checkout, path, LITE)
    assert result.returncode == 0, result.stdout + result.stderr
    assert set(table_of(result).values()) == {"passed"}
    log = checkout.folder / "test_tipc" / "output" / "tiny" / LITE / "norm_train_gpus_-1_autocast_null.log"
    assert "8 images a step (batches of 4, 1 for a step, in 2 processes)" in log.read_text()
    train = next(other.paddleocr(other.Lines(path), LITE, "test_tipc/output/tiny/other"))["train"]
    run_all([train, train], checkout.folder)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_chain_to_onnx(checkout):
    for name in ("paddle2onnx", "onnx", "onnxruntime"):
        pytest.importorskip(name)
    checkout()
    path = checkout.folder / "test_tipc/configs/CaiT/paddle2onnx_infer_python.txt"
    for _ in range(2):
        result = chain(checkout, path, "paddle2onnx_infer", "test_paddle2onnx.sh")
        assert result.returncode == 0, result.stdout + result.stderr
        assert set(table_of(result).values()) == {"passed"}
