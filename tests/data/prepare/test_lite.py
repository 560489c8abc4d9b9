"""`prepare_data.py lite`: a small data set of ImageNet's shape, and weights that stand in for published ones."""

import json
import os
import pathlib
import types

import numpy as np
import paddle
import pytest
from PIL import Image

from cait.data.labels import imagenet1k_wordnet_ids
from cait.data.prepare import lite
from cait.data.prepare.lite import write_lite
from cait.data.sources import read_list, read_test_list
from cait.errors import CaitError
from cait.model import CaiT
from cait.weights.stand_in import place_weights
from project import ROOT, run_python

IDS = imagenet1k_wordnet_ids()
LISTS = (
    *("train_list.txt", "val_list.txt", "test_list.txt", "1train_list.txt", "1valid_list.txt"),
    *("2train_list_shuffle.txt", "2valid_list_shuffle.txt"),
    *("3train_list_shuffle_cut2.txt", "3valid_list_shuffle_cut2.txt"),
)


@pytest.fixture
def imagenet(tmp_path):
    """An ImageNet of three classes, with 4 training and 2 validation images each."""
    root = tmp_path / "LSVRC2012"
    for label in (0, 213, 999):
        for split, count in (("train", 4), ("val", 2)):
            for number in range(count):
                path = root / split / IDS[label] / f"{split}_{number}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((20, 30, 3), 10 * number + label % 7, "uint8")).save(path)
    return root


def snapshot(folder):
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def test_digits_take_the_shape_of_imagenet(tmp_path):
    contents = write_lite(tmp_path / "lite", tmp_path / "none", 20, 10, False, False)
    assert contents["source"] == "scanned digits" and contents["missing"] == {}
    folder = tmp_path / "lite"
    assert json.loads((folder / "contents.json").read_text()) == contents
    assert all((folder / name).is_file() for name in LISTS)
    train = read_list(folder / "train_list.txt", folder, 1000)
    assert sorted(train.labels) == sorted(2 * list(range(10)))
    assert all(IDS[label] in name for name, label in zip(train.names, train.labels))
    sizes = set()
    for name in train.names:
        with Image.open(name) as image:
            assert image.format == "JPEG" and image.mode == "RGB"
            sizes.add(image.size)
    assert len(sizes) > 15
    assert any(w > 1.05 * h for w, h in sizes) and any(h > 1.05 * w for w, h in sizes)


def test_inference_images_are_the_validation_images(tmp_path):
    folder = tmp_path / "lite"
    write_lite(folder, tmp_path / "none", 10, 10, False, False)
    names = read_test_list(folder / "test_list.txt", folder).names
    assert [os.path.realpath(name) for name in names] == [
        os.path.realpath(name) for name in read_list(folder / "val_list.txt", folder, 1000).names
    ]


def test_a_sample_is_copied_and_imagenet_is_left_alone(imagenet, tmp_path):
    before = snapshot(imagenet)
    contents = write_lite(tmp_path / "lite", imagenet, 6, 3, False, False)
    assert contents["source"] == str(imagenet)
    train = read_list(tmp_path / "lite" / "train_list.txt", tmp_path / "lite", 1000)
    assert len(train.names) == 6 and set(train.labels) == {0, 213, 999}
    assert not os.path.islink(train.names[0]) and os.path.isfile(train.names[0])
    write_lite(tmp_path / "lite", imagenet, 100, 100, False, False)  # more than there are: all of them
    assert len(read_list(tmp_path / "lite" / "train_list.txt", tmp_path / "lite", 1000).names) == 12
    assert snapshot(imagenet) == before


def test_whole_sets_are_links(imagenet, tmp_path):
    before = snapshot(imagenet)
    folder = tmp_path / "lite"
    write_lite(folder, imagenet, 6, 3, True, True)
    assert len(read_list(folder / "train_list.txt", folder, 1000).names) == 12
    assert (folder / "train").is_symlink()
    assert all(os.path.isfile(name) for name in read_test_list(folder / "test_list.txt", folder).names)
    write_lite(folder, imagenet, 6, 3, False, True)
    assert not (folder / "train").is_symlink() and len(read_test_list(folder / "test_list.txt", folder).names) == 6
    assert snapshot(imagenet) == before


def test_what_is_not_there_is_said(tmp_path):
    contents = write_lite(tmp_path / "lite", tmp_path / "none", 10, 10, True, True)
    reason = f"there is no ImageNet in {tmp_path / 'none'}"
    assert contents["missing"] == {"train": reason, "infer": reason}


def test_only_its_own_folder_is_replaced(imagenet, tmp_path):
    for folder in (imagenet, imagenet / "lite", tmp_path):
        with pytest.raises(CaitError, match="nothing is written there"):
            write_lite(folder, imagenet, 10, 10, False, False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("keep me")
    with pytest.raises(CaitError, match="was not made by"):
        write_lite(tmp_path / "mine", tmp_path / "none", 10, 10, False, False)
    (tmp_path / "link").symlink_to(imagenet)
    with pytest.raises(CaitError, match="is a link"):
        write_lite(tmp_path / "link", tmp_path / "none", 10, 10, False, False)
    assert (tmp_path / "mine" / "a.txt").read_text() == "keep me"


def test_more_images_than_digits_are_drawn_anew(tmp_path, monkeypatch):
    """A benchmark of large batches needs more training images than there are scans; none is one of validation."""
    scans = lite.load_scans()
    few = types.SimpleNamespace(images=scans.images[:40], target=scans.target[:40])
    monkeypatch.setattr(lite, "load_scans", lambda: few)
    monkeypatch.setattr(lite, "FIRST_VALIDATION_DIGIT", 20)
    write_lite(tmp_path / "lite", tmp_path / "none", 50, 12, False, False)
    names = read_list(tmp_path / "lite" / "train_list.txt", tmp_path / "lite", 1000).names
    assert len({pathlib.Path(name).read_bytes() for name in names}) == 50
    assert len(read_list(tmp_path / "lite" / "val_list.txt", tmp_path / "lite", 1000).names) == 12


def tiny():
    return CaiT(image_size=[16, 16], patch_size=4, num_classes=10, embed_dim=16, depth=1, num_heads=2)


def test_stand_in_weights_tell_images_apart(tmp_path):
    sentence = place_weights(tmp_path / "published", tmp_path / "weights", tiny)
    assert "RANDOM" in sentence
    model = tiny()
    model.set_state_dict(paddle.load(str(tmp_path / "weights" / "published.pdparams")))
    model.eval()
    logits = model(paddle.randn([2, 3, 16, 16]))
    assert float((logits[0] - logits[1]).abs().max()) > 0.05


def test_weights_that_are_there_are_named_by_their_path(tmp_path):
    """Any file may lie there: nothing says that it is the published one."""
    (tmp_path / "published.pdparams").write_bytes(b"rubbish")
    sentence = place_weights(tmp_path / "published", tmp_path / "weights", tiny)
    target = tmp_path / "weights" / "published.pdparams"
    assert sentence == f"{target}: the weights at {tmp_path / 'published.pdparams'}"
    assert target.read_bytes() == b"rubbish"


def test_the_command(tiny_yaml, tmp_path):
    folder = tmp_path / "a folder"
    words = [f"--output={folder}", f"--data-path={tmp_path / 'none'}", "--num-train=10", f"-cfg={tiny_yaml}"]
    words += ["--infer=whole", f"--weights={tmp_path / 'tiny'}"]
    result = run_python(str(ROOT / "CaiT" / "prepare_data.py"), "lite", *words)
    assert result.returncode == 0, result.stderr
    assert "the whole set to infer on is not here: there is no ImageNet in" in result.stdout
    assert "RANDOM weights" in result.stdout and (folder / "weights" / "tiny.pdparams").is_file()


@pytest.mark.parametrize("line", ["/etc/hostname 3", "../elsewhere/image.JPEG 3"])
@pytest.mark.parametrize("whole", [False, True])
def test_paths_outside_imagenet_are_refused(imagenet, tmp_path, line, whole):
    for split in ("train", "val"):
        (imagenet / f"{split}_list.txt").write_text(f"{line}\n" * 3)
    with pytest.raises(CaitError, match="train_list.txt: .* a sample can be taken of paths below"):
        write_lite(tmp_path / "lite", imagenet, 2, 2, whole_train=whole, whole_infer=False)
    assert not (tmp_path / "lite").exists() and not (tmp_path / "elsewhere").exists()
