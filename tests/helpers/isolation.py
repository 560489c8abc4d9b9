"""Tests see a copy of the project and an environment of their own, and nothing of the user's.

Whoever follows the README puts data, weights and results into the checkout and sets variables, and all of that could
change what a test finds. So commands run in a copy of the project's own files, with a home and a cache of the tests,
and with the few variables of `KEPT`. Files that the test process itself opens are watched, see `opened`.
"""

import atexit
import importlib.metadata
import os
import pathlib
import shutil
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MARK = "CAIT_TESTS_COPY"  # names the copy to processes that tests start, and whose it is
WORKER = "PYTEST_XDIST_WORKER"  # each worker of pytest-xdist has a copy of its own
USERS_CACHES = "CAIT_TESTS_USERS_CACHES"  # for workers, which start in the environment of the tests
PARTS = ("CaiT", "configs", "docs", "test_tipc", "tests", ".ci")  # of the project; files beside them come along
PIECES = (
    "dataset/README.md",
    "dataset/README_cn.md",
    "txt/README.md",
    "txt/README_cn.md",
    "txt/test_list.txt",
)  # of folders that are otherwise the user's
USERS = ("dataset", "txt", "output", "log", "CaiT/infer", "test_tipc/data", "test_tipc/output")
WEIGHTS = (".pdparams", ".pdstates", ".pdiparams", ".pdmodel")
NO_PROCESSES = "CAIT_TESTS_NO_PROCESSES"  # any value leaves out the test files that start processes
FLAGS = "CAIT_TESTS_FLAGS"  # flags of PaddlePaddle for all tests: NAME=VALUE NAME=VALUE
KEPT = (
    *("PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"),
    *("CAIT_REQUIRE_BROWSER", "CAIT_SCREENSHOTS", NO_PROCESSES, FLAGS),
)
LOG_LEVEL = "GLOG_minloglevel"  # of what PaddlePaddle's C++ writes to stderr
KEPT_BEGINNINGS = ("LC_", "PYTEST_")
# Fonts and compiled operators take half a minute to make: they are kept from run to run, but apart from the user's.
CACHE = REPOSITORY / ".pytest_cache" / "home"

_opened: list[str] = []


def opened() -> list[str]:
    """The user's files that this process has opened since the last call; a test may open none."""
    found = list(_opened)
    _opened.clear()
    return found


def copy_project(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Copies the project's own files, without what users put between them; returns the target."""

    def foreign(folder, names):
        places = {name: (pathlib.Path(folder) / name).relative_to(source).as_posix() for name in names}
        return [
            name
            for name, place in places.items()
            if place in USERS or name in ("__pycache__", "build") or name.endswith((*WEIGHTS, ".egg-info"))
        ]

    target.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        shutil.copytree(source / part, target / part, ignore=foreign, dirs_exist_ok=True)
    # `.git` is a file in a worktree: git in the copy would work on the user's own branch.
    beside = [entry for entry in source.iterdir() if entry.is_file() and entry.name != ".git"]
    for path in (*beside, *(source / name for name in PIECES)):
        (target / path.relative_to(source)).parent.mkdir(exist_ok=True)
        shutil.copy(path, target / path.relative_to(source))
    return target


def isolate() -> pathlib.Path:
    """Makes the copy and cleans this process's environment; returns the copy's folder.

    A process that a test started finds both done.
    """
    owner, _, copy = os.environ.get(MARK, "").partition(":")
    if copy and owner == os.environ.get(WORKER, ""):
        return pathlib.Path(copy)
    users_caches = os.environ.get(USERS_CACHES, "").split(os.pathsep) if copy else _caches()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cait-tests-"))
    atexit.register(_remove, folder, os.getpid())
    sys.path[:] = [path for path in sys.path if path not in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    for name in list(os.environ):
        if name not in KEPT and not name.startswith(KEPT_BEGINNINGS):
            del os.environ[name]
    if _is_installed("paddlepaddle-gpu"):  # it warns of a missing cuDNN at the first convolution, on CPUs too
        os.environ[LOG_LEVEL] = "2"
    for pair in os.environ.get(FLAGS, "").split():
        name, _, os.environ[name] = pair.partition("=")
    (folder / "home").mkdir()
    CACHE.mkdir(parents=True, exist_ok=True)
    os.environ |= {"HOME": str(folder / "home"), "XDG_CACHE_HOME": str(CACHE)}
    project = copy_project(REPOSITORY, folder / "project")
    os.environ[MARK] = f"{os.environ.get(WORKER, '')}:{project}"
    os.environ[USERS_CACHES] = os.pathsep.join(map(str, users_caches))
    _watch([*(str(REPOSITORY / name) for name in USERS), *map(str, users_caches)])
    return project


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _remove(folder: pathlib.Path, owner: int) -> None:
    if os.getpid() == owner:  # not a child that was forked
        shutil.rmtree(folder, ignore_errors=True)


def _caches() -> list[pathlib.Path]:
    home = pathlib.Path.home() / ".cache"
    return [home, pathlib.Path(os.environ.get("XDG_CACHE_HOME") or home)]


def _watch(places: list[str]) -> None:
    """Notes every opening of a file in these places, or of weights in the checkout."""
    prefixes = tuple(f"{place}{os.sep}" for place in places)
    scripts, cache = f"{REPOSITORY / 'CaiT'}{os.sep}", f"{CACHE}{os.sep}"

    def note(event, arguments):
        if event != "open" or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        users = path.startswith(prefixes) or (path.startswith(scripts) and path.endswith(WEIGHTS))
        if users and not path.startswith(cache):
            _opened.append(path)

    sys.addaudithook(note)
