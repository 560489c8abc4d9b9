"""The commands as users type them: those of the README and of some pages, verbatim, and how they fail."""

import contextlib
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from cait.zoo import create_model
from isolation import copy_project
from project import MAIN, ROOT, TRAINED, run_python

# Pages whose shell commands are run, after one another and in one folder.
RUN = (
    "README.md",
    "dataset/README.md",
    *(f"docs/{name}.md" for name in ("evaluation", "distributed", "visualize", "deployment", "gpu")),
)


def code_blocks(page):
    """The shell commands of a page, in order, with continued lines joined and without comments."""
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ")
    lines = re.sub(r" +# .*", "", lines).splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


WORDNET_IDS = ("n01440764", "n02100877", "n03445777", "n04005630")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, all_digits):
    """A copy of the project with 8 training and 4 validation images laid out as ImageNet, and random weights."""
    import paddle
    from PIL import Image

    folder = copy_project(ROOT, tmp_path_factory.mktemp("a checkout"))  # with a blank, as a user's path may have
    data = folder / "dataset" / "LSVRC2012"
    digits = [line.split()[0] for line in (all_digits / "train_list.txt").read_text().splitlines()]
    names = [f"train/{wordnet_id}/{wordnet_id}_{number}.JPEG" for wordnet_id in WORDNET_IDS for number in (7, 10277)]
    names += [f"valid/{wordnet_id}/ILSVRC2012_val_0000000{i}.JPEG" for i, wordnet_id in enumerate(WORDNET_IDS)]
    for name, digit in zip(names, digits):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(all_digits / digit) as image:
            image.convert("RGB").resize((200, 150)).save(data / name)
    paddle.seed(0)
    paddle.save(create_model("cait_xxs24_224").state_dict(), str(folder / "CaiT" / "cait_xxs24_224.pdparams"))
    return folder


# What needs a network, is tried by CI as a whole, or is a matter of the shell; the download is in test_download.py.
# The checks of the doctor are in test_doctor.py.
ELSEWHERE = (
    *("git clone ", "cd ", "make ", "source ", "pip install "),
    *("python CaiT/convert_weights.py --variant", "python CaiT/doctor.py --check"),
)
EXPECTED = {
    "-eval": r"Validation Loss: [\d.]+, Validation Acc@1: [01]\.\d{4}, Validation Acc@5: [01]\.\d{4}, time: ",
    "-pred": r"image_name: dataset/\S+, class_id: \d+, class_name: .*, prob: 0\.",
    "train": r"----- Epoch\[(\d+)/\1\], Train Loss: [\d.]+, Train Acc: [\d.]+, time: ",
    "tipc": r"\n\d+ passed, 0 failed, 0 skipped\nPASSED\n$",
}


def runnable_commands():
    """TIPC's take a minute, and are run with each PaddlePaddle for the tiny model in test_tipc_runs.py."""
    lines = [line for page in RUN for line in code_blocks(page) if not line.startswith(ELSEWHERE)]
    return [pytest.param(line, marks=pytest.mark.any_paddle if "test_tipc" in line else ()) for line in lines]


@pytest.mark.timeout(600)  # which TIPC's commands promise
@pytest.mark.parametrize("command", runnable_commands())
def test_readme_command(request, checkout, command):
    """In the order of the README: the lists are written and copied before they are read."""
    if command == TRAINED:  # which was run for many tests, as it stands
        run = request.getfixturevalue("demo_run")
        shutil.copytree(run, checkout / "output" / "digits")
        assert re.search(EXPECTED["train"], (run / "log_train.txt").read_text())
        return
    words = shlex.split(command)
    kind = "train" if "main_single_gpu" in command else ""
    kind = next((flag for flag in ("-eval", "-pred") if flag in words), kind)
    kind = "tipc" if "test_train_inference_python.sh" in command else kind
    if kind == "train" and "-epochs" not in command:
        command += " -epochs=1"
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-c", command], cwd=checkout, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    if kind:
        assert re.search(EXPECTED[kind], result.stdout), result.stdout


def test_the_seeds_commands_are_in_the_readme():
    commands = code_blocks("README.md")
    flags = (
        "-cfg='CaiT/configs/cait_xxs24_224.yaml' -dataset='imagenet2012' -batch_size={} "
        "-data_path='dataset/LSVRC2012' -pretrained='CaiT/cait_xxs24_224' {}"
    )
    train = (
        "-cfg='CaiT/configs/cait_xxs24_224.yaml' -dataset='imagenet2012' -batch_size=256 "
        "-pretrained='CaiT/cait_xxs24_224' -data_path='dataset/LSVRC2012'"
    )
    for expected in (train, flags.format(64, "-eval"), flags.format(64, "-pred")):
        assert f"python CaiT/main_single_gpu.py {expected}" in commands
    for script in ("prepare.sh", "test_train_inference_python.sh"):
        words = "test_tipc/configs/CaiT/train_infer_python.txt 'lite_train_lite_infer'"
        assert f"bash test_tipc/{script} {words}" in commands


@pytest.mark.parametrize(
    "words, exit_code, message",
    [
        (["-batch_size=0"], 2, "-batch_size: DATA.BATCH_SIZE must be a whole number from 1, not 0"),
        (["-o", "MODEL.DEPHT=3"], 2, "-o: unknown key MODEL.DEPHT (did you mean MODEL.DEPTH?)"),
        (["-foo"], 2, "unrecognized arguments: -foo; -h lists the flags"),
        (["-eval"], 2, "-eval and -pred need -pretrained=WEIGHTS"),
        (["-data_path=nowhere"], 1, "nowhere: no such data folder; -data_path=FOLDER names it"),
    ],
)
def test_an_error_is_one_sentence(tiny_yaml, digits, words, exit_code, message):
    if not any(word.startswith("-data_path") for word in words):
        words = [f"-data_path={digits}", *words]
    result = run_python(MAIN, f"-cfg={tiny_yaml}", *words)
    assert (result.returncode, result.stderr) == (exit_code, f"error: {message}\n")


def test_help_shows_the_flags():
    result = run_python(MAIN, "-h")
    assert result.returncode == 0 and "-output_dir" in result.stdout and "docs/config.md" in result.stdout


def test_a_run_goes_on_when_the_reader_of_its_lines_is_gone(tiny_yaml, digits, tmp_path):
    words = [sys.executable, MAIN, f"-cfg={tiny_yaml}", f"-data_path={digits}", f"-output_dir={tmp_path / 'run'}"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors) == (0, "")
    assert "saved latest" in (tmp_path / "run" / "log_train.txt").read_text()


def start(*words):
    """Starts a run and waits until it trains."""
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, to be sent signals
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )
    while "Now training epoch" not in process.stdout.readline():
        assert process.poll() is None, process.stderr.read()
    return process


SIGNALS = [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]


@pytest.mark.parametrize("number, exit_code, word", SIGNALS)
def test_a_signal_ends_a_run_in_one_line(tiny_yaml, digits, tmp_path, number, exit_code, word):
    """Sent to all of its processes, as a terminal, SLURM and systemd do; some read images at that moment."""
    words = [MAIN, f"-cfg={tiny_yaml}", f"-data_path={digits}", f"-output_dir={tmp_path / 'run'}", "-epochs=10000"]
    process = start(*words, "-o", "DATA.NUM_WORKERS=2")
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < 2:
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (exit_code, f"error: {word}\n")


def test_the_end_of_a_reading_process_is_one_clear_error(tiny_yaml, all_digits, tmp_path):
    words = [MAIN, f"-cfg={tiny_yaml}", f"-data_path={all_digits}", f"-output_dir={tmp_path / 'run'}", "-epochs=100"]
    process = start(*words, "-o", "DATA.NUM_WORKERS=1")
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:  # again and again: a process that had just done its work would not be missed
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("error: a process that reads images ended")
    assert "Traceback" not in errors


def test_reading_processes_do_not_outlive_a_killed_run(tiny_yaml, all_digits, tmp_path):
    words = [MAIN, f"-cfg={tiny_yaml}", f"-data_path={all_digits}", f"-output_dir={tmp_path / 'run'}", "-epochs=100"]
    process = start(*words, "-o", "DATA.NUM_WORKERS=2")
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < 2:
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=20)  # which waits for the workers too: they hold the other end of the pipes


def test_a_file_name_need_not_be_text(tiny_yaml, digits, tmp_path):
    weights = tmp_path / "run" / "latest"
    first = [MAIN, f"-cfg={tiny_yaml}", f"-data_path={digits}"]
    assert run_python(*first, "-epochs=1", f"-output_dir={tmp_path / 'run'}").returncode == 0
    image = next((digits / "val").rglob("*.png"))
    (digits / "test").mkdir()
    shutil.copy(image, os.fsencode(digits / "test") + b"/\xe9.png")
    result = run_python(*first, "-dataset=folder", "-pred", f"-pretrained={weights}", f"-output_dir={tmp_path / 'run'}")
    assert result.returncode == 0, result.stderr
    assert "\\udce9.png" in (tmp_path / "run" / "predictions.csv").read_text()
