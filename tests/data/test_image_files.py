"""Which files of a folder are images, and what is said of the others."""

import os

import pytest

from cait.data.image_files import holds_image, image_files, is_hidden
from cait.data.sources import class_folders, empty_classes, read_folder
from cait.deploy.classify import find_images
from cait.errors import CaitError
from pictures import touch

HIDDEN = [
    "._one.JPEG", ".hidden.png", "__MACOSX/one.jpg", "@eaDir/one.jpg", "#recycle/one.jpg", "Thumbs.db", ".DS_Store",
    "desktop.ini", ".hidden/one.jpg", "$RECYCLE.BIN/one.jpg", "lost+found/one.jpg", ".ipynb_checkpoints/one.jpg",
]  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    """A folder with an image in each of two classes, and hidden things everywhere."""
    folder = tmp_path / "data" / "train"
    touch(folder, "cat/a.png", "dog/b.jpg", *HIDDEN, *(f"cat/{name}" for name in HIDDEN))
    return folder


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_things_are_known_by_their_names(name):
    assert is_hidden(name.split("/")[0])


def test_hidden_things_are_neither_images_nor_classes(photos):
    notes = []
    expected = [str(photos / "cat" / "a.png"), str(photos / "dog" / "b.jpg")]
    assert image_files(photos, notes.append) == find_images(str(photos / "**" / "*"), notes.append) == expected
    assert class_folders(photos.parent) == ["cat", "dog"]
    assert read_folder(photos.parent, "train", ["cat", "dog"], notes.append).names == expected
    assert notes == []


def test_other_files_are_counted_and_named(photos):
    touch(photos, "cat/drawing.eps.txt", "cat/list.TXT", "dog/c.heic")
    notes = []
    assert len(image_files(photos, notes.append)) == 2
    (note,) = notes
    first = photos / "cat" / "drawing.eps.txt"
    assert note.startswith(f"{photos}: 3 files are no images and are left out (2 .txt, 1 .heic), the first: {first}"), (
        note
    )


def test_every_way_to_name_images_says_what_it_leaves_out(photos, capsys):
    touch(photos, "cat/notes.xyz")
    for path in (photos, photos / "**" / "*", photos / "cat" / "*"):
        find_images(str(path))
        assert "1 files are no images and are left out (1 .xyz)" in capsys.readouterr().err
    read_folder(photos.parent, "train", ["cat", "dog"])
    assert "1 files are no images and are left out (1 .xyz)" in capsys.readouterr().err


def test_the_content_decides_where_there_is_no_suffix(photos):
    touch(photos, "cat/without")
    (photos / "cat" / "README").write_text("no image")
    os.mkfifo(photos / "cat" / "pipe")  # which would wait for a writer for ever
    notes = []
    assert [os.path.basename(name) for name in image_files(photos, notes.append)] == ["a.png", "without", "b.jpg"]
    assert "2 files are no images and are left out (2 without suffix)" in notes[0]


def test_a_folder_of_other_files_is_an_error_that_counts_them(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(CaitError, match=r"holds no images \(1 files are no images and are left out \(1 \.txt\)"):
        image_files(tmp_path)


def test_a_folder_that_cannot_be_listed_is_an_error_everywhere(photos, monkeypatch):
    scandir, secret = os.scandir, str(photos / "dog")

    def refuse(folder):
        if os.fspath(folder) == secret:
            raise PermissionError(13, "Permission denied", secret)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    readers = {
        "images": lambda: image_files(photos),
        "inference": lambda: find_images(str(photos)),
        "classes": lambda: class_folders(photos.parent),
        "folder": lambda: read_folder(photos.parent, "train", ["cat", "dog"]),
        "holds": lambda: holds_image(photos / "dog"),
    }
    for read in readers.values():
        with pytest.raises(CaitError, match=r"train/dog: the folder cannot be listed \(Permission denied\)"):
            read()


def test_links_in_a_circle_and_to_themselves_end(photos):
    (photos / "cat" / "circle").symlink_to(photos)
    (photos / "cat" / "self.png").symlink_to(photos / "cat" / "self.png")
    names = image_files(photos)
    assert [os.path.basename(name) for name in names] == ["a.png", "self.png", "b.jpg"]


def test_an_empty_folder_of_a_class_is_no_class_and_is_named(photos):
    (photos / "empty").mkdir()
    touch(photos, "notes/._a.png")
    (photos / "notes" / "readme.txt").touch()
    notes = []
    assert class_folders(photos.parent) == ["cat", "dog"]
    assert read_folder(photos.parent, "train", ["cat", "dog"], notes.append).labels == [0, 1]
    assert notes[-1] == f"{photos}: folders without images are left out: empty, notes"
    assert empty_classes(photos.parent) == [str(photos / "empty"), str(photos / "notes")]


def test_an_image_beside_the_folders_of_classes_is_named(photos):
    touch(photos, "stray.png")
    with pytest.raises(CaitError, match="stray.png: lies beside the folders of the classes"):
        read_folder(photos.parent, "train", ["cat", "dog"])
