"""Bad images are found before training, by a short look and by `prepare_data.py check`."""

import logging

import pytest

from cait.data.check import before_training, check_data, look
from cait.data.dataset import ImageDataset
from cait.data.sources import read_list
from cait.data.transforms import EvalTransform
from cait.errors import CaitError
from pictures import noise_images, touch
from project import ROOT, run_python

SCRIPT = str(ROOT / "CaiT" / "prepare_data.py")


def damage(source, *indices):
    for index in indices:
        with open(source.names[index], "r+b") as file:
            file.truncate(300)
    return source


def test_a_look_decodes_images_and_finds_missing_files(tmp_path):
    source = damage(noise_images(tmp_path, 8), 2, 5)
    (tmp_path / "7.png").unlink()
    found = look(source, "RGB", 30)
    assert found.num_asked == 8 and found.num_decoded == 7
    assert [error.split(": ")[0] for error in found.bad] == [source.names[index] for index in (2, 5, 7)]
    assert "no such file" in found.bad[2] and "truncated" in found.bad[0]


def test_a_look_ends_after_its_time(tmp_path, monkeypatch):
    """A clock that runs a second each time it is read."""
    seconds = iter(range(10_000))
    monkeypatch.setattr("cait.data.check.time.monotonic", lambda: next(seconds))
    found = look(noise_images(tmp_path, 40), "RGB", 10)
    assert 0 < found.num_asked < 8 and 0 < found.num_decoded < 8 and found.bad == []


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO)
    return logging.getLogger("a run")


def test_before_training_all_bad_images_are_named_and_strict_ones_stop_it(tmp_path, log, caplog):
    sets = {}
    for name in ("validation", "training"):
        (tmp_path / name).mkdir()
        sets[name] = ImageDataset(damage(noise_images(tmp_path / name, 5), 1, 3), EvalTransform((8, 8)), 3, seed=0)
    before_training(sets, 30, {}, log)
    assert "looked for 5 of 5 training images, and decoded 5: 2 cannot be read" in caplog.text
    assert sum("the image cannot be read" in record.message for record in caplog.records) == 4
    with pytest.raises(CaitError, match=r"2 images cannot be read, the first: .*training/1\.png: .* images; go on so$"):
        before_training(sets, 30, {"training": "go on so"}, log)
    caplog.clear()
    before_training(sets, 0, {"training": "go on so"}, log)
    assert caplog.text == ""


def test_images_without_files_are_passed_over(digits):
    class Held:
        names, labels = ["a", "b"], [0, 0]

    assert look(Held(), "RGB", 1).bad == []


def test_check_names_everything_that_is_wrong_with_a_folder(tmp_path):
    touch(tmp_path, "train/cat/a.png", "train/dog/b.png", "train/dog/._b.png", "train/dog/notes.txt", "val/dog/c.png")
    (tmp_path / "train" / "empty").mkdir()
    (tmp_path / "val" / "dog" / "c.png").write_bytes(b"no image")
    result = run_python(SCRIPT, "check", f"--data-path={tmp_path}", "--dataset=folder")
    assert result.returncode == 1 and result.stderr == f"error: {tmp_path}: 1 of 3 images cannot be read\n"
    assert result.stdout.splitlines() == [
        f"{tmp_path}/train/dog/notes.txt: is no image, and left out",
        f"{tmp_path}/train/dog/._b.png: is hidden, and left out",
        f"{tmp_path}/train/empty: the folder holds no images, and is left out",
        "train: 2 images",
        "train: 0 of 2 images cannot be read",
        "val: 1 images",
        f"{tmp_path}/val/dog/c.png: the image cannot be read (cannot identify image file)",
        "val: 1 of 1 images cannot be read",
        f"test: there is no {tmp_path}/test",
    ]


def test_check_goes_on_after_a_fault(tmp_path, digits):
    """In a list, or in the layout of folders: all images are decoded that can be found."""
    touch(tmp_path, "train/cat/a.png", "val/cow/b.png", "val/cow/c.png")
    (tmp_path / "val" / "cow" / "b.png").write_bytes(b"no image")
    said = []
    with pytest.raises(CaitError, match="1 of 3 images cannot be read; 1 other faults are named above"):
        check_data(tmp_path, "folder", said.append)
    assert f"{tmp_path}/val/cow/b.png: not in the folder of a class that training knows" in said
    assert f"{tmp_path}/val/cow/b.png: the image cannot be read (cannot identify image file)" in said
    (digits / "train_list.txt").write_text("no label\n")
    said.clear()
    with pytest.raises(CaitError, match="0 of 30 images cannot be read; 1 other faults are named above"):
        check_data(digits, "imagenet2012", said.append)
    assert said[0] == f"{digits}/train_list.txt: line 1 must be `relative/path label`, not 'no label'"


def test_check_reads_lists(digits):
    said = []
    check_data(digits, "imagenet2012", said.append)
    assert said == [
        line for split, count in (("train", 40), ("val", 20), ("test", 10))
        for line in (f"{split}: {count} images", f"{split}: 0 of {count} images cannot be read")
    ]  # fmt: skip
    source = read_list(digits / "val_list.txt", digits, 10)
    damage(source, 0, 4)
    said.clear()
    with pytest.raises(CaitError, match="digits: 3 of 70 images cannot be read"):  # one is in the test list too
        check_data(digits, "imagenet2012", said.append)
    assert sum(line.startswith(f"{source.names[4]}: the image cannot be read") for line in said) >= 1


def test_check_of_a_wrong_folder_is_one_sentence(tmp_path):
    with pytest.raises(CaitError, match="no such data folder"):
        check_data(tmp_path / "nowhere", "folder", print)
    with pytest.raises(CaitError, match="holds nothing that -dataset=imagenet2012 reads"):
        check_data(tmp_path, "imagenet2012", print)
