"""Libraries that are compiled on the user's machine: once, by one of several processes, or why not."""

import concurrent.futures
import errno
import os
import re

import pytest

from cait.machine import compiled
from cait.machine.compiled import CannotBuild, build_once, cache_folder, key_of
from project import ROOT, run_python

SCRIPT = """
import pathlib, sys
sys.path.insert(0, sys.argv[2])
from cait.machine.compiled import build_once
command = [sys.executable, "-c", "import time; time.sleep(1); open('{folder}/made', 'w').write('made')"]
build_once(pathlib.Path(sys.argv[1]), ["made"], command, "building now")
"""
FAILING = ["sh", "-c", "echo no such thing; exit 1"]
MAKING = ["sh", "-c", "echo made > {folder}/made"]
AS_ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")


def test_the_folder_is_named_after_what_is_built(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = {cache_folder("loops", key_of(parts)) for parts in (["a"], [b"b"], ["a", "c"])}
    assert len(folders) == 3 and all(folder.parent == tmp_path / "cait" for folder in folders)
    assert cache_folder("loops", key_of(["a"])) in folders


@pytest.fixture
def compiler(tmp_path_factory, monkeypatch):
    """Something by the name of one: what is built here needs none."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "g++").write_text("#!/bin/sh\n")
    (folder / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_of_several_processes_one_builds(tmp_path, compiler):
    words = ["-c", SCRIPT, str(tmp_path / "new"), str(ROOT / "CaiT")]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: run_python(*words), range(3)))
    assert [result.returncode for result in results] == [0, 0, 0]
    assert sum(result.stderr.count("building now") for result in results) == 1
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"made", compiled.CHECKSUMS}


def test_without_a_home_there_is_no_folder(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "")
    with pytest.raises(CannotBuild, match="no home directory"):
        cache_folder("loops", "key")


def test_what_was_built_is_not_built_again(tmp_path, capsys):
    build_once(tmp_path, ["made"], MAKING, "building now")
    capsys.readouterr()
    build_once(tmp_path, ["made"], FAILING, "building now")
    assert capsys.readouterr().err == ""


def cut(path):
    path.write_bytes(path.read_bytes()[:2])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: cut(folder / "made"),
        lambda folder: (folder / "made").write_text("another one, without the symbols"),
        lambda folder: (folder / "made").unlink(),
        lambda folder: (folder / "made").chmod(0o666),
        lambda folder: (folder / compiled.CHECKSUMS).unlink(),
        lambda folder: (folder / compiled.CHECKSUMS).write_bytes(b"\xff"),
        lambda folder: (folder / compiled.CHECKSUMS).chmod(0o664),
        pytest.param(lambda folder: os.chown(folder / "made", 12345, -1), marks=AS_ROOT),
    ],
)
def test_what_is_not_as_it_was_built_is_built_again(tmp_path, capsys, compiler, damage):
    for err in ("building now\n", "", "building now\n", ""):
        build_once(tmp_path, ["made"], MAKING, "building now")
        assert capsys.readouterr().err == err and (tmp_path / "made").read_text() == "made\n"
        if not err and "damaged" not in os.listdir(tmp_path):
            damage(tmp_path)
            (tmp_path / "damaged").touch()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with a folder of what was built in it, and an empty folder of temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(compiled.tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiled._say_once.cache_clear()
    folder = cache_folder("loops", "key")
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("up", [0, 1], ids=["folder", "cache"])
@pytest.mark.parametrize(
    "change, words",
    [
        (lambda folder: folder.chmod(0o775), r"can be written by other users \(mode 775\)"),
        (lambda folder: folder.chmod(0o757), r"can be written by other users \(mode 757\)"),
        pytest.param(lambda folder: os.chown(folder, 12345, -1), r"another user \(number 12345\)", marks=AS_ROOT),
    ],
)
def test_where_others_can_write_nothing_is_used_or_built(cache, capsys, compiler, change, words, up):
    change(cache.parent if up else cache)
    with pytest.raises(CannotBuild, match=words):
        build_once(cache, ["made"], MAKING, "building now")
    assert not list(cache.iterdir())
    private = cache_folder("loops", "key")
    assert private.parent == cache.parents[2] / "temporary" / f"cait-{os.geteuid()}"
    build_once(private, ["made"], MAKING, "")
    assert re.search(f"{words}: compiled libraries are kept in {private.parent} instead", capsys.readouterr().err)
    change(private.parent)
    with pytest.raises(CannotBuild, match=f"{words} and .*{words}; XDG_CACHE_HOME can name another folder"):
        cache_folder("loops", "key")


def test_others_cannot_write_what_is_built_whatever_the_umask_says(tmp_path, monkeypatch, compiler):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = os.umask(0)
    try:
        for _ in range(2):
            folder = cache_folder("loops", "key")
            build_once(folder, ["made"], MAKING, "")
    finally:
        os.umask(before)
    assert folder.parent == tmp_path / "cache" / "cait"
    for path in (folder.parent, folder, *folder.iterdir()):
        assert not path.stat().st_mode & 0o022, path


def test_a_build_that_failed_is_not_tried_again(tmp_path, capsys, compiler):
    for message in ("building them failed; ", "building them failed before; "):
        with pytest.raises(CannotBuild, match=message) as reason:
            build_once(tmp_path, ["made"], FAILING, "building now")
        (log,) = tmp_path.iterdir()
        assert str(log) in str(reason.value)
    assert log.read_text() == "no such thing\n"
    assert capsys.readouterr().err == "building now\n"


def test_what_failed_is_tried_again_with_another_compiler_or_command(tmp_path, capsys, compiler):
    def build(command=FAILING):
        with pytest.raises(CannotBuild, match="building them failed"):
            build_once(tmp_path, ["made"], command, "building now")
        return capsys.readouterr().err

    assert build() and not build()
    (compiler / "g++").write_text("#!/bin/sh\necho version 2\n")
    assert build() and not build()
    assert build([*FAILING, "more"]) and not build([*FAILING, "more"])


@pytest.mark.parametrize(
    "script, words",
    [
        ("kill -9 $$", "signal 9"),
        ("echo 'g++: fatal error: Killed signal terminated program cc1plus'; exit 1", "Killed signal"),
        ("echo 'x.s: error: No space left on device'; exit 1", "No space left on device"),
        ("echo 'cc1plus: out of memory allocating 65536 bytes'; exit 1", "out of memory"),
        ("echo \"error: command 'g++' failed with exit code -9\"; exit 1", "exit code -9"),
        ("sh -c 'sleep 60 & sleep 60'", "did not end within"),
    ],
)
def test_what_a_machine_lacks_for_a_moment_is_tried_again(tmp_path, capsys, compiler, monkeypatch, script, words):
    monkeypatch.setattr(compiled, "SECONDS", 1.0)
    for _ in range(2):
        with pytest.raises(CannotBuild, match=f"{words}.*; the next start tries again"):
            build_once(tmp_path, ["made"], ["sh", "-c", script], "building now")
    assert capsys.readouterr().err == "building now\n" * 2 and not list(tmp_path.iterdir())


def test_a_build_writes_in_its_own_folder_only(tmp_path, compiler, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/proc")  # where nothing can be written
    scratch = compiled.SCRATCH + "left"
    (tmp_path / scratch).mkdir()
    build_once(tmp_path, ["made"], ["sh", "-c", 'echo "$TMPDIR" > {folder}/made'], "building now")
    assert str(tmp_path / compiled.SCRATCH) in (tmp_path / "made").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"made", compiled.CHECKSUMS}


def test_a_full_disk_is_a_reason(tmp_path, monkeypatch, compiler):
    def copy(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(compiled.shutil, "copyfile", copy)
    with pytest.raises(CannotBuild, match=r"made: cannot be written \(no space left on device\); XDG_CACHE_HOME"):
        build_once(tmp_path, ["made"], MAKING, "")


def test_where_nothing_can_be_built_the_reason_is_said(tmp_path, monkeypatch, compiler):
    (tmp_path / "file").touch()
    with pytest.raises(CannotBuild, match="cannot be written"):
        build_once(tmp_path / "file" / "folder", ["made"], FAILING, "")
    monkeypatch.setattr(compiled.platform, "system", lambda: "Windows")
    with pytest.raises(CannotBuild, match="on Linux only"):
        build_once(tmp_path, ["made"], FAILING, "")
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotBuild, match="no compiler"):
        build_once(tmp_path, ["made"], FAILING, "")
