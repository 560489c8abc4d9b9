"""Resizing and affine transforms by compiled loops: Pillow's pixels to the last bit, or Pillow itself."""

import ctypes

import numpy as np
import pytest
from PIL import Image

from cait.bench.input import MemorySource
from cait.bench.photos import photos
from cait.data import pixels
from cait.data.augment import OPERATIONS, ColorJitter, RandomErasing, parse_rand_augment
from cait.data.dataset import ImageDataset
from cait.data.transforms import EvalTransform, TrainTransform
from cait.machine.compiled import CannotBuild

BICUBIC, FILL = Image.Resampling.BICUBIC, (124, 116, 104)


@pytest.fixture(params=pixels.INSTRUCTIONS)
def loops(request):
    """The loops for each instruction set that this processor has."""
    flags = set(pixels.processor_fields().get("flags", "").split())
    if not flags >= set(pixels.INSTRUCTIONS[request.param]):
        pytest.skip(f"this processor has no {request.param}")
    try:
        return pixels.load(request.param)
    except CannotBuild as reason:
        pytest.skip(f"the loops cannot be used here: {reason}")


@pytest.fixture
def without_loops(monkeypatch):
    def switch_off():
        monkeypatch.setattr(pixels, "loops_or_reason", lambda: (None, "not wanted"))

    return switch_off


def random_image(rng, mode, most, kind):
    """Noise, black and white pixels, or something smooth, of up to `most` pixels a side."""
    width, height = (int(side) for side in rng.integers(1, most, 2, endpoint=True))
    if kind == 0:
        array = rng.integers(0, 256, (height, width, 3), "uint8")
    elif kind == 1:
        array = (rng.random((height, width, 3)) < 0.5).astype("uint8") * 255
    else:
        small = rng.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), "uint8")
        return Image.fromarray(small).resize((width, height), BICUBIC).convert(mode)
    return Image.fromarray(array).convert(mode)


def as_array(image):
    return np.asarray(image).reshape(image.height, image.width, -1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_shape_window_and_flip_is_resized_as_by_pillow(loops, mode):
    rng = np.random.default_rng(0)
    columns_first = 0
    for number in range(450):
        image = random_image(rng, mode, (500, 60, 6)[number % 3], number // 3 % 3)
        size = tuple(int(side) for side in rng.integers(1, (300, 40, 5)[number % 3], 2, endpoint=True))
        left, top = (int(rng.integers(side)) for side in size)
        window = (left, top, *(int(rng.integers(start, side)) + 1 for start, side in zip((left, top), size)))
        flip = bool(rng.integers(2))
        expected = as_array(image.resize(size, BICUBIC).crop(window))[:, :: -1 if flip else 1]
        assert np.array_equal(loops.resize(image, size, window, flip), expected), (image.size, size, window, flip)
        columns_first += image.height - size[1] > max(0, 2 * (image.width - size[0]))
    assert 50 < columns_first < 250


def test_either_pass_may_come_first(loops):
    """Whichever this Pillow begins with: resizing by it along one side after the other says what is right."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 60, 3), "uint8"))
    size, window = (50, 30), (0, 0, 50, 30)
    found = []
    for columns_first, between in ((True, (60, 30)), (False, (50, 200))):
        one_by_one = image.resize(between, BICUBIC).resize(size, BICUBIC)
        found.append(pixels.Loops(loops.library, columns_first).resize(image, size, window, False))
        assert np.array_equal(found[-1], as_array(one_by_one))
    assert not np.array_equal(*found)


def test_every_affine_transform_is_pillows(loops):
    rng = np.random.default_rng(0)
    inside = 0
    for number in range(400):
        image = random_image(rng, "RGB", (240, 20, 4)[number % 3], number // 3 % 3)
        width, height = image.size
        level = float(rng.uniform(-1.5, 1.5)) if number % 5 else float(rng.integers(-4, 5)) / 4
        matrix = (
            (1, level, 0, 0, 1, 0),
            (1, 0, 0, level, 1, 0),
            (1, 0, level * width, 0, 1, 0),
            (1, 0, 0, 0, 1, level * height),
            tuple(rng.uniform(-1.5, 1.5, 6) * (1, 1, width / 2, 1, 1, height / 2)),
        )[number % 5 if number % 7 else 4]
        expected = image.transform(image.size, Image.Transform.AFFINE, matrix, BICUBIC, fillcolor=(1, 2, 3))
        found = loops.transform(image, matrix, (1, 2, 3))
        assert (found.mode, found.size) == ("RGB", image.size)
        assert np.array_equal(np.asarray(found), np.asarray(expected)), (image.size, matrix)
        inside += (np.asarray(found) != (1, 2, 3)).any(axis=2).mean() > 0.5
    assert inside > 150


@pytest.mark.parametrize("size", [(64, 64), (57, 40)])
@pytest.mark.parametrize("mode, fill", [("RGB", FILL), ("L", FILL[:1])])
def test_rotation_is_pillows_rotate(size, mode, fill):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), "uint8")).convert(mode)
    for level in (*rng.uniform(-1.5, 1.5, 40), 0.0, 3.0, -3.0, 6.0, 12.0):
        expected = image.rotate(level * 30, BICUBIC, fillcolor=fill if mode == "RGB" else fill[0])
        assert np.array_equal(np.asarray(OPERATIONS["Rotate"](image, level, fill)), np.asarray(expected)), level


@pytest.mark.parametrize("window", [(-2, 3, 9, 12), (3, -1, 9, 5), (5, 5, 30, 12), (5, 5, 12, 30)])
def test_beyond_the_image_it_is_black(window):
    image = Image.fromarray(np.full((20, 20, 3), 200, "uint8"))
    found = pixels.resize(image, (16, 16), window)
    assert np.array_equal(found, as_array(image.resize((16, 16), BICUBIC).crop(window)))
    assert (found == 0).any() and (found == 200).any()


def recipe(channels):
    """Training with everything random, and evaluation, of photographs and of small images."""
    files = [*photos(12), *photos(4, (90, 400), 10_000)]
    steps = (parse_rand_augment("rand-m9-n4-p1-mstd0.5-inc1", FILL[:channels]), ColorJitter(0.3))
    for transform in (TrainTransform((224, 224), steps=steps), TrainTransform((96, 160)), EvalTransform((224, 224))):
        dataset = ImageDataset(MemorySource(files), transform, channels, 0, RandomErasing(0.5))
        yield from (dataset[(1, index)] for index in range(len(files)))


@pytest.mark.parametrize("channels", [3, 1])
def test_the_whole_recipe_is_the_same_without_the_loops(channels, without_loops):
    if pixels.loops_or_reason()[0] is None:
        pytest.skip(pixels.how())
    ours = list(recipe(channels))
    without_loops()
    for (array, _, index, error, erased), expected in zip(ours, recipe(channels), strict=True):
        assert np.array_equal(array, expected[0]) and array.std() > 1 and error == "", index
        assert all(np.array_equal(own, other) for own, other in zip(erased, expected[4], strict=True))
    assert sum(len(sample[4][0]) > 0 for sample in ours) > 10


@pytest.fixture
def anew():
    pixels.loops_or_reason.cache_clear()
    yield
    pixels.loops_or_reason.cache_clear()


@pytest.mark.parametrize(
    "flags, words", [("sse2", "this processor has no AVX2"), ("avx2", "there is no compiler (g++)")]
)
def test_the_log_says_why_pillow_resizes(flags, words, anew, monkeypatch, tmp_path):
    monkeypatch.setattr(pixels, "processor_fields", lambda: {"flags": flags})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pixels.how() == f"images resized by Pillow ({words})"


def test_the_log_says_what_the_loops_use(loops):
    assert pixels.how().removeprefix("images resized with ") in pixels.INSTRUCTIONS


def test_loops_that_give_other_pixels_are_not_used(loops, monkeypatch):
    def off_by_one(self, *words):
        return resize(self, *words) ^ 1

    resize = pixels.Loops.resize
    monkeypatch.setattr(pixels.Loops, "resize", off_by_one)
    with pytest.raises(CannotBuild, match="do not give the pixels of this Pillow"):
        pixels.load("avx2")


def test_a_lack_of_memory_is_an_error():
    class Poor:
        def cait_resize(self, *words):
            return 1

        cait_transform = cait_resize

    loops, image = pixels.Loops(Poor(), True), Image.new("RGB", (8, 6))
    for work in (
        lambda: loops.resize(image, (4, 4), (0, 0, 4, 4), False),
        lambda: loops.transform(image, (1, 0, 0, 0, 1, 0), FILL),
    ):
        with pytest.raises(MemoryError, match="8 x 6 pixels cannot be"):
            work()


def test_a_library_that_is_broken_is_not_used(loops, monkeypatch):
    def broken(path):
        raise OSError("file too short")

    monkeypatch.setattr(ctypes, "CDLL", broken)
    with pytest.raises(CannotBuild, match="cannot be loaded"):
        pixels.load("avx2")


def test_a_library_without_the_symbols_is_not_used(loops, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda path: object())
    with pytest.raises(CannotBuild, match="cannot be loaded"):
        pixels.load("avx2")


def test_a_library_that_was_cut_off_is_built_again(loops, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        pixels.load("avx2")
        assert "building the loops" in capsys.readouterr().err
        (library,) = tmp_path.glob("cait/*/*.so")
        (tmp_path / "cut").write_bytes(library.read_bytes()[:9000])  # loading it would be a bus error
        (tmp_path / "cut").replace(library)
