"""RandAugment against golden images, its notation, and the distributions of what is random."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from cait.data import augment
from cait.data.augment import OPERATIONS, ColorJitter, RandAugment, RandomErasing, parse_rand_augment, three_augment
from cait.errors import UsageError
from project import GOLDEN

FILL = (124, 116, 104)
ARGUMENTS = json.loads((GOLDEN / "randaugment_args.json").read_text())


@pytest.fixture
def golden():
    return dict(np.load(GOLDEN / "randaugment_ops.npz"))


def split(key):
    name, magnitude, sign = key.split("/")
    return name, float(magnitude[1:]) / 10 * (1 if sign == "+" else -1)


def test_every_operation_is_pixel_for_pixel_the_references(golden):
    image = Image.fromarray(golden.pop("image"))
    assert set(golden) == set(ARGUMENTS) and {split(key)[0] for key in golden} == set(OPERATIONS)
    for key, expected in golden.items():
        name, level = split(key)
        assert np.array_equal(np.asarray(OPERATIONS[name](image, level, FILL)), expected), key


def test_posterising_to_no_bits_gives_black(golden):
    image = Image.fromarray(golden["image"])
    for severity in (1.0, 2.5):
        assert np.asarray(OPERATIONS["PosterizeIncreasing"](image, severity, FILL)).max() == 0


@pytest.mark.parametrize("mode, fill", [("L", (128,)), ("RGB", FILL)])
def test_size_and_mode_stay(golden, mode, fill):
    image = Image.fromarray(golden["image"]).convert(mode)
    before = image.tobytes()
    rng = np.random.default_rng(0)
    results = [operation(image, level, fill) for operation in OPERATIONS.values() for level in (-3.0, -0.5, 0.0, 1.0)]
    results += [step(image, rng) for step in (three_augment, ColorJitter(0.4)) for _ in range(10)]
    results += [RandAugment(9, 15, 1.0, 0.5, fill=fill)(image, rng) for _ in range(10)]
    assert {(result.size, result.mode) for result in results} == {(image.size, mode)}
    assert image.tobytes() == before


def test_the_notation_is_timms():
    assert parse_rand_augment("rand-m9-mstd0.5-inc1", FILL) == RandAugment(9, 2, 0.5, 0.5, 10, FILL)
    everything = parse_rand_augment("rand-inc1-mmax15-mstd101-p0.8-n3-m12", FILL)
    assert everything == RandAugment(12, 3, 0.8, math.inf, 15, FILL)
    assert parse_rand_augment("rand-inc1-mstdinf", FILL).magnitude_std == math.inf


@pytest.mark.parametrize(
    "text, words",
    [
        ("augmix-m3", "must be empty, three-augment, or of a form as rand-m9-mstd0.5-inc1"),
        ("rand", "add -inc1"),
        ("rand-m9-inc0", "add -inc1"),
        ("rand-m9-inc1-w0", "'w0' is not one of m, n, p, mstd, mmax, inc"),
        ("rand-m9-m5-inc1", "'m5' is not one of"),
        ("rand-m-inc1", "'m' is not one of"),
        ("rand-minf-inc1", "'minf' is not one of"),
        ("rand-n1.5-inc1", "n must be a whole number"),
        ("rand-p2-inc1", "p a probability"),
    ],
)
def test_another_notation_is_one_clear_error(tiny_config, text, words):
    from cait.data.build import build_loaders

    with pytest.raises(UsageError) as caught:
        build_loaders(tiny_config(AUG__AUTO_AUGMENT=text))
    assert words in str(caught.value) and str(caught.value).startswith(f"AUG.AUTO_AUGMENT {text!r}: ")


def recorded(monkeypatch, policy, images=4000):
    """The (operation, level) pairs that a policy applies to many images."""
    seen = []

    def record(name):
        def operation(image, level, fill):
            seen.append((name, level))
            return image

        return operation

    monkeypatch.setattr(augment, "OPERATIONS", {name: record(name) for name in OPERATIONS})
    rng = np.random.default_rng(0)
    for _ in range(images):
        policy(None, rng)
    return seen


def test_operations_are_drawn_evenly_with_their_probability_and_spread(monkeypatch):
    seen = recorded(monkeypatch, RandAugment(9, 2, 0.5, 0.5))
    assert len(seen) == pytest.approx(4000, rel=0.05)
    counts = np.array([sum(name == other for other, _ in seen) for name in OPERATIONS])
    assert counts.sum() == len(seen) and np.abs(counts / len(seen) - 1 / 15).max() < 0.015
    levels = np.array([level for _, level in seen])
    assert (levels > 0).mean() == pytest.approx(0.5, abs=0.03)
    severities = np.abs(levels)
    # A normal distribution of mean 0.9 and deviation 0.05, cut off at 1 (2.3 % of it).
    assert np.median(severities) == pytest.approx(0.9, abs=0.004) and severities.max() == 1.0
    assert (severities < 0.85).mean() == pytest.approx(0.159, abs=0.02)


def test_a_spread_above_100_is_uniform_and_mmax_cuts_off(monkeypatch):
    uniform = np.abs([level for _, level in recorded(monkeypatch, parse_rand_augment("rand-m8-mstd101-inc1", FILL))])
    assert uniform.max() < 0.8 and uniform.mean() == pytest.approx(0.4, abs=0.02)
    high = np.abs([level for _, level in recorded(monkeypatch, parse_rand_augment("rand-m14-mmax15-inc1", FILL), 50)])
    assert set(high) == {1.4}


def test_jitter_stays_within_its_strength():
    grey = Image.new("RGB", (4, 4), (100, 100, 100))  # contrast and saturation leave it alone
    rng = np.random.default_rng(0)
    values = np.array([np.asarray(ColorJitter(0.4)(grey, rng))[0, 0, 0] for _ in range(500)])
    assert 60 <= values.min() < 66 and 134 < values.max() <= 140
    assert np.array_equal(np.asarray(ColorJitter(0.0)(grey, rng)), np.asarray(grey))


def test_three_augment_is_one_of_three(golden):
    image = Image.fromarray(golden["image"])
    solarised = np.asarray(OPERATIONS["SolarizeIncreasing"](image, 0.5, FILL))
    rng, kinds = np.random.default_rng(0), []
    for _ in range(600):
        result = np.asarray(three_augment(image, rng))
        if (result == result[:, :, :1]).all():
            kinds.append("grey")
        else:
            kinds.append("solarised" if np.array_equal(result, solarised) else "blurred")
    for kind in ("grey", "solarised", "blurred"):
        assert kinds.count(kind) == pytest.approx(200, abs=40), kind


def erase(erasing, count, shape=(32, 32, 3)):
    rng = np.random.default_rng(0)
    return [erasing(shape, rng) for _ in range(count)]


def test_erased_rectangles_have_the_references_sizes():
    samples = erase(RandomErasing(0.25), 4000)
    hit = [places for places, _ in samples if len(places)]
    assert len(hit) / 4000 == pytest.approx(0.25, abs=0.025)
    shares, ratios = [], []
    for places in hit:
        rows, columns = places // 32, places % 32
        height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
        assert len(places) == height * width  # a whole rectangle
        shares.append(len(places) / 32**2)
        ratios.append(math.log(height / width))
    assert 0.01 < min(shares) and max(shares) < 0.36
    assert np.mean(shares) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)
    assert np.mean(ratios) == pytest.approx(0, abs=0.06) and np.abs(ratios).max() < 1.5


def test_erasing_fills_with_noise_a_colour_or_the_mean():
    noise = np.concatenate([values for _, values in erase(RandomErasing(1.0), 200)])
    assert noise.dtype == np.float32 and noise.shape[1] == 3
    assert abs(noise.mean()) < 0.02 and noise.std() == pytest.approx(1, abs=0.02)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.02
    colours = [values for _, values in erase(RandomErasing(1.0, "rand"), 300)]
    assert all((values == values[0]).all() for values in colours)
    assert np.std([values[0] for values in colours]) == pytest.approx(1, abs=0.1)
    assert not any(values.any() for _, values in erase(RandomErasing(1.0, "const"), 20))


def test_several_rectangles_share_the_area():
    one = np.mean([len(places) for places, _ in erase(RandomErasing(1.0), 500)])
    many = erase(RandomErasing(1.0, max_count=5), 500)
    assert np.mean([len(places) for places, _ in many]) == pytest.approx(one, rel=0.15)
    assert all(len(set(places)) == len(places) == len(values) for places, values in many)
    assert all(places.max(initial=0) < 1024 for places, _ in many)


def test_erasing_a_grey_or_a_tiny_image():
    places, values = RandomErasing(1.0)((32, 32, 1), np.random.default_rng(0))
    assert values.shape == (len(places), 1) and len(places)
    for places, values in erase(RandomErasing(1.0), 50, shape=(1, 1, 3)):  # no rectangle is smaller than the image
        assert len(places) == 0 and values.shape == (0, 3)


def test_the_draws_are_distributed_as_timms(timm, monkeypatch):
    """The same measures over many draws of both: erased shares, and severities of RandAugment."""
    torch = pytest.importorskip("torch")
    from timm.data.auto_augment import AugmentOp, rand_augment_transform
    from timm.data.random_erasing import RandomErasing as TimmErasing

    theirs, ours = [], [len(places) / 1024 for places, _ in erase(RandomErasing(0.5, max_count=3), 3000)]
    erasing = TimmErasing(probability=0.5, mode="pixel", max_count=3, device="cpu")
    for _ in range(3000):
        theirs.append(float((erasing(torch.full((3, 32, 32), 9.0))[0] != 9).float().mean()))
    for measure in (np.mean, np.std, lambda shares: np.mean(np.array(shares) > 0)):
        assert measure(ours) == pytest.approx(measure(theirs), rel=0.08)

    text, levels = "rand-m9-mstd0.5-inc1", []
    for operation in rand_augment_transform(text, {"img_mean": FILL}).ops:
        assert isinstance(operation, AugmentOp) and operation.name in OPERATIONS
        operation.level_fn = lambda magnitude, hparams: levels.append(magnitude / 10) or (0,)
        operation.aug_fn = lambda image, *words, **options: image
        for _ in range(600):
            operation(None)
    own = np.abs([level for _, level in recorded(monkeypatch, parse_rand_augment(text, FILL))])
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(own, share) == pytest.approx(np.quantile(levels, share), abs=0.01)
