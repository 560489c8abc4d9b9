"""The package as `pip install .` leaves it."""

import os
import subprocess
import sys

import pytest

from isolation import copy_project
from project import ROOT, SCRIPTS, run_python


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The tracked files, copied: building a package writes beside its sources."""
    return copy_project(ROOT, tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def installed(checkout, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", folder, checkout]
    result = run_python(*words)
    assert result.returncode == 0, result.stderr
    return folder


def run_installed(installed, tmp_path, code):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    words = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)


def test_create_model_works_once_installed(installed, tmp_path):
    code = (
        "import cait, paddle; assert 'installed' in cait.__file__;"
        "assert len(cait.list_models()) == 10;"
        "model = cait.create_model('cait_xxs24_224', num_classes=7, depth=1);"
        "paddle.save(model.state_dict(), 'weights.pdparams');"
        "other = cait.create_model('cait_xxs24_224', pretrained='weights', num_classes=7, depth=1);"
        "assert (other.head.weight == model.head.weight).all();"
        "other.eval(); print(list(other(paddle.zeros([1, 3, 224, 224])).shape));"
        "from cait.data.labels import imagenet1k_wordnet_ids; assert len(imagenet1k_wordnet_ids()) == 1000"
    )
    result = run_installed(installed, tmp_path, code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[1, 7]"


def test_every_module_is_installed(installed):
    def modules(folder):
        return {path.relative_to(folder) for suffix in ("py", "cc", "h") for path in folder.rglob(f"*.{suffix}")}

    assert modules(ROOT / "CaiT" / "cait") <= modules(installed / "cait")


def test_an_unknown_variant_is_an_error(installed, tmp_path):
    result = run_installed(installed, tmp_path, "import cait; cait.create_model('cait_xl')")
    assert "no variant 'cait_xl'; there are cait_m36_384, " in result.stderr


def test_the_page_of_the_service_is_installed(installed):
    names = {path.name for path in (ROOT / "CaiT" / "cait" / "serve" / "page").iterdir()}
    assert {path.name for path in (installed / "cait" / "serve" / "page").iterdir()} == names


def test_importing_cait_does_not_import_paddle():
    code = "import sys; sys.path.insert(0, 'CaiT'); import cait, cait.config.flags; assert 'paddle' not in sys.modules"
    assert run_python("-c", code).returncode == 0


def test_help_and_dir_show_what_is_imported_on_first_use():
    code = "import sys; sys.path.insert(0, 'CaiT'); import cait; print(sorted(set(cait.__all__) - set(dir(cait)))); "
    result = run_python("-W", "ignore", "-c", code + "help(cait)")
    assert result.returncode == 0 and result.stdout.startswith("[]\n"), result.stderr
    for words in ("create_model(name: str", "list_models() ->", "class CaiT(", "A published variant, with random"):
        assert words in result.stdout, words


@pytest.fixture(scope="module")
def without_paddle(tmp_path_factory):
    """Runs Python where PaddlePaddle cannot be found, as in an environment that has everything else."""
    folder = tmp_path_factory.mktemp("without_paddle")
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['paddle'] = None\n")
    path = os.pathsep.join(map(str, (folder, ROOT / "CaiT")))

    def run(*words):
        options = {"cwd": ROOT, "env": {**os.environ, "PYTHONPATH": path}, "capture_output": True, "text": True}
        return subprocess.run([sys.executable, *map(str, words)], **options)

    return run


WAYS_IN = [("-c", "import cait"), *((path,) for path in SCRIPTS)]


@pytest.mark.parametrize("words", WAYS_IN, ids=lambda words: os.path.basename(words[-1]))
def test_without_paddle_every_entry_says_how_to_get_it(without_paddle, words):
    result = without_paddle(*words)
    assert result.returncode == 1 and not result.stdout
    assert result.stderr.startswith("error: PaddlePaddle is not installed for ") and result.stderr.count("\n") == 1
    for advice in ("make install", "pip install 'paddlepaddle>=", "pip install paddlepaddle-gpu=="):
        assert advice in result.stderr


def test_without_paddle_other_errors_look_as_ever(without_paddle):
    code = "try:\n import cait\nexcept ImportError as error:\n print(error.name)\n1 / 0"
    result = without_paddle("-c", code)
    assert result.stdout == "paddle\n" and "Traceback" in result.stderr and "ZeroDivisionError" in result.stderr


def test_an_index_of_paddle_serves_paddle_alone(tmp_path):
    """Most of the other packages are not on it."""
    build, index = "paddlepaddle-gpu==3.3.1", "https://index.example/cu126/"
    words = ["make", "-n", "install", f"VENV={tmp_path}", f"PADDLE={build} -i {index}"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    installs = [line for line in result.stdout.replace("\\\n", "").splitlines() if "pip install" in line]
    first, paddle, others = (line.partition("pip install")[2].split() for line in installs)
    assert first == ["--no-deps", "-i", f"'{index}'", f"'{build}'"] and paddle == [f"'{build}'"]
    assert others[:2] == ["-r", "requirements.txt"] and "-i" not in others
