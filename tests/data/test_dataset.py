"""List files and the data set over them."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from cait.data.dataset import ImageDataset
from cait.data.image_files import image_files
from cait.data.sources import FileSource, read_list, read_test_list
from cait.data.transforms import TrainTransform
from cait.errors import CaitError
from pictures import noise_images

ROOT = pathlib.Path("data")


@pytest.fixture
def write_list(tmp_path):
    def write(text):
        path = tmp_path / "train_list.txt"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_paths_may_hold_blanks(write_list):
    source = read_list(write_list("a b/c d.jpg 3\n\nx.png\t0\r\n狗/1 2.jpg  1\n"), ROOT, 10)
    assert source.names == ["data/a b/c d.jpg", "data/x.png", "data/狗/1 2.jpg"]
    assert source.labels == [3, 0, 1]


@pytest.mark.parametrize("line", ["a.jpg", "a.jpg x", "a.jpg -1", "a.jpg 1.0", "7", "a.jpg ²", "a.jpg " + "9" * 5000])
def test_a_malformed_line_is_named(write_list, line):
    with pytest.raises(CaitError, match=r"train_list.txt: line 2 must be `relative/path label`"):
        read_list(write_list(f"ok.jpg 0\n{line}\n"), ROOT, 10)


def test_a_label_out_of_range_is_named(write_list):
    with pytest.raises(CaitError, match=r"train_list.txt: line 1 has label 10, but MODEL.NUM_CLASSES is 10"):
        read_list(write_list("a.jpg 10\n"), ROOT, 10)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(CaitError, match=r"val_list.txt: no such list"):
        read_list(tmp_path / "val_list.txt", ROOT, 10)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_list_is_an_error(write_list, text):
    with pytest.raises(CaitError, match="the list is empty"):
        read_list(write_list(text), ROOT, 10)


def test_a_list_in_another_encoding_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_bytes("狗.jpg 0".encode("gbk"))
    with pytest.raises(CaitError, match="not a UTF-8 text file"):
        read_list(tmp_path / "a.txt", ROOT, 10)


def test_the_test_list_needs_no_labels(write_list):
    source = read_test_list(write_list("a.jpg\nb c.JPEG 3\nd 5\ne.png extra 7\n"), ROOT)
    assert source.names == ["data/a.jpg", "data/b c.JPEG", "data/d 5", "data/e.png extra 7"]
    assert set(source.labels) == {-1}


def test_a_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(CaitError, match="holds no images"):
        image_files(tmp_path)


def test_links_are_followed_and_hidden_files_passed_over(tmp_path):
    for name in ("real/a.png", "classes/.hidden/b.png", "classes/.c.png", "classes/two/d.PNG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "classes" / "one").symlink_to(tmp_path / "real")
    (tmp_path / "classes" / "two" / "circle").symlink_to(tmp_path / "classes")
    names = [str(tmp_path / "classes" / name) for name in ("one/a.png", "two/d.PNG")]
    assert image_files(tmp_path / "classes") == names


def test_random_choices_depend_on_seed_epoch_and_index_only(tmp_path):
    source = noise_images(tmp_path, 2)
    transform = TrainTransform((8, 8))
    first = ImageDataset(source, transform, 3, seed=0)
    reread = ImageDataset(source, transform, 3, seed=0)
    reread[2, 1], reread[1, 1]
    assert np.array_equal(first[1, 0][0], reread[1, 0][0])
    assert not np.array_equal(first[1, 0][0], first[2, 0][0])
    assert not np.array_equal(first[1, 0][0], ImageDataset(source, transform, 3, seed=1)[1, 0][0])


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "I;16", "LA"])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode):
    if mode == "I;16":
        Image.fromarray(np.arange(600, dtype="uint16").reshape(20, 30)).save(tmp_path / "0.png")
        source = FileSource([str(tmp_path / "0.png")], [0])
    else:
        source = noise_images(tmp_path, 1, mode)
    array, label, index, error = ImageDataset(source, TrainTransform((8, 8)), 3, seed=0)[1, 0]
    assert (array.shape, array.dtype, label, index, error) == ((8, 8, 3), "uint8", 0, 0, "")


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "truncated"),
        (lambda path: path.write_bytes(b"<html>"), "cannot identify"),
        (lambda path: path.write_bytes(b""), "cannot identify"),
    ],
)
def test_an_unreadable_image_is_named(tmp_path, damage, reason):
    source = noise_images(tmp_path, 1)
    damage(pathlib.Path(source.names[0]))
    array, _, _, error = ImageDataset(source, TrainTransform((8, 8)), 3, seed=0)[1, 0]
    assert array is None
    assert error.startswith(f"{source.names[0]}: the image cannot be read (") and reason in error
