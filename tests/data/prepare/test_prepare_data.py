"""`prepare_data.py`: the digits, and the lists of ImageNet as downloaded."""

import numpy as np
import pytest
from PIL import Image

from cait.data.labels import imagenet1k_wordnet_ids
from cait.data.prepare.digits import write_digits
from cait.data.prepare.imagenet_lists import write_lists
from cait.errors import CaitError, UsageError
from project import ROOT, run_python

pytestmark = pytest.mark.any_paddle

SCRIPT = str(ROOT / "CaiT" / "prepare_data.py")
IDS = imagenet1k_wordnet_ids()


def test_digits_have_360_held_out_images(all_digits):
    train = (all_digits / "train_list.txt").read_text().splitlines()
    val = (all_digits / "val_list.txt").read_text().splitlines()
    test = (all_digits / "test_list.txt").read_text().splitlines()
    assert (len(train), len(val), len(test)) == (1437, 360, 10)
    names = [line.split()[0] for line in train + val]
    assert len(set(names)) == 1797 and set(test) <= {line.split()[0] for line in val}
    for name in names:
        assert (all_digits / name).is_file()
    with Image.open(all_digits / names[0]) as image:
        assert (image.size, image.mode) == ((32, 32), "L")


def test_digits_are_written_once(all_digits, tmp_path):
    before = (all_digits / "train_list.txt").stat().st_mtime_ns
    assert not write_digits(all_digits)
    assert (all_digits / "train_list.txt").stat().st_mtime_ns == before
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(CaitError, match="exists and is not the whole digits data set"):
        write_digits(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_digits_that_are_not_whole_are_not_taken_for_whole(all_digits, tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()
    assert write_digits(folder)
    assert not write_digits(folder)
    next((folder / "train").rglob("*.png")).unlink()
    with pytest.raises(CaitError, match="not the whole digits data set"):
        write_digits(folder)


@pytest.fixture
def imagenet(tmp_path):
    """Train folders of three classes, and a function that lays out the validation images."""
    root = tmp_path / "LSVRC2012"
    for wordnet_id in (IDS[0], IDS[213], IDS[999]):
        for number in range(4):
            touch(root / "train" / wordnet_id / f"{wordnet_id}_{number}.JPEG")
    return root


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def flat_validation(root):
    for number in range(1, 5):
        touch(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")


def lines_of(path):
    return path.read_text().splitlines()


def test_lists_of_class_folders(imagenet, tmp_path):
    touch(imagenet / "valid" / IDS[5] / "a b.JPEG")
    touch(imagenet / "valid" / IDS[4] / "c.JPEG")
    written = write_lists(imagenet, tmp_path / "txt", seed=0, force=False)
    names = {path.name for path in (tmp_path / "txt").iterdir()}
    assert names == {path.name for path in written} == {
        "1train_list.txt", "1valid_list.txt", "2train_list_shuffle.txt", "2valid_list_shuffle.txt",
        "3train_list_shuffle_cut2.txt", "3valid_list_shuffle_cut2.txt", "train_list.txt", "val_list.txt",
    }  # fmt: skip
    train = lines_of(tmp_path / "txt" / "train_list.txt")
    assert len(train) == 12 and train[4] == f"train/{IDS[213]}/{IDS[213]}_0.JPEG 213"
    assert lines_of(tmp_path / "txt" / "1train_list.txt") == train
    shuffled = lines_of(tmp_path / "txt" / "2train_list_shuffle.txt")
    assert shuffled != train and sorted(shuffled) == sorted(train)
    assert lines_of(tmp_path / "txt" / "3train_list_shuffle_cut2.txt") == shuffled[:6]
    assert lines_of(tmp_path / "txt" / "val_list.txt") == [f"valid/{IDS[4]}/c.JPEG 4", f"valid/{IDS[5]}/a b.JPEG 5"]


def test_lists_repeat_with_the_seed_and_are_not_overwritten(imagenet, tmp_path):
    touch(imagenet / "val" / IDS[4] / "c.JPEG")
    shuffled = tmp_path / "txt" / "2train_list_shuffle.txt"
    write_lists(imagenet, tmp_path / "txt", seed=0, force=False)
    first = lines_of(shuffled)
    with pytest.raises(UsageError, match="is there already; --force replaces it"):
        write_lists(imagenet, tmp_path / "txt", seed=1, force=False)
    assert lines_of(shuffled) == first
    write_lists(imagenet, tmp_path / "txt", seed=1, force=True)
    assert lines_of(shuffled) != first
    write_lists(imagenet, tmp_path / "txt", seed=0, force=True)
    assert lines_of(shuffled) == first


@pytest.fixture
def truth(imagenet):
    """The devkit's ground truth, for images 1 to 4 of the classes 999, 7, 7, 3."""
    savemat = pytest.importorskip("scipy.io").savemat
    flat_validation(imagenet)
    data = imagenet / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    synsets = np.zeros(3, dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    for row, (number, index) in enumerate([(1, 7), (2, 3), (3, 999)]):
        synsets[row] = (number, IDS[index])
    savemat(data / "meta.mat", {"synsets": synsets})
    path = data / "ILSVRC2012_validation_ground_truth.txt"
    path.write_text("3\n1\n1\n2\n")
    return path


def validation_labels(imagenet, tmp_path):
    """Labels by the number of the image, and the notes on what is missing."""
    notes = []
    write_lists(imagenet, tmp_path / "txt", seed=0, force=True, note=notes.append)
    lines = [line.rsplit(maxsplit=1) for line in lines_of(tmp_path / "txt" / "val_list.txt")]
    return {int(name[-13:-5]): int(label) for name, label in lines}, notes


def test_flat_validation_with_the_devkit(imagenet, truth, tmp_path):
    assert validation_labels(imagenet, tmp_path) == ({1: 999, 2: 7, 3: 7, 4: 3}, [])
    assert lines_of(tmp_path / "txt" / "val_list.txt")[0].startswith("val/ILSVRC2012_val_00000001.JPEG ")
    truth.write_text("3\n1\nx\n2\n")
    with pytest.raises(CaitError, match="line 3 must be"):
        validation_labels(imagenet, tmp_path)


@pytest.mark.parametrize("gone", [1, 2, 3, 4])
def test_a_missing_validation_image_moves_no_label(imagenet, truth, tmp_path, gone):
    (imagenet / "val" / f"ILSVRC2012_val_{gone:08d}.JPEG").unlink()
    labels, notes = validation_labels(imagenet, tmp_path)
    assert labels == {number: label for number, label in {1: 999, 2: 7, 3: 7, 4: 3}.items() if number != gone}
    assert notes == [
        f"{imagenet / 'val'}: holds 3 of the 4 images of {truth.name}; ILSVRC2012_val_{gone:08d} is missing first"
    ]


@pytest.mark.parametrize("name", ["ILSVRC2012_val_00000005.JPEG", "holiday.JPEG", "ILSVRC2012_val_3.JPEG"])
def test_a_foreign_validation_image_is_an_error_even_in_place_of_another(imagenet, truth, tmp_path, name):
    (imagenet / "val" / "ILSVRC2012_val_00000003.JPEG").rename(imagenet / "val" / name)
    with pytest.raises(CaitError, match=f"1 images are none that .*{truth.name} has a label for, the first: {name}"):
        validation_labels(imagenet, tmp_path)
    assert not (tmp_path / "txt").exists()


def test_hidden_things_and_other_files_are_in_no_list(imagenet, truth, tmp_path):
    class_folder = imagenet / "train" / IDS[213]
    hidden = ("._a.JPEG", "@eaDir/a.JPEG", "Thumbs.db", ".b.JPEG")
    for folder in (class_folder, imagenet / "train", imagenet / "val"):
        for name in hidden:
            touch(folder / name)
    touch(imagenet / "train" / "__MACOSX" / IDS[213] / "a.JPEG")
    touch(class_folder / "notes.doc")
    touch(class_folder / "photo.jfif")
    (imagenet / "train" / IDS[5]).mkdir()
    labels, notes = validation_labels(imagenet, tmp_path)
    assert set(labels) == {1, 2, 3, 4}
    train = lines_of(tmp_path / "txt" / "train_list.txt")
    assert len(train) == 13 and f"train/{IDS[213]}/photo.jfif 213" in train
    assert notes == [
        f"{imagenet / 'train'}: 1 files are no images and are left out (1 .doc), the first: {class_folder}/notes.doc",
        f"1 folders of classes hold no images, the first: {imagenet / 'train' / IDS[5]}",
    ]


def test_flat_validation_with_kaggles_solution(imagenet, tmp_path):
    flat_validation(imagenet)
    rows = [f"ILSVRC2012_val_{number:08d},{IDS[number]} 1 2 3 4 " for number in (4, 3, 2, 1)]
    (imagenet / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(rows))
    write_lists(imagenet, tmp_path / "txt", seed=0, force=False)
    assert [line.split()[1] for line in lines_of(tmp_path / "txt" / "val_list.txt")] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    "rows",
    [
        "a,b\nILSVRC2012_val_00000001,n01440764",
        "ImageId,PredictionString\nILSVRC2012_val_00000001,n99999999 1 2",
        "ImageId,PredictionString\nILSVRC2012_val_00000001,",
        "ImageId,PredictionString\nILSVRC2012_val_00000001",
    ],
)
def test_a_wrong_solution_is_an_error(imagenet, tmp_path, rows):
    flat_validation(imagenet)
    (imagenet / "LOC_val_solution.csv").write_text(rows)
    words = "has 'n99999999', which is no WordNet id" if "n99999999" in rows else "must be"
    with pytest.raises(CaitError, match=f"LOC_val_solution.csv: line 2 {words}"):
        write_lists(imagenet, tmp_path / "txt", seed=0, force=False)


def test_a_wrong_devkit_is_an_error(imagenet, tmp_path):
    flat_validation(imagenet)
    truth = imagenet / "devkit" / "ILSVRC2012_validation_ground_truth.txt"
    touch(truth)
    with pytest.raises(CaitError, match=r"meta\.mat: missing"):
        write_lists(imagenet, tmp_path / "txt", seed=0, force=False)
    (truth.parent / "meta.mat").write_bytes(b"no matlab file")
    with pytest.raises(CaitError, match=r"meta\.mat: not the devkit's table"):
        write_lists(imagenet, tmp_path / "txt", seed=0, force=False)


@pytest.mark.parametrize(
    "prepare, words",
    [
        (lambda root: None, "has no folder val or valid"),
        (flat_validation, "put the devkit"),
        (lambda root: touch(root / "train" / "dogs" / "a.JPEG"), "no WordNet id of ImageNet-1k"),
        (lambda root: [path.unlink() for path in root.rglob("*.JPEG")], "holds no images"),
    ],
)
def test_lists_of_something_else_are_an_error(imagenet, tmp_path, prepare, words):
    prepare(imagenet)
    with pytest.raises(CaitError, match=words):
        write_lists(imagenet, tmp_path / "txt", seed=0, force=False)
    assert not (tmp_path / "txt").exists()


def test_the_command(imagenet, tmp_path):
    touch(imagenet / "val" / IDS[4] / "c.JPEG")
    words = [SCRIPT, "lists", f"--data-path={imagenet}", f"--output={tmp_path / 'txt'}"]
    first, second = run_python(*words), run_python(*words)
    assert first.returncode == 0 and "train_list.txt: 12 lines" in first.stdout
    assert second.returncode == 2 and second.stderr.startswith("error: ") and "Traceback" not in second.stderr
    wrong = run_python(SCRIPT)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: ")
