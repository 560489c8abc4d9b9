"""DATA.READER=fast: the same crops as Pillow's, pixels near to them, and Pillow for what it cannot decode."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from cait.bench.input import MemorySource
from cait.bench.photos import photos
from cait.data.augment import parse_rand_augment
from cait.data.build import build_loaders
from cait.data.dataset import ImageDataset
from cait.data.fast import FastTrainTransform, prepare_fast_reader
from cait.data.sources import FileSource
from cait.data.transforms import TrainTransform
from cait.errors import UsageError

SIZE = (224, 224)


@pytest.fixture
def packages():
    """Skips the test where requirements-fast.txt is not installed."""
    pytest.importorskip("simplejpeg")
    prepare_fast_reader()


def batch(items, kind, channels=3, **arguments):
    dataset = ImageDataset(MemorySource(items), kind(SIZE, **arguments), channels, 0)
    samples = [dataset[(1, index)] for index in range(len(items))]
    assert [sample[3] for sample in samples] == [""] * len(items)
    return np.stack([sample[0] for sample in samples])


@pytest.mark.parametrize("size, allowed", [((500, 375), 1.8), ((2400, 1800), 2.5)], ids=["as it is", "decoded smaller"])
def test_pixels_are_near_those_of_pillow(packages, size, allowed):
    """Of 255, in the mean; the crop of another box or without the flip differs by 30 and more."""
    files = photos(8, size, num_bytes=50_000 * size[0] // 500)
    ours, theirs = (batch(files, kind).astype(int) for kind in (FastTrainTransform, TrainTransform))
    assert ours.shape == theirs.shape == (8, 224, 224, 3)
    assert np.abs(ours - theirs).mean(axis=(1, 2, 3)).max() < 3 * allowed and np.abs(ours - theirs).mean() < allowed
    assert np.abs(ours[:, :, ::-1] - theirs).mean() > 20


def test_grey_and_other_formats_are_read_too(packages):
    file = photos(1)[0]
    images = [io.BytesIO(), io.BytesIO()]
    Image.open(io.BytesIO(file)).save(images[0], format="PNG")
    Image.open(io.BytesIO(file)).convert("CMYK").save(images[1], format="JPEG", quality=95)
    for channels in (1, 3):
        plain, png, cmyk = batch([file, *(image.getvalue() for image in images)], FastTrainTransform, channels)
        reference = batch([file, *(image.getvalue() for image in images)], TrainTransform, channels)
        for ours, theirs in zip((plain, png, cmyk), reference):
            assert ours.shape == (*SIZE, channels) and np.abs(ours.astype(int) - theirs).mean() < 5


def test_what_follows_the_crop_draws_the_same(packages):
    """An image that needs no resizing has the same pixels, and so the same after every step."""
    image = Image.open(io.BytesIO(photos(1, SIZE)[0])).convert("RGB")
    whole = {
        "crop_scale": (1.0, 1.0),
        "crop_ratio": (1.0, 1.0),
        "steps": (parse_rand_augment("rand-m9-inc1", (0, 0, 0)),),
    }
    ours, theirs = (batch([image] * 12, kind, **whole) for kind in (FastTrainTransform, TrainTransform))
    assert np.array_equal(ours, theirs) and len(np.unique(theirs, axis=0)) > 6


def test_a_damaged_file_is_left_to_pillow_which_says_what_is_wrong(packages, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(photos(1)[0][:20_000])
    dataset = ImageDataset(FileSource([str(tmp_path / "cut.jpg")], [0]), FastTrainTransform(SIZE), 3, 0)
    array, _, _, error = dataset[(1, 0)]
    assert array is None and error.startswith(f"{tmp_path / 'cut.jpg'}: the image cannot be read (")


def test_training_reads_fast_where_the_config_says_so(packages, tiny_config):
    fast = build_loaders(tiny_config(DATA__READER="fast"))
    assert isinstance(fast.train.dataset.transform, FastTrainTransform)
    assert not isinstance(fast.val.dataset.transform, FastTrainTransform)
    [first, *_] = fast.train
    assert first.images.shape == [16, 16, 16, 1]
    assert not isinstance(build_loaders(tiny_config()).train.dataset.transform, FastTrainTransform)


def test_without_the_packages_one_sentence_says_what_to_install(tiny_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(UsageError, match="pip install -r requirements-fast.txt"):
        build_loaders(tiny_config(DATA__READER="fast"))
