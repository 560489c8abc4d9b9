"""Fixtures of several test files: a small data set, a tiny config, weights and bundles."""

import fcntl
import multiprocessing.process
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from hashlib import sha256

import pytest

from isolation import NO_PROCESSES, WORKER, copy_project, opened
from project import CLASS_NAMES, DIGITS, ROOT, TINY, TRAINED, run_python  # first of all: it isolates the tests


@pytest.fixture(autouse=True, scope="session")
def _in_the_copy():
    """Relative names lead into the copy too."""
    folder = os.getcwd()
    os.chdir(ROOT)
    yield
    os.chdir(folder)


# Files that take long: last, they would leave one of several workers with nothing to do.
LONG = re.compile(r"contract/|distributed/|doctor/|bench/|ops/|test_page|test_export")
# What the text of a test file has in it that starts processes, or has fixtures that do.
STARTS_PROCESSES = re.compile(
    r"run_python|subprocess|Popen|os\.fork|serving|num_workers|multiprocessing|\w+_bundle\b|demo_run|kills|ngpus"
)


def pytest_collection_modifyitems(config, items):
    """Puts the files first that take longest; for `make check`, leaves out those that start processes."""
    items.sort(key=lambda item: not LONG.search(str(item.path)))
    if os.environ.get(NO_PROCESSES):
        left_out = {path for path in {item.path for item in items} if STARTS_PROCESSES.search(path.read_text())}
        config.hook.pytest_deselected(items=[item for item in items if item.path in left_out])
        items[:] = [item for item in items if item.path not in left_out]


@pytest.fixture(autouse=True, scope="session")
def _no_processes():
    """For `make check`: a test that starts Python all the same fails, for STARTS_PROCESSES lacks its word.

    What libraries start once, such as the compiler and `fc-list`, may be started.
    """

    def fail(*_):
        pytest.fail("starts a process, which STARTS_PROCESSES in tests/conftest.py does not know")

    def started(process, words, *rest, **options):
        return fail() if sys.executable in words else popen(process, words, *rest, **options)

    popen = subprocess.Popen.__init__
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get(NO_PROCESSES):
            patch.setattr(subprocess.Popen, "__init__", started)
            patch.setattr(multiprocessing.process.BaseProcess, "start", fail)
            patch.setattr(os, "fork", fail)
        yield


@pytest.fixture(autouse=True)
def _nothing_of_the_users():
    yield
    assert not (found := opened()), f"the test read what belongs to the user: {found}"


@pytest.fixture(autouse=True)
def _float32_on_cpu():
    import paddle

    paddle.set_device("cpu")
    paddle.set_default_dtype("float32")
    paddle.seed(0)
    yield
    paddle.set_default_dtype("float32")


@pytest.fixture(scope="session")
def all_digits(tmp_path_factory) -> pathlib.Path:
    """The demo's data set."""
    from cait.data.prepare.digits import write_digits

    folder = tmp_path_factory.mktemp("data") / "digits"
    assert write_digits(folder)
    return folder


@pytest.fixture
def digits(all_digits, tmp_path) -> pathlib.Path:
    """A copy with 40 training, 20 validation and 10 test images, free to be damaged."""
    folder = tmp_path / "digits"
    folder.mkdir()
    shutil.copy(all_digits / "labels.txt", folder)
    for split, count in (("train", 40), ("val", 20), ("test", 10)):
        lines = (all_digits / f"{split}_list.txt").read_text().splitlines()[:count]
        (folder / f"{split}_list.txt").write_text("".join(f"{line}\n" for line in lines))
        for line in lines:
            name = line.split()[0]
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(all_digits / name, folder / name)
    return folder


@pytest.fixture
def learning_curves():
    """A test with this fixture has real pictures of learning curves, which take longer than a tiny run."""


@pytest.fixture
def tiny_config(request, digits, tmp_path, monkeypatch):
    """Makes a config of the tiny model on the small data set; arguments override keys."""
    from cait.config.read import make_config, parse_value
    from cait.files import replacing
    from cait.train import run

    def write_empty(runs, path, title):
        with replacing(path) as temporary:
            temporary.touch()

    if "learning_curves" not in request.fixturenames:
        monkeypatch.setattr(run, "plot_learning_curves", write_empty)

    def make(**overrides):
        values = TINY | {"DATA.DATA_PATH": str(digits), "OUTPUT_DIR": str(tmp_path / "run")}
        values |= {name.replace("__", "."): value for name, value in overrides.items()}
        return make_config({name: parse_value(name, value, "test") for name, value in values.items()})

    return make


@pytest.fixture(scope="session")
def tiny_yaml(tmp_path_factory) -> pathlib.Path:
    """The tiny model as a YAML file."""
    import yaml

    tree = {}
    for name, value in TINY.items():
        *section, key = name.split(".")
        (tree.setdefault(section[0], {}) if section else tree)[key] = value
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory, tiny_yaml):
    """A tiny model with random weights whose logits are of size 1."""
    from cait.align.golden import load_golden_weights
    from cait.config.read import make_config, read_yaml
    from cait.weights.write import save_weights
    from cait.zoo import build_model

    config = make_config(read_yaml(tiny_yaml))
    model = load_golden_weights(build_model(config))
    path = tmp_path_factory.mktemp("weights") / "tiny.pdparams"
    save_weights(model, path)
    return config, model, path


@pytest.fixture(scope="session")
def tiny_bundle(tiny_weights, tmp_path_factory):
    """Its bundle."""
    from cait.deploy.export import build_description, export

    config, model, path = tiny_weights
    folder = tmp_path_factory.mktemp("bundle")
    differences = export(model, build_description(config, CLASS_NAMES, path), folder)
    assert max(differences.values()) < 1e-5 and {"CPU", "CPU, oneDNN"} <= set(differences)
    return folder


def _made_once(tmp_path_factory, name, make):
    """A folder that one of pytest-xdist's workers makes, and all use and none changes."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if os.environ.get(WORKER) else own) / name
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            make(folder.with_name(f"{name}.new"))
            folder.with_name(f"{name}.new").rename(folder)
    return folder


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory):
    """The folder of the run that the README makes on the digits, by its commands: above 90 % are right."""

    def train(folder):
        copy_project(ROOT, folder)
        for command in (DIGITS, TRAINED):
            result = run_python(*shlex.split(command)[1:], cwd=folder)
            assert result.returncode == 0, result.stderr

    return _made_once(tmp_path_factory, "demo_checkout", train) / "output" / "digits"


@pytest.fixture(scope="session")
def demo_bundle(demo_run, tmp_path_factory):
    """Its bundle, with class attention."""

    def export(folder):
        words = [f"-cfg={demo_run / 'config.yaml'}", f"--model_path={demo_run / 'latest'}", "--with-attention"]
        result = run_python(str(ROOT / "CaiT" / "export_model.py"), *words, f"--save-inference-dir={folder}")
        assert result.returncode == 0, result.stderr

    return _made_once(tmp_path_factory, "demo_bundle", export)


@pytest.fixture
def timm():
    """timm, for comparisons with it; skips the test where it cannot be imported."""
    pytest.importorskip("torch")
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        pytest.skip(f"timm cannot be imported: {error}")
    return timm


@pytest.fixture(scope="session")
def full_bundle(tiny_weights, tiny_yaml, tmp_path_factory):
    """A bundle with everything in it, by command."""
    folder = tmp_path_factory.mktemp("full")
    _, _, path = tiny_weights
    words = [f"--config_dir={tiny_yaml}", f"--model_path={path.with_suffix('')}", f"--save-inference-dir={folder}"]
    result = run_python(str(ROOT / "CaiT" / "export_model.py"), *words, "--onnx", "--with-attention")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith(sha256((folder / "inference.yaml").read_bytes()).hexdigest())
    assert f"exported: tiny to {folder}" in result.stdout and "ONNX Runtime: the outputs differ" in result.stdout
    return folder
