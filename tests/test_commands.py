"""The commands as users type them: those of the README, verbatim, and how they fail."""

import re
import shlex
import shutil

import pytest

from cait.zoo import create_model
from conftest import MAIN, ROOT, run_python
from test_package import copy_checkout

LIMIT = 8  # training images of the small ImageNet


def code_blocks(readme):
    """The shell commands of a README, in order, with continued lines joined."""
    text = (ROOT / readme).read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


def test_both_readmes_have_the_same_commands():
    assert code_blocks("README.md") == code_blocks("README_cn.md")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, all_digits):
    """A copy of the project with a small ImageNet-like data set, and the seed's checkpoint with random weights."""
    import paddle
    from PIL import Image

    folder = tmp_path_factory.mktemp("a checkout")  # with a blank, as a user's path may have
    copy_checkout(folder)
    data = folder / "dataset" / "LSVRC2012"
    lines = {"train": [], "val": []}
    for split, count in (("train", LIMIT), ("val", 5)):
        for line in (all_digits / f"{split}_list.txt").read_text().splitlines()[:count]:
            name, label = line.split()
            target = (data / name).with_suffix(".JPEG")
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(all_digits / name) as image:
                image.convert("RGB").resize((200, 150)).save(target)
            lines[split].append(f"{target.relative_to(data)} {label}\n")
    for split in lines:
        (data / f"{split}_list.txt").write_text("".join(lines[split]))
    (data / "test_list.txt").write_text((folder / "txt" / "test_list.txt").read_text())
    sample = data / "train" / "n02100877" / "n02100877_10277.JPEG"
    sample.parent.mkdir()
    shutil.copy(target, sample)
    paddle.seed(0)
    paddle.save(create_model("cait_xxs24_224").state_dict(), str(folder / "CaiT" / "cait_xxs24_224.pdparams"))
    return folder


# Commands that need a network or the whole machine, or are tried as a whole by make and CI.
ELSEWHERE = ("git clone ", "cd ", "make ", "source ", "pip install ", "cp txt/", "python CaiT/prepare_data.py lists")
EXPECTED = {
    "-eval": r"Validation Loss: [\d.]+, Validation Acc@1: 0\.\d{4}, Validation Acc@5: 0\.\d{4}, time: ",
    "-pred": r"image_name: dataset/\S+, class_id: \d+, class_name: .*, prob: 0\.",
    "train": r"----- Epoch\[001/001\], Train Loss: [\d.]+, Train Acc: [\d.]+, time: ",
}


def python_commands():
    return [line for line in code_blocks("README.md") if not line.startswith(ELSEWHERE)]


@pytest.mark.parametrize("command", python_commands())
def test_readme_command(checkout, command):

    name, *words = shlex.split(command)
    assert name == "python"
    kind = next(
        (flag for flag in ("-eval", "-pred") if flag in words), "train" if "main_single_gpu" in words[0] else ""
    )
    if kind == "train" and not any(word.startswith("-epochs") for word in words):
        words.append("-epochs=1")
    result = run_python(*words, cwd=checkout)
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


@pytest.mark.parametrize(
    "words, exit_code, message",
    [
        (["-batch_size=0"], 2, "-batch_size: DATA.BATCH_SIZE must be a whole number from 1, not 0"),
        (["-o", "MODEL.DEPHT=3"], 2, "-o: unknown key MODEL.DEPHT (did you mean MODEL.DEPTH?)"),
        (["-foo"], 2, "unrecognized arguments: -foo; -h lists the flags"),
        (["-eval"], 2, "-eval and -pred need -pretrained=WEIGHTS"),
        (["-data_path=nowhere"], 1, "nowhere: no such data folder; -data_path=FOLDER names it"),
        (["-eval", "-pretrained=nowhere"], 1, "nowhere: no such checkpoint, with or without .pdparams"),
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
