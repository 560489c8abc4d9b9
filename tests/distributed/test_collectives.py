"""Several processes: they stay equal bit by bit, count exactly, equal one process, and end together."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import paddle
import pytest

from cait.distributed import collectives
from cait.weights.read import load_tensors
from project import MAIN, ROOT, run_python
from runs import WHOLE_RECIPE, assert_ends_equal, assert_same_weights, rows_of, without_timing

HELPER = ROOT / "tests" / "helpers" / "dist_parameters.py"
END_SECONDS = 30  # within which all processes end when one is gone


def words(tiny_yaml, data, folder, *more):
    return [MAIN, f"-cfg={tiny_yaml}", f"-data_path={data}", f"-output_dir={folder}", *more]


def launched(processes, tmp_path, *command):
    return [
        "-m", "paddle.distributed.launch", "--nproc_per_node", str(processes), f"--log_dir={tmp_path / 'launch'}",
        *command,
    ]  # fmt: skip


def keys(recipe):
    return ["-o", *(f"{name}={value}" for name, value in recipe.items())]


@pytest.fixture
def odd_digits(digits):
    """41 training and 19 validation images: neither 2 nor 3 processes share them evenly; one cannot be read."""
    for split, count in (("train", 41), ("val", 19)):
        lines = (digits / f"{split}_list.txt").read_text().splitlines()
        (digits / f"{split}_list.txt").write_text("".join(f"{line}\n" for line in (lines + lines[:1])[:count]))
    return digits


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_every_parameter_is_equal_in_all_processes_after_20_steps(tiny_yaml, odd_digits, tmp_path, processes):
    (odd_digits / (odd_digits / "train_list.txt").read_text().split()[0]).write_bytes(b"no image")
    recipe = WHOLE_RECIPE | {"SAVE_STEPS": 0, "DATA.BATCH_SIZE": 2, "TRAIN.NUM_EPOCHS": 6, "TRAIN.BASE_LR": 0.05}
    recipe["MODEL.INIT_VALUES"] = 0.1
    command = [HELPER, tmp_path / "weights", *words(tiny_yaml, odd_digits, tmp_path / "run", *keys(recipe))[1:]]
    result = run_python(*launched(processes, tmp_path, *command))
    assert result.returncode == 0, result.stdout + result.stderr
    assert rows_of(tmp_path / "run")[-1]["step"] >= 20
    all_of_them = [np.load(f"{tmp_path / 'weights'}{rank}.npz") for rank in range(processes)]
    fresh = {name for name in all_of_them[0].files if name.endswith("/start")}
    assert len(all_of_them[0].files) > 2 * len(fresh) > 0
    for other in all_of_them[1:]:
        assert set(other.files) == set(all_of_them[0].files)
        for name in other.files:
            assert np.array_equal(all_of_them[0][name], other[name]), name
    for name in fresh:  # and every one of them was trained, but for a bias that changes nothing
        if name.endswith("proj_l.bias/start"):
            continue
        assert not np.array_equal(all_of_them[0][name], all_of_them[0][name.removesuffix("/start")]), name


def losses_and_weights(folder):
    """The loss of every step, and the weights at the end."""
    log = (folder / "log_train.txt").read_text()
    assert "32 images a step" in log
    return json.loads((folder / "steps0.json").read_text()), load_tensors(folder / "latest.pdparams")


def test_two_processes_with_half_the_batch_equal_one(tiny_yaml, all_digits, odd_digits, tmp_path):
    """In each of 20 steps; an epoch's 41 images make one of 32 and one of 9."""
    plain = {
        "AUG.CROP_SCALE": [1, 1], "AUG.CROP_RATIO": [1, 1], "AUG.HFLIP": 0, "MODEL.DROP_PATH": 0,
        "MODEL.INIT_VALUES": 0.1, "TRAIN.LINEAR_SCALED_LR": 32, "TRAIN.GRAD_CLIP": 1.0, "VALIDATE_FREQ": 0,
        "SAVE_STEPS": 1,
    }  # fmt: skip
    plain = {name: str(value).replace(" ", "") for name, value in plain.items()}
    for processes, batch in ((1, 32), (2, 16)):
        command = words(
            tiny_yaml, odd_digits, tmp_path / str(processes), f"-ngpus={processes}", f"-batch_size={batch}",
            "-epochs=10", *keys(plain),
        )  # fmt: skip
        result = run_python(HELPER, "steps", *command[1:])
        assert result.returncode == 0, result.stderr
    (one, weights), (two, others) = (losses_and_weights(tmp_path / str(processes)) for processes in (1, 2))
    assert len(one) == len(two) == rows_of(tmp_path / "2")[-1]["step"] == 20
    assert max(one) - min(one) > 0.01
    assert one == pytest.approx(two, abs=1e-5)
    for name in weights:
        np.testing.assert_allclose(weights[name], others[name], atol=1e-4, err_msg=name)


def test_evaluation_counts_the_same_in_one_two_and_three_processes(tiny_yaml, odd_digits, tiny_weights, tmp_path):
    """In float64: the rounding of float32 logits depends on the batch that an image is in. Two images are bad."""
    lines = (odd_digits / "val_list.txt").read_text().splitlines()
    for index in (0, 6):
        (odd_digits / lines[index].split()[0]).write_bytes(b"no image")
    for count in (19, 2):  # of 2 images, the last of 3 processes has none
        (odd_digits / "val_list.txt").write_text("".join(f"{line}\n" for line in lines[:count]))
        results = {}
        for processes in (1, 2, 3) if count == 19 else (1, 3):
            folder = tmp_path / f"{count}-{processes}"
            more = [f"-ngpus={processes}", "-eval", f"-pretrained={tiny_weights[2]}", "-batch_size=4"]
            more += ["-o", "EVALUATE.CONFUSION=true"]
            result = run_python(HELPER, "float64", *words(tiny_yaml, odd_digits, folder, *more)[1:])
            assert result.returncode == 0, result.stderr
            counts = json.loads((folder / "evaluation.json").read_text())
            assert counts["num_images"] == count and counts["unreadable"] == (2 if count == 19 else 1)
            results[processes] = counts, (folder / "confusion.csv").read_text(), (folder / "per_class.csv").read_text()
        for processes in set(results) - {1}:
            assert results[processes][1:] == results[1][1:]
            for name in ("num_images", "unreadable", "correct_at_1", "correct_at_5"):
                assert results[processes][0][name] == results[1][0][name]
            assert results[processes][0]["loss"] == pytest.approx(results[1][0]["loss"], rel=1e-12, abs=0)


def test_prediction_in_two_processes_writes_one_list(tiny_yaml, digits, tiny_weights, tmp_path):
    for processes in (1, 2):
        more = [f"-ngpus={processes}", "-pred", f"-pretrained={tiny_weights[2]}"]
        result = run_python(*words(tiny_yaml, digits, tmp_path / str(processes), *more))
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "1" / "predictions.csv").read_text() == (tmp_path / "2" / "predictions.csv").read_text()


def stop_at(folder, process, condition):
    while process.poll() is None and not condition():
        time.sleep(0.005)
    assert process.poll() is None, "the run ended too early"


def workers(process):
    """The processes that a run consists of, by rank."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = {}
    for child in map(int, children):
        variables = pathlib.Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found |= {int(v[18:]): child for v in variables if v.startswith(b"PADDLE_TRAINER_ID=")}
    return found


def started(*command, until, **options):
    """A run in processes, once a line that contains `until` was printed."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options,
    )  # fmt: skip
    while until not in process.stdout.readline():
        assert process.poll() is None, process.stderr.read()
    return process


def test_two_processes_resume_within_an_epoch_and_refuse_another_number(tiny_yaml, odd_digits, tmp_path):
    for line in (odd_digits / "train_list.txt").read_text().splitlines()[:3]:
        (odd_digits / line.split()[0]).write_bytes(b"no image")
    recipe = keys(WHOLE_RECIPE | {"DATA.BATCH_SIZE": 2, "SAVE_STEPS": 1, "TRAIN.NUM_EPOCHS": 3})
    result = run_python(*words(tiny_yaml, odd_digits, tmp_path / "unbroken", "-ngpus=2", *recipe))
    assert result.returncode == 0, result.stderr
    assert rows_of(tmp_path / "unbroken")[0]["skipped_images"] > 0
    folder = tmp_path / "killed"
    process = started(*words(tiny_yaml, odd_digits, folder, "-ngpus=2", *recipe), until="epoch 2. LR")

    def in_epoch_2():
        rows = rows_of(folder) if (folder / "metrics.jsonl").is_file() else []
        return len(rows) == 1 and "in_epoch" in load_tensors(folder / "latest.pdstates")["progress"]

    stop_at(folder, process, in_epoch_2)
    for pid in workers(process).values():
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=END_SECONDS)
    assert "in_epoch" in load_tensors(folder / "latest.pdstates")["progress"]
    refused = run_python(MAIN, f"-resume={folder}")
    assert refused.returncode == 2 and "number of processes 2, not 1" in refused.stderr
    result = run_python(MAIN, f"-resume={folder}", "-ngpus=2")
    assert result.returncode == 0, result.stderr
    assert "within epoch" in result.stdout
    assert_ends_equal(tmp_path / "unbroken", folder)
    more = run_python(MAIN, f"-resume={folder}", "-epochs=4", "-ngpus=3")  # between epochs any number will do
    assert more.returncode == 0, more.stderr
    assert len(rows_of(folder)) == 4
    changes = r"processes 3, not 2; images a step 12, not 8; peak learning rate (\S+), not (\S+)\n"
    found = re.search(f"other than before the checkpoint: {changes}", more.stdout)
    assert float(found[1]) == pytest.approx(1.5 * float(found[2]), rel=1e-4)
    assert "other than before" not in result.stdout


def test_a_killed_process_ends_the_others(tiny_yaml, all_digits, tmp_path):
    command = words(tiny_yaml, all_digits, tmp_path / "run", "-ngpus=2", "-epochs=1000")
    process = started(*command, until="Step[0000")
    ranks = workers(process)
    os.kill(ranks[1], signal.SIGKILL)
    begin = time.monotonic()
    _, errors = process.communicate(timeout=END_SECONDS)
    assert time.monotonic() - begin < END_SECONDS / 3  # a closed connection is seen at once
    assert process.returncode == 1
    # What the other process was about to print when it was ended may follow.
    assert errors.startswith("error: process 1 ended without a word: it was killed, or crashed")
    assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in ranks.values())


@pytest.mark.parametrize(
    "number, exit_code, word", [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_ends_all(tiny_yaml, all_digits, tmp_path, number, exit_code, word):
    process = started(*words(tiny_yaml, all_digits, tmp_path / "run", "-ngpus=2", "-epochs=1000"), until="Step[0000")
    process.send_signal(number)
    _, errors = process.communicate(timeout=END_SECONDS)
    assert (process.returncode, errors) == (exit_code, f"error: {word}\n")


@pytest.mark.slow
def test_a_silent_process_ends_the_others(tiny_yaml, all_digits, tmp_path):
    """After 6 s; that it is 30 s where nobody says otherwise is seen between two hosts."""
    command = words(tiny_yaml, all_digits, tmp_path / "run", "-ngpus=2", "-epochs=1000")
    process = started(HELPER, "silence6", *command[1:], until="Step[0000")
    os.kill(workers(process)[1], signal.SIGSTOP)
    _, errors = process.communicate(timeout=2 * END_SECONDS)
    assert process.returncode == 1
    assert errors == "error: nothing was heard of process 1 for 6 s: its machine or the network fails\n"


@pytest.mark.parametrize("launcher", [False, True])
def test_what_one_process_cannot_read_ends_all_with_its_reason(tiny_yaml, digits, tmp_path, launcher):
    """Process 0 looks at the images before training; without that, it is process 1 which has to read this one."""
    lines = (digits / "val_list.txt").read_text().splitlines()
    broken = digits / lines[1].split()[0]  # an image of process 1
    broken.write_bytes(b"no image")
    command = words(tiny_yaml, digits, tmp_path / "run", "-epochs=3", "-o", "EVALUATE.ON_BAD_IMAGE=error")
    looks = ["-o", f"DATA.CHECK_SECONDS={5 if launcher else 0}"]
    command = launched(2, tmp_path, *command, *looks) if launcher else [*command, *looks, "-ngpus=2"]
    result = run_python(*command)
    sentence = rf"error: .*{re.escape(broken.name)}.* \(process {0 if launcher else 1} of 2\)\n"
    assert result.returncode == 1 and re.search(sentence, result.stderr + result.stdout)
    assert "Traceback" not in result.stderr + result.stdout
    assert launcher or re.fullmatch(sentence, result.stderr)
    assert launcher or (tmp_path / "run" / "latest.pdstates").is_file()  # of the epoch before the validation


RECIPE = {"TRAIN.ACCUM_ITER": 2, "TRAIN.GRAD_CLIP": 1.0, "TRAIN.EMA_DECAY": 0.9, "AUG.MIXUP": 0.8}


def test_no_number_is_read_while_pythons_lock_is_held(tiny_yaml, digits, tmp_path):
    """The others of a run would take a process for gone that waits so for a GPU, which waits for them."""
    more = ["-ngpus=2", "-epochs=2", *keys(RECIPE)]
    result = run_python(HELPER, "reads", *words(tiny_yaml, digits, tmp_path / "run", *more)[1:])
    assert result.returncode == 0 and not result.stderr, result.stderr


def test_a_loss_that_is_not_finite_in_one_process_is_named_by_it(tiny_yaml, digits, tmp_path):
    command = [HELPER, "nan", *words(tiny_yaml, digits, tmp_path / "run", "-ngpus=2")[1:]]
    result = run_python(*command)
    assert result.returncode == 1
    assert re.fullmatch(r"error: the loss is nan at epoch 1, step 0, .* \(process 1 of 2\)\n", result.stderr)


def test_wrong_numbers_of_processes_are_one_sentence(tiny_yaml, digits, tmp_path):
    command = words(tiny_yaml, digits, tmp_path / "run", "-ngpus=3")
    result = run_python(*launched(2, tmp_path, *command))
    assert result.returncode == 2 and "error: -ngpus=3, but the launcher started 2" in result.stdout + result.stderr
    result = run_python(*words(tiny_yaml, digits, tmp_path / "run", "-ngpus=0"))
    assert (result.returncode, result.stderr) == (2, "error: -ngpus: NGPUS must be a whole number from 1, not 0\n")


@pytest.mark.slow
def test_a_finished_run_is_equal_however_it_is_started(tiny_yaml, digits, tmp_path):
    command = words(tiny_yaml, digits, tmp_path / "own", "-ngpus=2", "-epochs=1")
    assert run_python(*command).returncode == 0
    command = words(tiny_yaml, digits, tmp_path / "launcher", "-epochs=1")
    assert run_python(*launched(2, tmp_path, *command)).returncode == 0
    assert_same_weights(tmp_path / "own" / "latest.pdparams", tmp_path / "launcher" / "latest.pdparams")
    assert without_timing(rows_of(tmp_path / "own")) == without_timing(rows_of(tmp_path / "launcher"))


@pytest.mark.slow
def test_two_hosts_end_together_and_resume(tiny_yaml, all_digits, tmp_path):
    script = [ROOT / "tests" / "helpers" / "two_hosts.sh", tmp_path / "two", sys.executable, MAIN]
    more = [f"-cfg={tiny_yaml}", f"-data_path={all_digits}", "-epochs=12"]
    result = subprocess.run(["bash", *map(str, script), *more], cwd=ROOT, capture_output=True, text=True, timeout=400)
    if result.returncode == 77:
        pytest.skip(result.stdout.strip())
    assert result.returncode == 0, result.stdout + result.stderr
    assert "host 0" in result.stdout and "nothing was heard of process 1 for 30 s" in result.stdout
    assert [row["epoch"] for row in rows_of(tmp_path / "two" / "run")] == list(range(1, 13))


@pytest.mark.parametrize("device", ["cpu", "gpu:0"])
def test_collectives_on_the_cpu_begin_when_all_are_there(monkeypatch, device):
    """Gloo gives up on a process that comes 30 s later; on GPUs, all would wait for what was computed before."""
    order = []
    monkeypatch.setattr(collectives, "world_size", lambda: 2)
    monkeypatch.setattr(collectives, "gather", lambda value: order.append("meet"))
    monkeypatch.setattr(collectives.distributed, "all_reduce", lambda values: order.append("sum"))
    monkeypatch.setattr(collectives.distributed, "broadcast", lambda values, src: order.append("broadcast"))
    monkeypatch.setattr(paddle.device, "get_device", lambda: device)
    parameter = paddle.create_parameter([3], "float32")
    parameter.sum().backward()
    collectives.sum_gradients([parameter])
    collectives.sum_over_processes(paddle.ones([2]))
    collectives.broadcast([parameter])
    meet = ["meet"] if device == "cpu" else []
    assert order == [*meet, "sum", *meet, "sum", *meet, "broadcast"]
