"""`build_loaders`: the data sets, what a job reads, and class names."""

import io
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from cait.data.build import build_loaders
from cait.errors import CaitError, UsageError


def test_training_reads_train_and_val_lists_only(tiny_config, digits):
    (digits / "test_list.txt").unlink()
    loaders = build_loaders(tiny_config())
    assert (len(loaders.train.dataset), len(loaders.val.dataset), loaders.test) == (40, 20, None)
    assert loaders.classes.names[:2] == ["zero", "one"]


def test_evaluation_reads_the_val_list_only(tiny_config, digits):
    (digits / "test_list.txt").unlink()
    (digits / "train_list.txt").unlink()
    loaders = build_loaders(tiny_config(EVAL=True, MODEL__PRETRAINED="x"))
    assert (loaders.train, len(loaders.val.dataset), loaders.test) == (None, 20, None)


def test_prediction_reads_the_test_list_only(tiny_config, digits):
    (digits / "val_list.txt").unlink()
    (digits / "train_list.txt").unlink()
    loaders = build_loaders(tiny_config(PRED=True, MODEL__PRETRAINED="x"))
    assert (loaders.train, loaders.val, len(loaders.test.dataset)) == (None, None, 10)


def test_training_without_validation_reads_no_val_list(tiny_config, digits):
    (digits / "val_list.txt").unlink()
    assert build_loaders(tiny_config(VALIDATE_FREQ=0)).val is None


def test_one_image_needs_no_data_folder(tiny_config, digits):
    image = str(digits / "val" / "zero" / "0000.png")
    config = tiny_config(PRED=True, MODEL__PRETRAINED="x", PREDICT__IMAGE=image, DATA__DATA_PATH="nowhere")
    loaders = build_loaders(config)
    assert loaders.test.dataset.source.names == [image]
    assert loaders.classes.names == [str(index) for index in range(10)]


def test_no_data_folder_is_an_error(tiny_config):
    with pytest.raises(CaitError, match="nowhere: no such data folder"):
        build_loaders(tiny_config(DATA__DATA_PATH="nowhere"))


def test_channels_that_no_image_has_are_an_error(tiny_config):
    with pytest.raises(UsageError, match="IN_CHANNELS"):
        build_loaders(tiny_config(MODEL__IN_CHANNELS=2, DATA__MEAN=[0.5, 0.5], DATA__STD=[0.5, 0.5]))


def test_class_names_of_imagenet_are_built_in(tiny_config, digits):
    (digits / "labels.txt").unlink()
    names = build_loaders(tiny_config(MODEL__NUM_CLASSES=1000)).classes.names
    assert (len(names), names[213]) == (1000, "Irish setter, red setter")


def test_a_label_file_names_the_classes(tiny_config, tmp_path):
    (tmp_path / "names.txt").write_text("".join(f"{index} class {index}\n" for index in range(10)))
    assert build_loaders(tiny_config(DATA__LABELS=str(tmp_path / "names.txt"))).classes.names[3] == "class 3"


def test_a_label_file_of_another_length_is_an_error(tiny_config):
    with pytest.raises(UsageError, match="labels.txt: names 10 classes, but MODEL.NUM_CLASSES is 11"):
        build_loaders(tiny_config(MODEL__NUM_CLASSES=11))


def test_folder_has_a_class_per_folder(tiny_config, digits):
    shutil.copytree(digits / "val", digits / "test")
    config = {"DATA__DATASET": "folder"}
    loaders = build_loaders(tiny_config(**config))
    assert loaders.classes.names == sorted(loaders.classes.names) and len(loaders.classes.names) == 10
    source = loaders.train.dataset.source
    assert len(source.names) == 40
    for name, label in zip(source.names, source.labels):
        assert f"/train/{loaders.classes.names[label]}/" in name
    test = build_loaders(tiny_config(**config, PRED=True, MODEL__PRETRAINED="x")).test
    assert len(test.dataset) == len(list((digits / "test").rglob("*.png"))) > 0


def test_folder_of_another_class_count_says_what_to_set(tiny_config):
    with pytest.raises(UsageError, match="has 10 classes: set -o MODEL.NUM_CLASSES=10, not 7"):
        build_loaders(tiny_config(DATA__DATASET="folder", MODEL__NUM_CLASSES=7))


def test_folder_with_an_unknown_class_in_val_is_an_error(tiny_config, digits):
    (digits / "val" / "ten").mkdir()
    shutil.copy(digits / "val" / "zero" / "0000.png", digits / "val" / "ten")
    with pytest.raises(CaitError, match="ten/0000.png: not in the folder of a class"):
        build_loaders(tiny_config(DATA__DATASET="folder"))


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, tmp_path):
    """A small archive in the published format."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 3072), dtype="uint8")
    if request.param == "cifar10":
        name, key, members = "cifar-10-python.tar.gz", b"labels", ["data_batch_1", "test_batch"]
        meta = ("batches.meta", {"label_names": [f"name {i}" for i in range(10)]})
    else:
        name, key, members = "cifar-100-python.tar.gz", b"fine_labels", ["train", "test"]
        meta = ("meta", {"fine_label_names": [f"name {i}" for i in range(100)]})
    with tarfile.open(tmp_path / name, "w:gz") as tar:
        contents = [(member, {b"data": pixels, key: [0, 1, 2, 3, 4, 9]}) for member in members]
        for member, content in [*contents, meta]:
            data = pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(f"cifar/{member}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return request.param, tmp_path / name, pixels


def test_cifar_is_read_from_its_archive(tiny_config, cifar):
    dataset, archive, pixels = cifar
    rgb = {"DATA__MEAN": [0.5] * 3, "DATA__STD": [0.5] * 3, "MODEL__IN_CHANNELS": 3}
    classes = 10 if dataset == "cifar10" else 100
    config = {"DATA__DATASET": dataset, "MODEL__NUM_CLASSES": classes, "DATA__IMAGE_SIZE": 32, **rgb}
    for path in (archive, archive.parent):
        loaders = build_loaders(tiny_config(**config, DATA__DATA_PATH=str(path)))
        assert loaders.classes.names[9] == "name 9"
        [batch] = loaders.val
        assert batch.labels.tolist() == [0, 1, 2, 3, 4, 9]
        assert np.array_equal(batch.images.numpy(), pixels.reshape(6, 3, 32, 32).transpose(0, 2, 3, 1))


@pytest.mark.parametrize("cifar", ["cifar10"], indirect=True)
@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_broken_cifar_archive_is_an_error(tiny_config, cifar, damage):
    _, archive, _ = cifar
    content = bytearray(archive.read_bytes())
    if damage == "flipped":
        content[5000:5040] = bytes(255 - byte for byte in content[5000:5040])
    archive.write_bytes(content[:2000] if damage == "truncated" else content)
    with pytest.raises(CaitError, match="cifar-10-python.tar.gz"):
        build_loaders(tiny_config(DATA__DATASET="cifar10", DATA__DATA_PATH=str(archive)))


def test_a_missing_cifar_archive_is_an_error(tiny_config, tmp_path):
    with pytest.raises(CaitError, match="put the archive cifar-100-python.tar.gz there"):
        build_loaders(tiny_config(DATA__DATASET="cifar100", DATA__DATA_PATH=str(tmp_path)))


def test_grey_and_rgb_reading_follow_the_model(tiny_config, digits):
    for path in (digits / "train").rglob("*.png"):
        Image.open(path).convert("CMYK").save(path.with_suffix(".jpg"))
        path.with_suffix(".jpg").rename(path)
    [batch, *_] = build_loaders(tiny_config()).train
    assert batch.images.shape == [16, 16, 16, 1]
    rgb = tiny_config(MODEL__IN_CHANNELS=3, DATA__MEAN=[0.5] * 3, DATA__STD=[0.5] * 3)
    [batch, *_] = build_loaders(rgb).train
    assert batch.images.shape == [16, 16, 16, 3]
