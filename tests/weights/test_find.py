"""Which files a name means, what is said where there are none, and that no permission is called no permission."""

import builtins
import os
import pathlib

import pytest

from cait.config.flags import check_checkpoints, parse_command
from cait.config.read import read_yaml
from cait.data.cifar import cifar_archive
from cait.data.labels import read_class_names
from cait.data.sources import read_list
from cait.deploy.bundle import read_description
from cait.errors import CaitError
from cait.files import is_file
from cait.weights import checkpoints, find
from cait.weights.read import load_tensors, read_torch_layout, read_weights
from project import GOLDEN, MAIN, ROOT, run_python

LITE = "python CaiT/prepare_data.py lite --weights=CaiT/cait_"


@pytest.fixture
def run(tmp_path):
    """The folder of a run in a folder of runs; its checkpoints are empty files."""
    folder = tmp_path / "output" / "my_run"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("SEED: 1\n")
    for name in ("latest", "best_model", "epoch_9", "epoch_10"):
        for suffix in (find.WEIGHTS, find.STATES):
            (folder / f"{name}{suffix}").touch()
    return folder


def test_the_folder_of_a_run_is_its_best_model(run):
    assert find.find_weights(run) == find.find_weights(run / "best_model") == run / "best_model.pdparams"
    with pytest.raises(CaitError) as caught:
        (run / "best_model.pdparams").unlink()
        (run / "best_model.pdstates").unlink()
        find.find_weights(run)
    names = f"{run}/epoch_9, {run}/epoch_10, {run}/latest"
    assert str(caught.value) == f"{run}: a folder without best_model; name one of its checkpoints: {names}"


def test_a_file_counts_before_the_folder_of_its_name(run):
    (run.parent / "my_run.pdparams").touch()
    assert find.find_weights(run) == run.parent / "my_run.pdparams"


@pytest.mark.parametrize("search", [find.find_weights, checkpoints.check_can_resume])
@pytest.mark.parametrize(
    "name, words",
    [
        ("output/my_run/best_modle", "; did you mean {}/output/my_run/best_model?"),
        ("output/my_rum", "; did you mean {}/output/my_run?"),
        ("output/my_run/x.pdparams", "x.pdparams: no such checkpoint; there are {0}/output/my_run/best_model, {0}"),
        ("outputs/my_run/latest", "; there is no folder {}/outputs"),
    ],
)
def test_a_misspelt_checkpoint_is_told_with_what_is_there(run, tmp_path, search, name, words):
    with pytest.raises(CaitError) as caught:
        search(tmp_path / name)
    assert f"{tmp_path / name}: no such checkpoint" in str(caught.value)
    assert words.format(tmp_path) in str(caught.value)


def test_resuming_takes_what_it_took(run, tmp_path):
    (tmp_path / "weights.pdparams").touch()
    (tmp_path / "began").mkdir()
    (tmp_path / "began" / "config.yaml").touch()
    names = ("", "latest", "latest.pdstates", "epoch_9.pdparams")
    for path in (*(run / name for name in names), tmp_path / "weights", tmp_path / "began"):
        checkpoints.check_can_resume(path)
    for file in (*run.glob("latest.*"), run / "config.yaml"):
        file.unlink()
    with pytest.raises(CaitError, match="a folder without latest; name one of its checkpoints: .*best_model, "):
        checkpoints.check_can_resume(run)


def test_the_checkpoint_is_missed_before_the_data(tmp_path):
    """By a process: in the order in which a user reads the command, and without loading Paddle."""
    for flags in (["-resume=output/typo"], ["-pretrained=typo", "-eval"], ["-pretrained=typo", "-pred"]):
        result = run_python(MAIN, *flags, "-data_path=nowhere", cwd=tmp_path)
        assert result.returncode == 1 and "typo: no such checkpoint" in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1 and "nowhere" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_resumed_run_does_not_need_the_weights_that_it_started_from(run):
    check_checkpoints(parse_command([f"-resume={run}", "-o", "MODEL.PRETRAINED="]))
    (run / "config.yaml").write_text("MODEL: {PRETRAINED: gone}\n")
    check_checkpoints(parse_command([f"-resume={run}"]))


@pytest.mark.parametrize("name", ["cait_xxs24_224", "cait_s24_384.pdparams", "cait_m48_448.pth"])
def test_missing_published_weights_say_where_they_come_from(tmp_path, name):
    (tmp_path / "CaiT").mkdir()
    (tmp_path / "CaiT" / "cait_xs24_384.pdparams").touch()
    variant = name.split(".")[0]
    with pytest.raises(CaitError) as caught:
        find.find_weights(tmp_path / "CaiT" / name)
    message = str(caught.value)
    assert f"`python CaiT/convert_weights.py --variant {variant}` downloads" in message
    assert "--base-url=https://hf-mirror.com" in message
    assert f"{LITE}{variant.removeprefix('cait_')}" in message
    assert ("-cfg=" in message) == (variant != "cait_xxs24_224")


README_COMMANDS = [  # sections 4.1 to 4.3, 4.7, 5.1, 5.2 and 5.4
    ("main_single_gpu.py", "-pretrained=CaiT/cait_xxs24_224 -data_path=dataset/LSVRC2012"),
    ("main_single_gpu.py", "-pretrained=CaiT/cait_xxs24_224 -data_path=dataset/LSVRC2012 -eval"),
    ("main_single_gpu.py", "-pretrained=CaiT/cait_xxs24_224 -data_path=dataset/LSVRC2012 -pred"),
    ("visualize.py", "--img-path=dataset/LSVRC2012/train/a.JPEG --figures class_attention rollout"),
    ("export_model.py", ""),
    ("infer.py", "--img-path=a.png"),
    ("serve.py", "--port=0"),
    ("visualize.py", "--img-path=a.png --model_dir=CaiT/infer"),
    (
        "check_alignment.py",
        "--deploy CaiT/infer --weights CaiT/cait_xxs24_224.pdparams --images dataset",
    ),
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The scripts, without weights, bundle or data."""
    import shutil

    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "CaiT", folder / "CaiT", ignore=shutil.ignore_patterns("*.pd*", "infer", "__pycache__"))
    shutil.copy(next(GOLDEN.rglob("*.png"), ROOT / "docs" / "serve" / "page.png"), folder / "a.png")
    return folder


@pytest.mark.parametrize("script, words", README_COMMANDS, ids=lambda value: value.split(" ")[0])
def test_without_weights_every_command_of_the_readme_says_the_next_step(checkout, script, words):
    result = run_python(f"CaiT/{script}", *words.split(), cwd=checkout)
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
    if script in ("infer.py", "serve.py", "check_alignment.py") or "--model_dir" in words:
        wanted = ("holds no bundle", "python CaiT/export_model.py --save-inference-dir=", "`make demo`")
    else:
        wanted = ("no such checkpoint", "python CaiT/convert_weights.py --variant cait_xxs24_224", LITE)
    for text in wanted:
        assert text in result.stderr


@pytest.fixture
def no_permission(monkeypatch):
    """Lets the system refuse to open files of one name, as it does without permission; root would be let in."""

    def refuse(name):
        real = builtins.open

        def guarded(file, *args, **options):
            if not isinstance(file, int) and pathlib.Path(os.fsdecode(file)).name == name:
                raise PermissionError(13, "Permission denied", str(file))
            return real(file, *args, **options)

        monkeypatch.setattr(builtins, "open", guarded)
        monkeypatch.setattr("io.open", guarded)

    return refuse


READERS = {
    "a.pdparams": read_weights,
    "a.pdstates": load_tensors,
    "a.safetensors": read_torch_layout,
    "a.pth": read_torch_layout,
    "a.yaml": read_yaml,
    "inference.yaml": lambda path: read_description(path.parent),
    "val_list.txt": lambda path: read_list(path, path.parent, 3),
    "labels.txt": read_class_names,
    "cifar-10-python.tar.gz": lambda path: cifar_archive(path.parent, "cifar10"),
}


@pytest.mark.parametrize("name", READERS)
def test_no_permission_is_reported_as_such(tmp_path, no_permission, name):
    (tmp_path / name).write_bytes(b"0 name\n")
    no_permission(name)
    with pytest.raises(CaitError, match=rf"{name}: cannot be read \(permission denied\)$"):
        READERS[name](tmp_path / name)


def test_a_folder_that_may_not_be_entered_is_not_an_absent_file(tmp_path, monkeypatch):
    real = os.stat

    def guarded(path, **options):
        if str(path).endswith("secret/a.pdparams"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **options)

    monkeypatch.setattr(os, "stat", guarded)
    with pytest.raises(CaitError, match=r"secret/a.pdparams: cannot be read \(permission denied\)$"):
        find.find_weights(tmp_path / "secret" / "a")
    assert not is_file(tmp_path / "absent") and not is_file(tmp_path)
