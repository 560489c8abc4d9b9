"""Writing whole or not at all."""

import errno
import os
import stat
import time

import pytest

from cait import files
from cait.errors import CaitError
from cait.files.temporary import temporary_beside


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def in_a_child(work):
    """Does the work in another process, and returns its number once that has ended."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return child
    try:
        work()
    finally:
        os._exit(0)


def leave(path):
    """Ends the process while it writes the file, as a kill does."""
    with files.replacing(path) as temporary:
        temporary.write_text("half")
        os._exit(9)


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    gone = in_a_child(lambda: leave(path))
    [left] = tmp_path.iterdir()
    number = f"-{gone}-"
    assert number in left.name
    living = left.name.replace(number, f"-{os.getppid()}-")
    elsewhere = left.name.replace(left.name.split(".")[3].split("-")[0], "0" * 8)
    for name in (living, elsewhere, f"{left.name}.tmp", left.name.replace("a.txt", "b.txt"), ".a.txt.tmp", ".a.txt"):
        (tmp_path / name).write_text("mine")
    with files.replacing(path) as ours:
        ours.write_text("whole")
        with files.replacing(path) as inner:  # another thread
            assert ours.is_file() and inner != ours
            inner.write_text("whole too")
        assert path.read_text() == "whole too"
    assert path.read_text() == "whole" and not left.exists()
    assert sum(file.read_text() == "mine" for file in tmp_path.iterdir()) == 6
    left.write_text("half")
    os.rename(left, tmp_path / left.name.replace(number, f"-{os.getpid()}-"))  # in a container all have the same one
    files.write_text(path, "whole")
    assert len(list(tmp_path.iterdir())) == 7


def test_a_folder_that_a_killed_process_left_is_removed(tmp_path):
    def begin():
        with temporary_beside(tmp_path / "data") as folder:
            folder.mkdir()
            (folder / "image.png").touch()
            os._exit(9)

    in_a_child(begin)
    assert len(list(tmp_path.iterdir())) == 1
    with temporary_beside(tmp_path / "data"):
        assert not list(tmp_path.iterdir())


def test_a_name_of_any_length_that_the_file_system_takes_can_be_written(tmp_path):
    for name in ("a" * 255, "\u732b" * 85):
        files.write_text(tmp_path / name, "whole")
        assert os.listdir(tmp_path) == [name]
        (tmp_path / name).unlink()


def write_again_and_again(path, letter, until):
    while time.monotonic() < until:
        with files.replacing(path) as temporary, open(temporary, "w") as file:
            for _ in range(20):
                file.write(letter * 5000)
                file.flush()


def test_writers_at_once_never_mix_what_readers_see(tmp_path):
    path, until = tmp_path / "a.txt", time.monotonic() + 1.5
    files.write_text(path, "a" * 100_000)
    children = []
    for letter in "abcdef":
        if not (child := os.fork()):
            try:
                write_again_and_again(path, letter, until)
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    seen, reads = set(), 0
    while time.monotonic() < until:
        text = path.read_text()
        assert len(text) == 100_000 and text == text[0] * 100_000
        seen.add(text[0])
        reads += 1
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    assert len(seen) > 1 and reads > 20 and os.listdir(tmp_path) == ["a.txt"]


def watch_the_disk(monkeypatch):
    """The calls that decide what is on disk after a power failure: ("fsync", path) and ("replace", path), in order."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor):
        calls.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def watched_replace(source, target):
        calls.append(("replace", str(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    return calls


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="names of open files are needed")
def test_the_content_is_on_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    calls, temporary = watch_the_disk(monkeypatch), []
    with files.replacing(tmp_path / "a.txt") as path:
        temporary.append(path)
        path.write_text("x")
    assert calls == [("fsync", str(temporary[0])), ("replace", f"{tmp_path}/a.txt"), ("fsync", str(tmp_path))]


@pytest.mark.parametrize("number", files.NO_FOLDER_SYNC)
def test_a_system_that_cannot_sync_folders_is_no_error(tmp_path, monkeypatch, number):
    fsync = os.fsync

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    files.write_text(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.txt").read_text() == "x"


def test_a_disk_that_fails_when_the_folder_is_synced_is_named(tmp_path, monkeypatch):
    def fail(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CaitError, match=r"a\.txt: cannot be written \(input/output error\)"):
        files.write_text(tmp_path / "a.txt", "x")


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa")
    assert files.read_text(tmp_path / "a.txt") == "a"


def test_a_folder_in_the_place_of_a_file_is_an_error(tmp_path):
    with pytest.raises(CaitError, match="cannot be read"):
        files.read_text(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CaitError, match="cannot be written"):
        files.writable_folder(tmp_path / "file")


WORDS = "0 金鱼\n1 大白鲨\n"


@pytest.mark.parametrize(
    "data, advice",
    [
        (WORDS.encode("gbk"), r"; it seems to be in GBK: save it as UTF-8$"),
        (WORDS.encode("utf-16"), r"; it seems to be in UTF-16: save it as UTF-8$"),
        ("SEED: 3\n".encode("utf-16-le"), r"\(byte 1 is zero\); it seems to be in UTF-16: save it as UTF-8$"),
        ("SEED: 3\n".encode("utf-16-be"), r"\(byte 0 is zero\); it seems to be in UTF-16: save it as UTF-8$"),
        ("0 théâtre\n1 épée\n".encode("latin-1"), r"\(byte 4\); save it as UTF-8$"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\0\0\1", r"\(byte 0\)$"),
    ],
)
def test_another_encoding_is_named_with_what_to_do(tmp_path, data, advice):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(CaitError, match=rf"a\.txt: not a UTF-8 text file .*{advice}"):
        files.read_text(tmp_path / "a.txt")


def test_line_ends_of_all_systems_are_one(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\r\nb\rc\n")
    assert files.read_text(tmp_path / "a.txt") == "a\nb\nc\n"


def test_the_cache_is_where_the_user_says_or_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.user_cache() == tmp_path / "cait"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.user_cache() == tmp_path / ".cache" / "cait"
