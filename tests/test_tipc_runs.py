"""TIPC: the commands of the shipped files, composed by the standard's rules, and chains that really run."""

import itertools
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from conftest import ROOT
from harness.commands import Row, train_words
from harness.parameters import Parameters
from harness.plan import plan
from isolation import copy_project
from test_tipc import CHAIN, CONFIGS, LITE, SHIPPED, run_script, table_of, write_file

pytestmark = pytest.mark.timeout(120)

# Composition, by the standard's rules and without the harness


ORDER = (41, 42, 43, 47, 44, 46, 48, 50)
OTHER_ORDER = (41, 42, 43, 47, 44, 49, 48, 50, 46, 51)  # of harnesses that also name a folder for the report


def compose(path, mode, log_folder, order=ORDER):
    """(train, evaluate, export, inference commands) of the first row of a file, composed as other harnesses do.

    Words are joined by blanks and left to the shell; a key or value of null leaves the word out.
    """
    lines = [""] + path.read_text().splitlines()

    def key(number):
        return lines[number].split(":")[0]

    def value(number):
        return lines[number].split(":")[1]

    def by_mode(number):
        choices = dict(part.split("=") for part in value(number).split("|"))
        return choices[mode]

    def word(number, text=None):
        text = value(number) if text is None else text
        return f" {key(number)}={text}" if text not in ("", "null") and key(number) != "null" else ""

    gpu, autocast = value(4).split("|")[0], value(6).split("|")[0]
    trainer = value(15).split("|")[0]
    save = f"{log_folder}/{trainer}_gpus_{gpu}_autocast_{autocast}"
    device = word(5, value(5).split("|")[0])
    weights = f"{save}/{value(11)}"
    train = f"{value(3)} {value(16)}{device}{word(8, save)}{word(7, by_mode(7))}{word(10)}"
    train += f"{word(6, autocast)}{word(9, by_mode(9))}{word(13)}"
    evaluate = f"{value(3)} {value(24)}{word(10, weights)}{device}"
    export = f"{value(3)} {value(30)}{word(29, weights)}{word(28, save)}"
    inferences = []
    for gpu, mkldnn, threads, batch, precision in itertools.product(
        *(value(n).split("|") for n in (41, 42, 43, 44, 46))
    ):
        if gpu == "True":
            continue
        texts = {41: gpu, 42: mkldnn, 43: threads, 44: batch, 46: precision, 47: save, 48: value(12)}
        texts |= {49: f"{log_folder}/report"}
        words = "".join(word(number, texts.get(number)) for number in order)
        inferences.append(f"{value(3)} {value(40)}{words}")
    return train, evaluate, export, inferences


def tiny_file(folder, tiny_yaml, more=None, source=SHIPPED):
    """A shipped file, for the tiny model and data in a folder."""
    text = source.read_text().replace("-cfg=CaiT/configs/cait_xxs24_224.yaml", f"-cfg={tiny_yaml}")
    text = text.replace("test_tipc/data/LSVRC2012", f"{folder}/data").replace("test_tipc/output", f"{folder}/output")
    text = text.replace("infer_model:CaiT", f"infer_model:{folder}")
    (folder / "whole.txt").write_text(text)
    return write_file(folder / "params.txt", {2: "model_name:tiny"} | (more or {}), folder / "whole.txt")


@pytest.fixture
def prepared(tmp_path, tiny_yaml):
    """A parameter file for the tiny model, and its data."""
    path = tiny_file(tmp_path, tiny_yaml)
    result = run_script("prepare.sh", path, LITE)
    assert result.returncode == 0, result.stderr
    assert "RANDOM weights" in result.stdout
    return path


def shell(command, cwd=ROOT):
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )


def test_the_harness_composes_what_the_standard_says(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.plan.missing_for", lambda parameters, mode: {})
    train, evaluate, export, inferences = compose(SHIPPED, LITE, "out")
    commands = [step.command for step in plan(Parameters(SHIPPED), LITE, pathlib.Path("out"))]
    assert commands[:3] == [train, evaluate, export]
    assert [command for command in commands if "infer.py" in command] == inferences
    assert len(inferences) >= 4


def test_commands_for_several_devices():
    parameters = Parameters(SHIPPED)
    save = pathlib.Path("out")
    words = train_words(parameters, Row("0,1", "gpu", "True"), 16, save, "2", "4")
    assert shlex.join(words).startswith("python -m paddle.distributed.launch --gpus=0,1 CaiT/main_single_gpu.py -cfg=")
    assert shlex.join(words).endswith(
        "-o DEVICE=gpu OUTPUT_DIR=out TRAIN.NUM_EPOCHS=2 "
        "MODEL.PRETRAINED=test_tipc/data/LSVRC2012/weights/cait_xxs24_224 AMP=True DATA.BATCH_SIZE=4"
    )
    words = train_words(parameters, Row("10.0.0.1,10.0.0.2;0,1", "gpu", "null"), 16, save, "2", "4")
    assert words[:5] == ["python", "-m", "paddle.distributed.launch", "--ips=10.0.0.1,10.0.0.2", "--gpus=0,1"]
    fleet = Parameters(CONFIGS / "train_fleet_infer_python.txt")
    words = train_words(fleet, Row("-1", "cpu", "null"), 16, save, "2", "4")
    assert shlex.join(words).startswith("python -m paddle.distributed.launch --nproc_per_node 2 ")
    assert "DEVICE=cpu" in words and "CaiT/main_single_gpu.py" in words


def test_the_files_commands_run(prepared, tmp_path):
    """Train, evaluate, export and infer, composed here, with the first and the last configuration of inference."""
    train, evaluate, export, inferences = compose(prepared, LITE, tmp_path / "out")
    others = compose(prepared, LITE, tmp_path / "out", OTHER_ORDER)[-1]
    for command, words in (
        (train, "----- Epoch[002/002], Train Loss: "),
        (evaluate, "Validation Acc@1: "),
        (export, "exported: tiny"),
        (inferences[0], ", prob: 0."),
        (others[-1], "preprocess_time(ms): "),
    ):
        result = shell(command)
        assert result.returncode == 0, f"{command}\n{result.stderr}"
        assert words in result.stdout, command


def test_the_whole_chain(tmp_path, tiny_yaml):
    """Really trained, exported and inferred with: the tiny model."""
    path = tiny_file(tmp_path, tiny_yaml, {43: "--cpu_threads:1", 44: "--batch_size:4"})
    assert run_script("prepare.sh", path, LITE, cwd=tmp_path).returncode == 0
    result = run_script(CHAIN, path, LITE, cwd=tmp_path, output=tmp_path / "output")
    assert result.returncode == 0, result.stdout + result.stderr
    assert set(table_of(result).values()) == {"passed"}
    assert result.stdout.count("10 images agree; ") == 2
    folder = tmp_path / "output" / "tiny" / LITE
    log = (folder / "norm_train_gpus_-1_autocast_null.log").read_text()
    assert re.search(r"loss: [\d.]+ avg_reader_cost: [\d.]+ sec avg_batch_cost: [\d.]+ sec ips: [\d.]+ samples/s", log)
    block = (folder / "python_infer_cpu_usemkldnn_True_threads_1_precision_fp32_batchsize_4.log").read_text()
    assert "root INFO:  drivier_version: " in block and "root INFO:  batch_size: 4" in block


@pytest.mark.slow
def test_the_chain_of_two_processes(tmp_path, tiny_yaml):
    """The file for `paddle.distributed.launch`, with the tiny model; the log tells of both processes."""
    more = {43: "--cpu_threads:1", 44: "--batch_size:4"}
    path = tiny_file(tmp_path, tiny_yaml, more, CONFIGS / "train_fleet_infer_python.txt")
    assert run_script("prepare.sh", path, LITE, cwd=tmp_path).returncode == 0
    result = run_script(CHAIN, path, LITE, cwd=tmp_path, output=tmp_path / "output")
    assert result.returncode == 0, result.stdout + result.stderr
    assert set(table_of(result).values()) == {"passed"}
    log = (tmp_path / "output" / "tiny" / LITE / "norm_train_gpus_-1_autocast_null.log").read_text()
    assert "8 images a step (batches of 4, 1 for a step, in 2 processes)" in log


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_chain_to_onnx(tmp_path):
    for name in ("paddle2onnx", "onnx", "onnxruntime"):
        pytest.importorskip(name)
    folder = copy_project(ROOT, tmp_path / "a copy")
    for script in ("prepare.sh", "test_paddle2onnx.sh"):
        words = (folder / "test_tipc/configs/CaiT/paddle2onnx_infer_python.txt", "paddle2onnx_infer")
        result = run_script(script, *words, root=folder)
        assert result.returncode == 0, result.stdout + result.stderr
    assert set(table_of(result).values()) == {"passed"}
