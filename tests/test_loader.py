"""Batches: order, workers, and images that cannot be read."""

import pathlib

import numpy as np
import pytest

from cait.data.dataset import ImageDataset
from cait.data.loader import ImageLoader
from cait.data.sampler import EpochBatchSampler, derive_seed
from cait.data.transforms import TrainTransform
from cait.errors import CaitError
from test_dataset import noise_images


def make_loader(folder, count=10, num_workers=0, skip=False, shuffle=True):
    dataset = ImageDataset(noise_images(folder, count), TrainTransform((8, 8)), 3, seed=0)
    return ImageLoader(dataset, 4, shuffle, seed=0, num_workers=num_workers, skip_bad_images=skip)


def epoch_of(loader, epoch):
    loader.set_epoch(epoch)
    batches = list(loader)
    pixels = np.concatenate([batch.images.numpy() for batch in batches])
    assert all(batch.labels.tolist() == batch.indices.tolist() for batch in batches)
    return [batch.labels.tolist() for batch in batches], pixels


def test_workers_change_nothing(tmp_path):
    labels, pixels = epoch_of(make_loader(tmp_path), 3)
    for num_workers in (1, 2):
        other_labels, other_pixels = epoch_of(make_loader(tmp_path, num_workers=num_workers), 3)
        assert labels == other_labels and np.array_equal(pixels, other_pixels)


def test_every_image_comes_once_and_the_last_batch_is_partial(tmp_path):
    loader = make_loader(tmp_path)
    labels, _ = epoch_of(loader, 1)
    assert [len(batch) for batch in labels] == [4, 4, 2] and len(loader) == 3
    assert sorted(sum(labels, [])) == list(range(10))


def test_epochs_differ_and_repeat(tmp_path):
    loader = make_loader(tmp_path)
    first, second, again = (epoch_of(loader, epoch) for epoch in (1, 2, 1))
    assert first[0] != second[0] and first[0] == again[0]
    assert np.array_equal(first[1], again[1])


def test_evaluation_keeps_the_order(tmp_path):
    labels, _ = epoch_of(make_loader(tmp_path, shuffle=False), 0)
    assert sum(labels, []) == list(range(10))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_image_is_an_error_or_left_out(tmp_path, num_workers):
    def break_one():
        (pathlib.Path(tmp_path) / "5.png").write_bytes(b"no image")

    strict = make_loader(tmp_path, num_workers=num_workers)
    break_one()
    with pytest.raises(CaitError, match=r"5\.png: the image cannot be read"):
        list(strict)
    lenient = make_loader(tmp_path, num_workers=num_workers, skip=True)
    break_one()
    labels, _ = epoch_of(lenient, 1)
    assert sorted(sum(labels, [])) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert len(lenient.errors) == 1 and "5.png" in lenient.errors[0]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_batch_of_bad_images_is_left_out_whole(tmp_path, num_workers):
    loader = make_loader(tmp_path, num_workers=num_workers, skip=True, shuffle=False)
    for index in range(4):
        (tmp_path / f"{index}.png").unlink()
    labels, _ = epoch_of(loader, 1)
    assert labels == [[4, 5, 6, 7], [8, 9]] and len(loader.errors) == 4


def test_sampler_gives_pairs_of_epoch_and_index():
    sampler = EpochBatchSampler(3, 2, shuffle=False, seed=0)
    sampler.set_epoch(7)
    assert list(sampler) == [[(7, 0), (7, 1)], [(7, 2)]]


def test_derived_seeds_differ_in_every_part():
    seeds = {derive_seed(a, b, c) for a in range(3) for b in range(3) for c in range(3)}
    assert len(seeds) == 27 and all(0 <= seed < 2**31 for seed in seeds)
    assert derive_seed(1, 2) == derive_seed(1, 2)
