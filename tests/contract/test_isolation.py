"""Tests never see the user's data, weights, results, cache or variables."""

import json
import os
import subprocess
import sys

import pytest

from isolation import (
    CACHE,
    FLAGS,
    KEPT,
    KEPT_BEGINNINGS,
    LOG_LEVEL,
    MARK,
    REPOSITORY,
    USERS_CACHES,
    WORKER,
    copy_project,
)
from project import ROOT

HOSTILE = (
    *("dataset/LSVRC2012/train/n99999999/foreign.JPEG", "dataset/LSVRC2012/valid/n99999999/foreign.JPEG"),
    *("dataset/LSVRC2012/train_list.txt", "dataset/LSVRC2012/val_list.txt", "dataset/digits/train_list.txt"),
    *("CaiT/cait_xxs24_224.pdparams", "CaiT/infer/inference.yaml", "output/demo/report.json", "txt/train_list.txt"),
    *("test_tipc/data/LSVRC2012/contents.json", "test_tipc/output/stub/results_python.log"),
)
VARIABLES = {
    **{"CAIT_TOKEN": "secret", "CAIT_INSTRUCTIONS": "abacus", "CAIT_STARTER": "1", "TIPC_OUTPUT": "/dev/null/x"},
    **{"FLAGS_check_nan_inf": "1", "PADDLE_TRAINER_ID": "3", "PADDLE_TRAINERS_NUM": "4", "PADDLE_LOCAL_SIZE": "4"},
    **{"OMP_NUM_THREADS": "97", "CUDA_VISIBLE_DEVICES": "5", "BREAK": "train"},
}


@pytest.fixture
def hostile(tmp_path):
    """A checkout with rubbish in every place of the user's, and a function that runs Python there."""
    folder = copy_project(ROOT, tmp_path / "checkout")
    modules, home = tmp_path / "modules", tmp_path / "home"
    for path in (*(folder / name for name in HOSTILE), modules / "yaml.py", home / ".cache" / "cait"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise SystemExit('rubbish')\n")
    (folder / ".pytest_cache").mkdir()
    (folder / ".pytest_cache" / "home").symlink_to(CACHE)  # building the operators takes half a minute
    variables = {
        name: value for name, value in os.environ.items() if name not in (MARK, USERS_CACHES, WORKER, "XDG_CACHE_HOME")
    }
    variables |= VARIABLES | {"HOME": str(home), "PYTHONPATH": str(modules)}

    def run(*words):
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)

    run.folder, run.home = folder, home
    return run


def test_the_copy_has_all_of_the_project_and_nothing_else(tmp_path):
    names = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True).stdout.splitlines()
    if not names:
        pytest.skip("this is no checkout of git")
    assert not [name for name in names if (REPOSITORY / name).is_file() and not (ROOT / name).is_file()]
    copy_project(ROOT, tmp_path)
    for name in HOSTILE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("rubbish")
    copied = {str(path.relative_to(tmp_path / "b")) for path in copy_project(tmp_path, tmp_path / "b").rglob("*")}
    assert not copied & set(HOSTILE) and set(names) & copied


def test_the_top_of_the_project_has_what_belongs_there():
    """What a test or a run left there is not committed by mistake."""
    names = subprocess.run(["git", "ls-files", "*"], cwd=REPOSITORY, capture_output=True, text=True).stdout.split()
    beside = {
        name
        for name in names
        if "/" not in name and not name.startswith(("requirements", ".")) and not name.endswith(".md")
    }
    assert not beside - {"LICENSE", "Makefile", "pyproject.toml", "CITATION.cff"}


def test_git_in_a_copy_never_reaches_the_users_repository(tmp_path):
    """In a worktree `.git` is a file that names the repository."""
    source = copy_project(ROOT, tmp_path / "worktree")
    (source / ".git").write_text(f"gitdir: {tmp_path}/repository\n")
    assert not (copy_project(source, tmp_path / "copy") / ".git").exists() and not (ROOT / ".git").exists()


ASK = """
import json, os, sys
sys.path.insert(0, "tests/helpers")
import isolation
folder = isolation.isolate()
isolation.opened()
for name in sys.argv[1:]:
    open(name).close()
found = isolation.opened()
print(json.dumps([str(folder), sorted(os.environ), found]))
import yaml
"""


def test_a_hostile_checkout_and_environment_are_not_seen(hostile):
    result = hostile("-c", ASK, *HOSTILE, hostile.home / ".cache" / "cait", "README.md")
    assert result.returncode == 0, result.stdout + result.stderr
    folder, variables, found = json.loads(result.stdout)
    own = {"HOME", "XDG_CACHE_HOME", MARK, USERS_CACHES, LOG_LEVEL}
    own |= {pair.partition("=")[0] for pair in os.environ.get(FLAGS, "").split()}
    assert not [name for name in variables if name not in own | set(KEPT) and not name.startswith(KEPT_BEGINNINGS)]
    assert found == [str(hostile.folder / name) for name in HOSTILE] + [str(hostile.home / ".cache" / "cait")]
    assert not os.path.exists(folder)  # removed at the end
    assert str(hostile.folder) not in folder


ASK_A_WORKER = f"""
import os, subprocess, sys
sys.path.insert(0, "tests/helpers")
import isolation
print(isolation.isolate())
sys.stdout.flush()
environment = os.environ | {{"{WORKER}": "gw0"}}
sys.exit(subprocess.run([sys.executable, "-c", {ASK!r}, *sys.argv[1:]], env=environment).returncode)
"""


def test_a_worker_of_xdist_has_a_copy_of_its_own_and_sees_nothing_either(hostile):
    names = [*HOSTILE, hostile.home / ".cache" / "cait"]
    result = hostile("-c", ASK_A_WORKER, *names)
    assert result.returncode == 0, result.stdout + result.stderr
    first, answer = result.stdout.splitlines()
    folder, variables, found = json.loads(answer)
    assert folder != first and WORKER in variables and len(found) == len(names)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tests_pass_in_a_hostile_checkout(hostile):
    """Those that go through commands with defaults."""
    chosen = ["data/prepare/test_lite", "distributed/test_launch", "contract/test_tipc_runs", "deploy/test_infer"]
    words = ("-m", "pytest", "-q", "-x", "-m", "not slow", *(f"tests/{name}.py" for name in chosen))
    result = hostile(*words)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
