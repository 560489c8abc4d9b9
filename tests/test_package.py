"""The package as `pip install .` leaves it."""

import os
import subprocess
import sys

import pytest

from conftest import ROOT, run_python


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The tracked files, copied: building a package writes beside its sources."""
    folder = tmp_path_factory.mktemp("checkout")
    copy_checkout(folder)
    return folder


def copy_checkout(folder):
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    assert names.returncode == 0, names.stderr
    for name in names.stdout.splitlines():
        source, target = ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
            target.chmod(source.stat().st_mode)


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


def test_an_unknown_variant_is_an_error(installed, tmp_path):
    result = run_installed(installed, tmp_path, "import cait; cait.create_model('cait_xl')")
    assert "no variant 'cait_xl'; there are cait_m36_384, " in result.stderr


def test_the_page_of_the_service_is_installed(installed):
    names = {path.name for path in (ROOT / "CaiT" / "cait" / "deploy" / "page").iterdir()}
    assert {path.name for path in (installed / "cait" / "deploy" / "page").iterdir()} == names


def test_importing_cait_does_not_import_paddle():
    code = "import sys; sys.path.insert(0, 'CaiT'); import cait, cait.cli; assert 'paddle' not in sys.modules"
    assert run_python("-c", code).returncode == 0
