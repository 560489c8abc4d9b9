"""Preprocessing against the reference's pixels, by the compiled loops and by Pillow."""

import numpy as np
import paddle
import pytest
from PIL import Image

from cait.data import pixels
from cait.data.normalize import Normalize
from cait.data.transforms import EvalTransform, TrainTransform
from project import GOLDEN


@pytest.fixture(autouse=True, params=["as it is", "without loops"])
def loops(request, monkeypatch):
    if request.param == "without loops":
        monkeypatch.setattr(pixels, "loops_or_reason", lambda: (None, "not wanted"))


def test_evaluation_pixels_are_those_of_the_reference():
    golden = np.load(GOLDEN / "eval_preprocess.npz")
    checked = 0
    for key in golden:
        name, what = key.split("/")
        if what == "image":
            continue
        size, crop_pct = what.removeprefix("size").split("_pct")
        transform = EvalTransform((int(size), int(size)), float(crop_pct))
        assert np.array_equal(transform(Image.fromarray(golden[f"{name}/image"])), golden[key]), key
        checked += 1
    assert checked >= 12


@pytest.mark.parametrize("width, height", [(100, 50), (50, 100), (64, 48), (7, 200)])
@pytest.mark.parametrize("size", [(32, 48), (48, 32), (32, 32)])
def test_evaluation_covers_a_size_that_is_not_square(width, height, size):
    image = Image.fromarray(np.full((height, width, 3), 200, "uint8"))
    array = EvalTransform(size, 0.9)(image)
    assert array.shape == (*size, 3)
    assert (array == 200).all()  # no border was added


def test_training_crops_stay_in_the_image_and_in_range():
    transform = TrainTransform((8, 8), (0.2, 0.5), (0.5, 2.0))
    rng = np.random.default_rng(0)
    areas, ratios = [], []
    for _ in range(300):
        left, top, right, bottom = transform._crop_box((200, 100), rng)
        assert 0 <= left < right <= 200 and 0 <= top < bottom <= 100
        areas.append((right - left) * (bottom - top) / 20000)
        ratios.append((right - left) / (bottom - top))
    assert 0.19 < min(areas) < 0.23 and 0.47 < max(areas) < 0.51
    assert min(ratios) < 0.6 and 1.8 < max(ratios) < 2.1


@pytest.mark.parametrize("size, box", [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506))])
def test_an_image_too_narrow_for_any_crop_is_cropped_at_its_centre(size, box):
    assert TrainTransform((8, 8), (0.9, 1.0))._crop_box(size, np.random.default_rng(0)) == box


def test_one_pixel_is_enough():
    image = Image.fromarray(np.full((1, 1, 3), 9, "uint8"))
    assert (TrainTransform((8, 8))(image, np.random.default_rng(0)) == 9).all()
    assert (EvalTransform((8, 8))(image) == 9).all()


@pytest.mark.parametrize("hflip", [0.0, 1.0])
def test_flip(hflip):
    image = Image.fromarray(np.arange(64 * 3, dtype="uint8").reshape(8, 8, 3))
    transform = TrainTransform((8, 8), (1.0, 1.0), (1.0, 1.0), hflip)
    expected = np.asarray(image)[:, ::-1] if hflip else np.asarray(image)
    assert np.array_equal(transform(image, np.random.default_rng(0)), expected)


def test_normalise():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype="uint8")
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    out = Normalize(mean, std)(paddle.to_tensor(images))
    expected = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert out.dtype == paddle.float32
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-6)


def test_a_strip_is_refused_before_it_is_resized():
    with pytest.raises(ValueError, match="sides of 1 and 100000 pixels differ too much"):
        EvalTransform((224, 224))(Image.new("RGB", (1, 100000)))


def evaluation_is_one_resize(transform, width, height, rng):
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), "uint8"))
    whole = image.resize(transform._resized(image.size), Image.Resampling.BICUBIC)
    rows, columns = transform.size
    left, top = int(round((whole.width - columns) / 2)), int(round((whole.height - rows) / 2))
    expected = np.asarray(whole.crop((left, top, left + columns, top + rows)))
    return np.array_equal(transform(image), expected)


def test_evaluation_gives_the_pixels_of_one_resize_whatever_the_shape():
    """What the crop leaves out is not resized; nothing else may differ from Pillow's own way."""
    rng = np.random.default_rng(0)
    for number in range(60):
        width, height = (int(side) for side in rng.integers(20, 400, 2))
        size = tuple(int(side) for side in rng.integers(8, 200, 1 + number % 2))
        transform = EvalTransform(size * (2 // len(size)), (1.0, 0.875)[number % 3 == 0])
        assert evaluation_is_one_resize(transform, width, height, rng), (width, height, transform)


@pytest.mark.parametrize("width, height", [(500, 336), (667, 448), (448, 224), (335, 225), (500, 375), (224, 224)])
def test_evaluation_does_so_where_the_sides_shrink_by_nearly_the_same(width, height):
    """So that either could come first: 336 pixels shrink by 1.5, and 500 to 333 by a little more."""
    assert evaluation_is_one_resize(EvalTransform((224, 224)), width, height, np.random.default_rng(0))
