"""Batches: order, workers, and images that cannot be read."""

import itertools
import multiprocessing
import pathlib

import numpy as np
import pytest

from cait.data.augment import ColorJitter, RandomErasing, parse_rand_augment
from cait.data.dataset import ImageDataset
from cait.data.loader import BATCHES_AHEAD
from cait.data.normalize import Normalize
from cait.data.sampler import EpochBatchSampler, derive_seed
from cait.data.transforms import TrainTransform
from cait.errors import CaitError
from pictures import loader_of, noise_images


def make_loader(folder, count=10, num_workers=0, skip=False, shuffle=True):
    dataset = ImageDataset(noise_images(folder, count), TrainTransform((8, 8)), 3, seed=0)
    return loader_of(dataset, 4, shuffle, num_workers, skip)


def erasing_loader(folder, num_workers=0, repeats=1, skip=False):
    steps = (parse_rand_augment("rand-m9-n4-p1-mstd0.5-inc1", (124, 116, 104)), ColorJitter(0.3))
    dataset = ImageDataset(noise_images(folder, 10), TrainTransform((8, 8), steps=steps), 3, 0, RandomErasing(0.6))
    return loader_of(dataset, 4, True, num_workers, skip, repeats)


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


def normalised_epoch(loader, epoch=1, **options):
    """{(index, repeat): normalised image} of an epoch; None as repeat where an image comes once."""
    normalize, found = Normalize([0.4] * 3, [0.2] * 3), {}
    loader.set_epoch(epoch, **options)
    for batch in loader:
        for index, image in zip(batch.indices.tolist(), normalize(batch.images, batch.erased).numpy()):
            found.setdefault(index, []).append(image)
    return found


def assert_same_epoch(left, right):
    assert set(left) == set(right)
    for index, images in left.items():
        assert np.array_equal(np.stack(images), np.stack(right[index])), index


@pytest.mark.parametrize("repeats", [1, 3])
def test_augmented_images_do_not_depend_on_the_workers(tmp_path, repeats):
    expected = normalised_epoch(erasing_loader(tmp_path, repeats=repeats))
    assert_same_epoch(expected, normalised_epoch(erasing_loader(tmp_path, num_workers=2, repeats=repeats)))
    for images in expected.values():  # the repeats of an image differ
        assert len({image.tobytes() for image in images}) == len(images)
    other = normalised_epoch(erasing_loader(tmp_path, repeats=repeats), epoch=2)
    assert not any(
        np.array_equal(image, found) for index, images in expected.items() for image in images
        for found in other.get(index, [])
    )  # fmt: skip


def test_erased_pixels_are_those_of_their_image(tmp_path):
    """What a batch erases, image by image, against the data set's own samples."""
    loader, seen = erasing_loader(tmp_path), 0
    normalize = Normalize([0.4] * 3, [0.2] * 3)
    loader.set_epoch(1)
    for batch in loader:
        images = normalize(batch.images, batch.erased).numpy()
        plain = normalize(batch.images).numpy()
        for row, index in enumerate(batch.indices.tolist()):
            places, values = loader.dataset[1, index][4]
            expected = plain[row].reshape(3, -1).copy()
            expected[:, places] = values.T
            assert np.array_equal(images[row].reshape(3, -1), expected)
            seen += len(places) > 0
    assert 2 < seen < 10


def test_erasing_and_a_bad_image_keep_apart(tmp_path):
    expected = normalised_epoch(erasing_loader(tmp_path))
    loader = erasing_loader(tmp_path, skip=True)
    (tmp_path / "5.png").unlink()
    del expected[5]
    assert_same_epoch(expected, normalised_epoch(loader))


def test_without_erasing_there_is_nothing_to_replace(tmp_path):
    assert all(batch.erased is None for batch in make_loader(tmp_path))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("num_read", [0, 1, 2, 3])
def test_an_epoch_goes_on_where_it_was_broken_off(tmp_path, num_workers, num_read):
    loader = make_loader(tmp_path, num_workers=num_workers)
    labels, pixels = epoch_of(loader, 2)
    loader.set_epoch(2, num_read, ["an error before"])
    rest = list(loader)
    assert [batch.labels.tolist() for batch in rest] == labels[num_read:] and len(loader) == 3
    assert loader.errors == ["an error before"] and loader.num_read == 3
    for batch, expected in zip(rest, np.split(pixels, [4, 8])[num_read:]):
        assert np.array_equal(batch.images.numpy(), expected)
    loader.set_epoch(1)
    assert len(list(loader)) == 3 and loader.errors == []


def test_leaving_an_epoch_ends_its_processes(tmp_path):
    before = set(multiprocessing.active_children())
    batches = iter(make_loader(tmp_path, num_workers=2))
    next(batches)
    assert len(set(multiprocessing.active_children()) - before) == 2
    batches.close()
    assert not set(multiprocessing.active_children()) - before


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("error", [RuntimeError("broken"), MemoryError(), StopIteration("broken")], ids=repr)
@pytest.mark.parametrize("part", ["erasing", "collate"])
def test_a_reader_that_fails_ends_the_iteration_with_its_reason(tmp_path, monkeypatch, num_workers, error, part):
    """Outside the decoding of an image, where it is nobody's fault but ours; skipping bad images changes nothing."""

    def fail(*_):
        raise error

    loader = make_loader(tmp_path, num_workers=num_workers, skip=True)
    if part == "erasing":
        loader.dataset.erasing = fail
    else:
        monkeypatch.setattr("cait.data.loader.collate", fail)
    with pytest.raises(CaitError) as found:
        list(loader)
    if isinstance(error, MemoryError):
        assert "not the memory to read a batch: lower DATA.BATCH_SIZE" in str(found.value)
    else:
        words = f"a batch of images could not be read: {type(error).__name__}: broken (test_loader.py, line "
        assert str(found.value).startswith(words)


def test_a_thread_reads_a_few_batches_ahead_and_ends_with_the_iteration(tmp_path):
    read = []

    def transform(image, rng):
        read.append(image)
        return np.zeros((8, 8, 3), "uint8")

    dataset = ImageDataset(noise_images(tmp_path, 40), transform, 3, seed=0)
    batches = iter(loader_of(dataset, 4, True))
    next(batches)
    batches.close()
    count = len(read)
    assert count <= 4 * (1 + BATCHES_AHEAD + 1)
    assert count < 40


def test_bad_images_are_known_by_place_and_label(tmp_path):
    loader = make_loader(tmp_path, skip=True, shuffle=False)
    for index in (1, 8):
        (tmp_path / f"{index}.png").unlink()
    for _ in range(2):  # each time anew
        list(loader)
        assert [(image.index, image.label) for image in loader.bad] == [(1, 1), (8, 8)]
        assert loader.errors == [image.error for image in loader.bad]


def test_unreadable_batches_count_as_read(tmp_path):
    loader = make_loader(tmp_path, skip=True, shuffle=False)
    for index in range(4):
        (tmp_path / f"{index}.png").unlink()
    batches = iter(loader)
    assert next(batches).labels.tolist() == [4, 5, 6, 7] and loader.num_read == 2


def samples(count, repeats, num_processes=1, batch_size=4, shuffle=True, accum_iter=1):
    """The samples of an epoch, process by process, batch by batch."""
    processes = []
    for rank in range(num_processes):
        sampler = EpochBatchSampler(count, batch_size, shuffle, 0, repeats, num_processes, rank, accum_iter)
        sampler.set_epoch(5)
        processes.append(list(sampler))
        assert len(processes[-1]) == len(sampler) <= sampler.most_batches
        sampler.set_epoch(5, 2)
        assert list(sampler) == processes[-1][2:]
    return processes


@pytest.mark.parametrize("accum_iter", [1, 4])
@pytest.mark.parametrize("count", [1, 2, 10, 40, 256, 1000])
@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_repeats_keep_the_length_of_the_epoch(count, num_processes, accum_iter):
    processes = samples(count, 3, num_processes, accum_iter=accum_iter)
    sizes = [sum(map(len, batches)) for batches in processes]
    assert sum(sizes) == count and sizes[0] - sizes[-1] <= 1  # no sample twice, and no process has much less to do
    keys = [key for batches in processes for batch in batches for key in batch]
    distinct = {index for _, index, _ in keys}
    assert len(distinct) == -(-count // 3) and {repeat for *_, repeat in keys} <= {0, 1, 2}
    assert len(set(keys)) == count


def test_repeats_fall_to_different_processes():
    processes = samples(48, 3, 3)
    for step in zip(*processes):
        for row in zip(*step):  # the same place in the batches of the three
            assert len({index for _, index, _ in row}) == 1 and [repeat for *_, repeat in row] == [0, 1, 2]


@pytest.mark.parametrize("repeats", [1, 3])
def test_all_processes_together_have_the_steps_of_one(repeats):
    (one,) = samples(48, repeats, 1, batch_size=8)
    for whole, parts in zip(one, zip(*samples(48, repeats, 2, batch_size=4))):
        assert sorted(whole) == sorted(sum(parts, []))


def test_batches_of_a_step_are_those_of_as_many_processes():
    """Each of the authors' 8 processes has an image once in a batch of 128; a sample is in the same step as theirs."""
    theirs = samples(5000, 3, 8, batch_size=128)
    (ours,) = samples(5000, 3, 1, batch_size=128, accum_iter=8)
    assert ours == [batch for step in itertools.zip_longest(*theirs, fillvalue=[]) for batch in step if batch]
    two = samples(5000, 3, 2, batch_size=128, accum_iter=4)
    assert sorted(map(sorted, sum(two, []))) == sorted(map(sorted, ours))
    assert all(len({index for _, index, _ in batch}) == len(batch) for batch in ours)


def test_what_makes_a_step_changes_nothing_without_repeats():
    assert samples(100, 1, 2, accum_iter=3) == samples(100, 1, 2)


def test_processes_share_an_evaluation_without_a_double():
    keys = [key for batches in samples(10, 1, 3, shuffle=False) for batch in batches for key in batch]
    assert sorted(index for _, index in keys) == list(range(10))


def test_sampler_gives_pairs_of_epoch_and_index():
    sampler = EpochBatchSampler(3, 2, shuffle=False, seed=0)
    sampler.set_epoch(7)
    assert list(sampler) == [[(7, 0), (7, 1)], [(7, 2)]]


def test_derived_seeds_differ_in_every_part():
    seeds = {derive_seed(a, b, c) for a in range(3) for b in range(3) for c in range(3)}
    assert len(seeds) == 27 and all(0 <= seed < 2**31 for seed in seeds)
    assert derive_seed(1, 2) == derive_seed(1, 2)
