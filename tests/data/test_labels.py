"""Class names."""

import pytest

from cait.data.labels import IMAGENET1K, imagenet1k_wordnet_ids, read_class_names
from cait.errors import CaitError


def test_imagenet_has_its_thousand_classes():
    names, ids = read_class_names(IMAGENET1K), imagenet1k_wordnet_ids()
    assert len(names) == len(set(ids)) == 1000 and ids == sorted(ids)
    assert (names[0], ids[213]) == ("tench, Tinca tinca", "n02100877")


def test_names_with_and_without_wordnet_ids(tmp_path):
    (tmp_path / "a.txt").write_text("0 n01440764 tench\n1 a name\n2 3\n")
    assert read_class_names(tmp_path / "a.txt") == ["tench", "a name", "3"]


@pytest.mark.parametrize(
    "text, line", [("1 one\n", 1), ("0 a\n2 b\n", 2), ("0\n", 1), ("zero\n", 1), ("0 a\n\n1 b\n", 2)]
)
def test_a_malformed_line_is_named(tmp_path, text, line):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(CaitError, match=rf"a.txt: line {line} must be `{line - 1} name`"):
        read_class_names(tmp_path / "a.txt")


def test_an_empty_or_missing_file_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(CaitError, match="holds no class names"):
        read_class_names(tmp_path / "a.txt")
    with pytest.raises(CaitError, match="b.txt: cannot be read"):
        read_class_names(tmp_path / "b.txt")
