"""TIPC: the parameter files, the commands made of them, and a harness that fails when anything does."""

import json
import math
import pathlib
import re
import subprocess
import sys

import pytest

from cait.errors import CaitError, UsageError
from harness.compare import check_accuracy, compare
from harness.onnx import OnnxParameters
from harness.parameters import MODES, Parameters
from harness.speed import parse_speed
from project import ROOT
from tipc_runs import CHAIN, CONFIGS, LITE, SHIPPED, TIPC, run_script, table_of, write_file
from tipc_stubs import write_stubs

pytestmark = [pytest.mark.timeout(120), pytest.mark.any_paddle]  # what really runs is in test_tipc_runs.py


@pytest.fixture
def stub(tmp_path):
    """Runs the chain over stand-ins for the project's scripts, in a folder with a blank in its name."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    replaced = write_stubs(folder)

    def run(mode=LITE, breaking="", more=None, script=CHAIN, file=None, **options):
        path = file or write_file(folder / "params.txt", replaced | (more or {}))
        return run_script(script, path, mode, output=folder / "output", breaking=breaking, **options)

    run.folder, run.output = folder, folder / "output" / "stub"
    return run


# The parameter file


@pytest.mark.parametrize("name", [path.name for path in CONFIGS.glob("train*.txt")])
def test_shipped_files_pass_their_schema(name):
    parameters = Parameters(CONFIGS / name)
    assert parameters.has_benchmark and parameters.words(16) and "xxs24_224" in parameters.value(16)
    assert len((CONFIGS / name).read_text().splitlines()) == 60


def test_the_shipped_onnx_file_passes_its_schema():
    assert OnnxParameters(CONFIGS / "paddle2onnx_infer_python.txt").value(2) == "cait_xxs24_224"


BAD_LINES = [
    (1, "train_params", r"line 1: must be ===train_params==="),
    (2, "model:x", r"line 2: must begin with model_name: and not be 'model:x'"),
    (2, "model_name:../x", r"line 2: model_name must be a name of letters"),
    (3, "python:null", r"line 3: python must be the name of a Python interpreter, not null"),
    (4, "gpu_list:one", r"line 4: gpu_list must be -1, GPU numbers"),
    (5, "DEVICE:cpu|gpu", r"line 5: has 2 values for the 1 of gpu_list on line 4"),
    (5, "DEVICE:tpu", r"line 5: DEVICE must be cpu or gpu"),
    (6, "AMP:O3", r"line 6: AMP must be null or False or True or fp32"),
    (7, "TRAIN.EPOCHS:2", r"line 7: must begin with TRAIN.NUM_EPOCHS: or -epochs:"),
    (7, "TRAIN.NUM_EPOCHS:light=2", r"line 7: unknown mode 'light'; there are lite_train_lite_infer, "),
    (
        7,
        "TRAIN.NUM_EPOCHS:lite_train_lite_infer=0",
        r"line 7: TRAIN.NUM_EPOCHS of lite_\w+ must be a whole",
    ),
    (7, "-epochs:2", r"line 7: -epochs must be a KEY without a dash: the command on line 16 has -o"),
    (9, "DATA.BATCH_SIZE:", r"line 9: DATA.BATCH_SIZE must be a whole number from 1, not nothing"),
    (12, "train_infer_img_dir: x", r"line 12: has blanks around the value"),
    (12, "train_infer_img_dir:C:/x", r"line 12: the value of train_infer_img_dir holds a `:`"),
    (13, "TRAIN.BASE_LR:1", r"line 13: must begin with null:"),
    (14, "#", r"line 14: must be ##"),
    (15, "trainer:my_train", r"line 15: trainer must be norm_train or"),
    (15, "trainer:pact_train", r"line 17: pact_train is on line 15, but its command is null"),
    (16, "norm_train:main.py '-cfg=x", r"line 16: is no command \(No closing quotation\)"),
    (16, "norm_train:main.py", r"line 5: DEVICE must be a flag with a dash: the command on line 16 has no -o"),
    (24, "eval:main.py -o", r"line 24: must have the word -eval"),
    (27, "##", r"line 27: must be ===infer_params===, not '##'"),
    (40, "inference:null", r"line 40: inference must be a command"),
    (41, "--use_gpu:yes", r"line 41: --use_gpu must be True or False"),
    (43, "--cpu_threads:0", r"line 43: --cpu_threads must be a whole number from 1"),
    (6, "AMP:null|True", r"line 6: True is mixed precision, which needs a GPU, and -1 of line 4 is run on the CPU"),
    (42, "--enable_mkldnn:maybe", r"line 42: --enable_mkldnn must be True or False"),
    (46, "--precision:fp32|fp16", r"line 46: fp16 with --use_gpu=False .* can run on no machine: fp16 needs a GPU"),
    (46, "--precision:bf16", r"line 46: bf16 with .* --enable_mkldnn=False on line 42 can run on no machine: bf16 on "),
    (46, "--precision:int8", r"line 46: --precision must be fp32 or fp16 or bf16"),
    (51, "", r"line 51: is blank"),
    (54, "batch_size:null", r"line 54: batch_size must be a whole number from 1"),
    (55, "fp_items:fp8", r"line 55: fp_items must be fp32 or fp16"),
    (
        55,
        "fp_items:fp32|fp16",
        r"line 55: fp16 is mixed precision, which needs a GPU, and the first row of line 4 is run",
    ),
    (57, "--profiler_options:batch_range=[10,20]", r"line 57: must begin with PROFILE_STEPS: or null:"),
    (59, "model_type:pact_train", r"line 59: the command of pact_train on line 17 is null"),
    (58, "flags:all", r"line 58: flags must be null, or FLAGS_name=value"),
]


@pytest.mark.parametrize("number, line, message", BAD_LINES)
def test_a_wrong_line_is_named(tmp_path, number, line, message):
    with pytest.raises(UsageError, match=message):
        Parameters(write_file(tmp_path / "params.txt", {number: line}))


@pytest.mark.parametrize("number", range(1, 61))
def test_a_missing_line_is_named(tmp_path, number):
    """At the line, or where the first one that follows is found to be shifted."""
    lines = SHIPPED.read_text().splitlines()
    del lines[number - 1]
    (tmp_path / "params.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match=r"line (\d+): ") as error:
        Parameters(tmp_path / "params.txt")
    named = int(re.search(r"line (\d+):", str(error.value))[1])
    assert number <= named <= number + 2


def test_a_missing_line_is_guessed(tmp_path):
    lines = SHIPPED.read_text().splitlines()
    (tmp_path / "params.txt").write_text("\n".join(lines[:8] + lines[9:]) + "\n")
    with pytest.raises(UsageError, match=r"line 9: .* \(a line before it is missing\?\)"):
        Parameters(tmp_path / "params.txt")


def test_files_with_other_line_ends_or_lengths(tmp_path):
    (tmp_path / "a.txt").write_bytes(SHIPPED.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(UsageError, match="line 1: ends as on Windows"):
        Parameters(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text(SHIPPED.read_text() + "x:1\n")
    with pytest.raises(UsageError, match="line 61: is one too many"):
        Parameters(tmp_path / "b.txt")
    (tmp_path / "c.txt").write_text("".join(SHIPPED.read_text().splitlines(keepends=True)[:51]))
    assert not Parameters(tmp_path / "c.txt").has_benchmark


@pytest.mark.parametrize("number, line", [(41, "--use-gpu:False"), (20, ""), (9, "null:null")])
def test_a_malformed_file_ends_the_harness(stub, number, line):
    result = stub(more={number: line})
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert f"params.txt: line {number}: " in result.stderr and not stub.output.exists()


def test_a_missing_line_ends_the_harness(stub):
    path = write_file(stub.folder / "params.txt", {})
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:29] + lines[30:]))
    for script in ("prepare.sh", CHAIN):
        result = stub(file=path, script=script)
        assert result.returncode == 2 and "line 30: must begin with norm_export:" in result.stderr


# Wrong usage


def test_an_unknown_mode_is_an_error(stub):
    for script in ("prepare.sh", CHAIN):
        result = stub("lite_train", script=script)
        assert result.returncode == 2
        assert result.stderr == f"error: unknown mode 'lite_train'; there are {', '.join(MODES)}, paddle2onnx_infer\n"


@pytest.mark.parametrize("script", ["prepare.sh", CHAIN, "benchmark_train.sh", "test_paddle2onnx.sh"])
def test_scripts_say_how_they_are_called(script):
    result = run_script(script)
    assert result.returncode == 2 and result.stderr.startswith("error: usage: bash ")
    result = run_script(script, "nowhere.txt", "benchmark_train")
    assert result.returncode == 2 and result.stderr == "error: nowhere.txt: no such parameter file\n"


def test_data_that_was_not_prepared_is_an_error(stub):
    (stub.folder / "data" / "contents.json").unlink()
    result = stub()
    assert result.returncode == 2 and "make it first: bash test_tipc/prepare.sh" in result.stderr


def test_shellcheck_passes():
    tool = pathlib.Path(sys.executable).with_name("shellcheck")  # of requirements-dev.txt
    scripts = sorted(str(path.relative_to(ROOT)) for path in TIPC.glob("*.sh"))
    assert len(scripts) == 5
    scripts.append("tests/helpers/two_hosts.sh")
    result = subprocess.run([tool, "-x", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_both_readmes_have_the_same_commands():
    readmes = [(TIPC / name).read_text() for name in ("README.md", "README_cn.md")]
    english, chinese = (re.findall(r"^(?:bash|python|pip) .*", text, re.MULTILINE) for text in readmes)
    assert english == chinese and len(english) == 9


# The chain


def log_of(stub, mode=LITE):
    return (stub.output / mode / "results_python.log").read_text().splitlines()


def test_the_chain_passes(stub):
    result = stub()
    assert result.returncode == 0, result.stdout + result.stderr
    table = table_of(result)
    assert set(table.values()) == {"passed"} and len(table) == 10
    assert result.stdout.endswith("10 passed, 0 failed, 0 skipped\nPASSED\n")
    lines = log_of(stub)
    assert len(lines) == 10 and all(re.fullmatch("Run successfully with command - python .*!", line) for line in lines)
    for mkldnn in (True, False):
        name = f"python_infer_cpu_usemkldnn_{mkldnn}_threads_1_precision_fp32_batchsize_4.log"
        assert (stub.output / LITE / name).is_file()
    assert "\033" not in result.stdout


BREAKS = {
    "train": ("train", "exit code 1; RuntimeError: out of luck"),
    "epochs": ("train", "2 epochs were asked for, and .* tells of 1"),
    "evaluate": ("evaluate", "tells no Validation Acc@1"),
    "export": ("export", "holds no inference.yaml"),
    "verify": ("verify", "not exported from .*latest.pdparams"),
    "nothing learnt": ("verify", "is the file that training started from"),
    "predict": ("predict", "predictions.csv is empty"),
    "infer": ("infer", "tells no prediction"),
    "benchmark": ("infer", "has no line with inference_time"),
    "class": ("compare", "the model says class 1 .*, inference says 3"),
    "prob": ("compare", "class 2 has the probability 0.7 in the model and 0.71 in inference"),
    "image": ("compare", "img2.png: only in one of"),
}


@pytest.mark.parametrize("breaking", BREAKS)
def test_a_broken_step_fails_and_is_named(stub, breaking):
    kind, message = BREAKS[breaking]
    result = stub(breaking=breaking, more={42: "--enable_mkldnn:True"})
    assert result.returncode == 1
    failed = [step for step, outcome in table_of(result).items() if outcome == "failed"]
    assert failed and failed[0].split()[0] == kind
    assert result.stdout.splitlines()[-1] == f"FAILED: {failed[0]}"
    assert re.search(message, result.stdout)
    lines = [line for line in log_of(stub) if not line.startswith("Run successfully with command - ")]
    assert lines[0].startswith("Run failed with command - ") and lines[0].endswith("!")
    if kind in ("train", "export", "verify"):  # what builds on it is not run
        assert (
            table_of(result)["infer python_infer_cpu_usemkldnn_True_threads_1_precision_fp32_batchsize_4"] == "skipped"
        )


def test_the_bundle_that_inference_reads_is_verified(stub):
    result = stub(more={36: "inference_dir:older"})
    assert result.returncode == 1 and "FAILED: verify" in result.stdout


def test_a_script_that_is_missing_fails(stub):
    result = stub(more={30: "norm_export:nowhere.py"})
    assert result.returncode == 1 and "FAILED: export" in result.stdout


def test_what_an_earlier_run_left_does_not_count(stub):
    assert stub().returncode == 0
    old = stub.output / LITE / "norm_train_gpus_-1_autocast_null" / "latest.pdparams"
    assert old.is_file()
    result = stub(breaking="train")
    assert result.returncode == 1 and not old.exists()
    assert not list((stub.output / LITE).glob("python_infer*.log"))
    assert "Run successfully" not in "".join(log_of(stub))


def test_a_folder_of_somebody_else_is_left_alone(stub):
    (stub.output / LITE).mkdir(parents=True)
    (stub.output / LITE / "mine.txt").write_text("keep me")
    result = stub()
    assert result.returncode == 2 and "holds something else than an earlier run" in result.stderr
    assert (stub.output / LITE / "mine.txt").read_text() == "keep me"


def test_from_another_folder(stub):
    """Paths on the command line are the caller's; the commands run in the project."""
    write_file(stub.folder / "params.txt", write_stubs(stub.folder / "more"))
    result = run_script(CHAIN, "params.txt", LITE, cwd=stub.folder, output="logs")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (stub.folder / "logs" / "stub" / LITE / "summary.txt").read_text().endswith("PASSED\n")


# What cannot be run


def test_skipped_is_not_passed(stub):
    result = stub(more={4: "gpu_list:99", 5: "DEVICE:gpu"})
    assert result.returncode == 77
    assert set(table_of(result).values()) == {"skipped"}
    assert result.stdout.splitlines()[-2] == "0 passed, 0 failed, 10 skipped"
    assert result.stdout.splitlines()[-1].startswith("SKIPPED: ")
    assert "needs GPU 99, and PaddlePaddle can use " in result.stdout
    assert all(line.startswith("Not run: command - ") for line in log_of(stub))


def test_rows_of_a_gpu_are_skipped_where_there_is_none(stub):
    import paddle

    if paddle.device.is_compiled_with_cuda():
        pytest.skip("this PaddlePaddle can use GPUs")
    result = stub(
        more={4: "gpu_list:-1|0|0,1", 5: "DEVICE:cpu|gpu|gpu", 41: "--use_gpu:False|True", 42: "--enable_mkldnn:True"}
    )
    assert result.returncode == 0, result.stdout + result.stderr
    table = table_of(result)
    assert table["train norm_train_gpus_-1_autocast_null"] == "passed"
    assert (
        table["train norm_train_gpus_0_autocast_null"] == table["train norm_train_gpus_0,1_autocast_null"] == "skipped"
    )
    gpu = "norm_train_gpus_-1_autocast_null python_infer_gpu_usetrt_False_precision_fp32_batchsize_4"
    assert table[f"infer {gpu}"] == table[f"compare {gpu}"] == "skipped"
    assert "needs GPU 1, and PaddlePaddle can use none here" in result.stdout


def test_a_whole_set_that_is_not_there_is_skipped(stub):
    contents = {"train": "sample", "infer": "whole", "missing": {"infer": "there is no ImageNet"}}
    (stub.folder / "data" / "contents.json").write_text(json.dumps(contents))
    result = stub("lite_train_whole_infer")
    table = table_of(result)
    assert result.returncode == 77
    assert {step.split()[0] for step in table if table[step] == "passed"} == {"train", "evaluate", "export", "verify"}
    assert {step.split()[0] for step in table if table[step] == "skipped"} == {"predict", "infer", "compare"}
    result = stub("whole_infer")  # the published weights are there, and the sample
    assert result.returncode == 0 and table_of(result)["verify infer_model"] == "passed"


def test_whole_modes_need_weights(stub):
    for mode, train in (("whole_infer", "sample"), ("whole_train_whole_infer", "whole")):
        contents = {"train": train, "infer": "whole", "missing": {}}
        (stub.folder / "data" / "contents.json").write_text(json.dumps(contents))
        result = stub(mode, more={37: "infer_model:nowhere/cait_xxs24_224"})
        assert result.returncode == 77 and "there are no weights nowhere/cait_xxs24_224.pdparams (" in result.stdout
        assert set(table_of(result).values()) == {"skipped"}
        result = stub(mode)
        assert result.returncode == 0, result.stdout


# The benchmark


def test_the_benchmark(stub):
    rows = {4: "gpu_list:99|-1", 5: "DEVICE:auto|cpu", 55: "fp_items:fp32|fp16"}
    assert stub("benchmark_train", script="benchmark_train.sh", more=rows).returncode == 77
    result = stub("benchmark_train", script="benchmark_train.sh")
    assert result.returncode == 0, result.stdout + result.stderr
    table = table_of(result)
    assert table["speed stub_bs4_fp32_DP_N1C1"] == table["speed stub_bs8_fp32_DP_N1C1"] == "passed"
    figures = json.loads((stub.output / "benchmark_train" / "stub_bs8_fp32_DP_N1C1_speed.json").read_text())
    assert (figures["ips"], figures["batch_size"], figures["convergence_value"]) == (11.5, 8, 1.5)
    assert "DATA.BATCH_SIZE=8 -o DATA.NUM_WORKERS=2" in result.stdout
    assert int(figures["model_run_time"]) >= 0


def test_one_combination_of_the_benchmark(stub):
    path = write_file(stub.folder / "params.txt", write_stubs(stub.folder / "more"))
    words = (path, "benchmark_train")
    result = run_script("benchmark_train.sh", *words, "dynamic_bs16_fp32_DP_N1C1", output=stub.folder / "output")
    assert result.returncode == 0 and list(table_of(result)) == [
        "train stub_bs16_fp32_DP_N1C1",
        "speed stub_bs16_fp32_DP_N1C1",
    ]
    result = run_script("benchmark_train.sh", *words, "bs16", output=stub.folder / "output")
    assert result.returncode == 2 and "must be of the form dynamic_bs8_fp32_DP_N1C1" in result.stderr


def test_speed_leaves_the_first_step_out(tmp_path):
    line = "Epoch[001/001], Step[{:04d}/0003], Avg Loss: 2, Avg Acc: 0, loss: {} avg_reader_cost: 0 sec "
    line += "avg_batch_cost: 0.1 sec ips: {} samples/s eta: 0:00:10\n"
    log = tmp_path / "a.log"
    log.write_text(line.format(0, 3.0, 1.0) + line.format(1, 2.5, 10.0) + line.format(2, 2.0, 20.0))
    assert parse_speed(log) == (15.0, 2.0)
    log.write_text(line.format(0, 3.0, 1.0))
    with pytest.raises(CaitError, match="training needs at least two steps"):
        parse_speed(log)


# Comparing


@pytest.fixture
def answers(tmp_path):
    """Writes a table of the model's predictions and a log of inference, and compares them."""

    def run(model, inference, precision="fp32"):
        rows = [f"{image},1,{class_id},name,{prob}" for image, class_id, prob in model]
        (tmp_path / "a.csv").write_text("\n".join(["image_name,rank,class_id,class_name,prob", *rows]) + "\n")
        lines = [f"image_name: {i}, class_id: {c}, class_name: x, prob: y, prob: {p}" for i, c, p in inference]
        (tmp_path / "a.log").write_text("\n".join(lines))
        return compare(tmp_path / "a.csv", tmp_path / "a.log", precision)

    return run


def test_predictions_within_the_tolerance_agree(answers):
    assert answers([("a", 1, 0.5)], [("a", 1, 0.5 * math.exp(9e-4))]).startswith("1 images agree")
    with pytest.raises(CaitError, match="allowed is a factor of 1.0010"):
        answers([("a", 1, 0.5)], [("a", 1, 0.5 * math.exp(2e-3))])
    assert answers([("a", 1, 0.5)], [("a", 1, 0.6)], "bf16")
    with pytest.raises(CaitError, match="1 of 1 images differ"):
        answers([("a", 1, 0.5)], [("a", 1, 0.9)], "bf16")
    many = [(str(number), 1, 0.5) for number in range(100)]
    assert answers(many, [*many[1:], ("0", 1, 0.9)], "bf16").startswith("99 images agree, 1 do not")
    with pytest.raises(CaitError, match="probability"):
        answers([("a", 1, 0.5)], [("a", 1, math.nan)])


def test_classes_that_are_tied_may_change_places(answers):
    assert answers([("a", 1, 0.3), ("a", 2, 0.29999)], [("a", 2, 0.3)])
    with pytest.raises(CaitError, match="the model says class 1"):
        answers([("a", 1, 0.3), ("a", 2, 0.29)], [("a", 2, 0.3)])


@pytest.mark.parametrize("model, inference", [([], []), ([("a", 1, 0.5)], []), ([], [("a", 1, 0.5)])])
def test_where_nothing_is_compared_it_fails(answers, model, inference):
    with pytest.raises(CaitError, match="nothing to compare"):
        answers(model, inference)


def test_every_image_must_be_on_both_sides(answers):
    with pytest.raises(CaitError, match="b: only in one of"):
        answers([("a", 1, 0.5), ("b", 1, 0.5)], [("a", 1, 0.5)])


def test_accuracy_is_counted_over_the_list(tmp_path):
    (tmp_path / "list.txt").write_text("infer/a b.jpg 1\ninfer/c.jpg 2\n")
    log = tmp_path / "a.log"
    log.write_text(
        "image_name: d/infer/a b.jpg, class_id: 1, class_name: x, prob: 0.5\n"
        "image_name: d/infer/c.jpg, class_id: 1, class_name: x, prob: 0.5\n"
    )
    assert "0.5000 on 2 images" in check_accuracy(log, tmp_path / "list.txt", "d", 0.5)
    with pytest.raises(CaitError, match="top-1 of inference is 0.5000 on 2 images; expected is 0.7840"):
        check_accuracy(log, tmp_path / "list.txt", "d", 0.784)
    (tmp_path / "list.txt").write_text("infer/c.jpg 2\n")
    with pytest.raises(CaitError, match="a b.jpg: has no label"):
        check_accuracy(log, tmp_path / "list.txt", "d", 0.5)
