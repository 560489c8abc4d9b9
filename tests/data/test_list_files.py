"""List files: where lines end, what a line says, and which folder it is relative to."""

import pathlib

import pytest

from cait.data.build import build_loaders
from cait.data.labels import imagenet1k_wordnet_ids, read_class_names
from cait.data.list_files import read_paths
from cait.data.prepare.imagenet_lists import write_lists
from cait.data.sources import read_list, read_test_list
from cait.deploy.classify import find_images
from cait.errors import CaitError, UsageError
from cait.files import read_lines

# What str.splitlines takes for the end of a line, and what may stand in the name of a file.
STRANGE = ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85"]


def save(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("character", STRANGE, ids=ascii)
def test_only_line_feeds_end_a_line(tmp_path, character, end):
    name = f"a{character}b.jpg"
    path = save(tmp_path / "list.txt", f"{name} 3{end}c.jpg 1{end}")
    assert read_lines(path) == [f"{name} 3", "c.jpg 1"]
    source = read_list(path, tmp_path, 10)
    assert (source.names, source.labels) == ([str(tmp_path / name), str(tmp_path / "c.jpg")], [3, 1])
    assert read_test_list(path, tmp_path).names == source.names
    for image in source.names:
        pathlib.Path(image).touch()
    assert find_images(str(path)) == source.names
    assert read_class_names(save(tmp_path / "labels.txt", f"0 a{character}b{end}1 c")) == [f"a{character}b", "c"]


def test_written_lists_hold_such_names(tmp_path):
    wordnet_id = imagenet1k_wordnet_ids()[0]
    for split in ("train", "val"):
        save(tmp_path / "data" / split / wordnet_id / "a\u2028b.JPEG", "")
    write_lists(tmp_path / "data", tmp_path / "txt", 0, False)
    names = read_list(tmp_path / "txt" / "train_list.txt", tmp_path / "data", 1000).names
    assert names == [str(tmp_path / "data" / "train" / wordnet_id / "a\u2028b.JPEG")]
    save(tmp_path / "data" / "train" / wordnet_id / "a\nb.JPEG", "")
    with pytest.raises(CaitError, match="a list cannot hold a name with a line break"):
        write_lists(tmp_path / "data", tmp_path / "txt", 0, True)


def test_a_list_with_labels_names_images_for_inference(digits, monkeypatch):
    """Relative to the folder of the list, or to the working directory where the file is there."""
    lines = (digits / "val_list.txt").read_text().splitlines()
    expected = [str(digits / line.rsplit(maxsplit=1)[0]) for line in lines]
    assert find_images(str(digits / "val_list.txt")) == expected
    assert read_test_list(digits / "val_list.txt", digits).names == expected
    monkeypatch.chdir(digits)
    assert find_images("val_list.txt") == [line.rsplit(maxsplit=1)[0] for line in lines]


def test_a_last_number_is_a_label_only_after_the_name_of_an_image(tmp_path):
    for name in ("photo 3", "plain", "~draft.png"):
        (tmp_path / name).touch()
    path = save(tmp_path / "list.txt", "photo 3\nplain 7\na b.JPEG\t12\nmissing 5\n~draft.png 1\n")
    names = ["photo 3", "plain", "a b.JPEG", "missing 5", "~draft.png"]
    assert read_paths(path, [tmp_path]) == [str(tmp_path / name) for name in names]


def test_a_path_of_a_list_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = save(tmp_path / "list.txt", "~/a.png 3\n")
    assert read_paths(path, [tmp_path]) == [str(tmp_path / "home" / "a.png")]
    save(path, "~nobody-of-that-name/a.png\n")
    with pytest.raises(UsageError, match=r"list\.txt: ~nobody-of-that-name/a\.png: there is no user"):
        read_paths(path, [tmp_path])


def test_a_list_of_which_nothing_is_there_is_one_sentence(tmp_path, tiny_config, digits):
    path = save(tmp_path / "elsewhere" / "list.txt", "".join(f"train/{index}.png {index}\n" for index in range(360)))
    with pytest.raises(CaitError, match=r"list\.txt: none of its 360 images exists, the first: train/0\.png") as error:
        find_images(str(path))
    assert str(tmp_path / "elsewhere") in str(error.value)
    for split in ("train", "val"):
        (digits / f"{split}_list.txt").write_text("nowhere/a.png 1\n" * 3)
        with pytest.raises(CaitError, match=f"{split}_list.txt: none of its 3 images exists"):
            build_loaders(tiny_config(VALIDATE_FREQ=int(split == "val")))


@pytest.mark.parametrize("folder", ["photos [2024]", "a*b", "what?", "[!x]", "{1,2}"])
def test_what_exists_is_no_pattern(tmp_path, monkeypatch, folder):
    for name in ("one [1].png", "two.png"):
        save(tmp_path / folder / "deep" / name, "")
    monkeypatch.chdir(tmp_path)
    names = [f"{folder}/deep/one [1].png", f"{folder}/deep/two.png"]
    for start in ("", "./", f"{tmp_path}/"):
        for pattern in ("deep/*.png", "*/*.png", "**/*.png", "deep", ""):
            found = [name.removeprefix("./") for name in find_images(f"{start}{folder}/{pattern}")]
            assert found == [start.removeprefix("./") + name for name in names], pattern
        assert len(find_images(f"{start}{folder}/deep/one [1].png")) == 1


def test_a_pattern_that_matches_nothing_is_one_sentence(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for pattern in ("*.jpg", "folder.*", "no/*"):
        with pytest.raises(CaitError, match="no such image, folder, list or pattern"):
            find_images(str(tmp_path / pattern))
