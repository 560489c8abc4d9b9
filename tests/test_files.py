"""Writing whole or not at all."""

import os

import pytest

from cait import files
from cait.errors import CaitError


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_the_temporary_file_of_a_killed_process_is_replaced(tmp_path):
    (tmp_path / ".a.txt.tmp").write_text("left over")
    files.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


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
