"""Mixup and cutmix: targets against the golden ones, pixels, and what is drawn."""

import numpy as np
import paddle
import pytest

from cait.train.losses import smooth_labels
from cait.train.mixup import Mixup, cutmix, plain_labels
from project import GOLDEN

LABELS = paddle.to_tensor(np.arange(8) % 10)


class Dice:
    """A generator whose draws are known."""

    def __init__(self, share=0.3, uniform=0.4, places=(0, 0)):
        self.share, self.uniform, self.places = share, uniform, iter(places)

    def beta(self, a, b):
        self.alpha = a
        return self.share

    def random(self):
        return self.uniform

    def integers(self, high):
        place = next(self.places)
        assert place < high
        return place


def images(count=8, size=8, seed=0):
    return paddle.to_tensor(np.random.default_rng(seed).standard_normal((count, 3, size, size)).astype("float32"))


def test_the_targets_are_the_references():
    golden = np.load(GOLDEN / "train_tiny.npz")["mixup_targets"]
    _, targets = Mixup(10, 0.8, 0.0, smoothing=0.1)(images(), LABELS, Dice())
    np.testing.assert_allclose(targets.numpy(), golden, atol=1e-7)
    paddle.set_default_dtype("float64")
    _, targets = Mixup(10, 0.8, 0.0, smoothing=0.1)(images(), LABELS, Dice())
    rows = np.eye(10)[np.arange(8)] * 0.9 + 0.01
    np.testing.assert_allclose(targets.numpy(), 0.3 * rows + 0.7 * rows[::-1], atol=1e-16)


@pytest.mark.parametrize("count", [8, 7, 1])
def test_mixup_mixes_with_the_opposite_image(count):
    x = images(count)
    mixed, targets = Mixup(10, 0.8, 0.0)(x, LABELS[:count], Dice())
    np.testing.assert_allclose(mixed.numpy(), 0.3 * x.numpy() + 0.7 * x.numpy()[::-1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(targets.numpy().sum(1), 1, rtol=1e-6)
    if count % 2:  # the one in the middle is its own opposite
        middle = count // 2
        np.testing.assert_allclose(mixed[middle].numpy(), x[middle].numpy(), rtol=1e-6)
        assert float(targets[middle, int(LABELS[middle])]) == pytest.approx(1)


@pytest.mark.parametrize("count", [8, 7])
def test_cutmix_pastes_a_rectangle_and_counts_what_is_inside(count):
    x = images(count, size=10)
    # sqrt(1 - 0.64) of the sides is 6: rows -1 to 5 and columns 6 to 12 around (2, 9), cut off at 0 and 10.
    mixed, targets = Mixup(10, 0.0, 1.0)(x, LABELS[:count], Dice(share=0.64, places=(2, 9)))
    expected = x.numpy().copy()
    expected[:, :, 0:5, 6:10] = x.numpy()[::-1, :, 0:5, 6:10]
    assert np.array_equal(mixed.numpy(), expected)
    rows = np.eye(10)[np.arange(count)]
    np.testing.assert_allclose(targets.numpy(), 0.8 * rows + 0.2 * rows[::-1], atol=1e-6)


@pytest.mark.parametrize("share, kept", [(1.0, 1.0), (0.0, 0.0)])
def test_cutmix_of_nothing_and_of_everything(share, kept):
    x = images(2)
    mixed, remaining = cutmix(x, share, Dice(places=(4, 4)))
    assert remaining == kept and np.array_equal(mixed.numpy(), x.numpy() if kept else x.numpy()[::-1])


def test_alphas_of_zero_switch_off():
    dice, x = Dice(uniform=0.0), images()
    Mixup(10, 0.2, 0.0)(x, LABELS, dice)
    assert dice.alpha == 0.2
    dice = Dice(uniform=0.99, places=(1, 1))
    Mixup(10, 0.0, 0.7)(x, LABELS, dice)
    assert dice.alpha == 0.7
    for mixup in (Mixup(10, 0.0, 0.0, smoothing=0.2), Mixup(10, 0.8, 1.0, prob=0.0, smoothing=0.2)):
        same, targets = mixup(x, LABELS, np.random.default_rng(0))
        assert same is x
        assert np.array_equal(targets.numpy(), smooth_labels(LABELS, 10, 0.2).numpy())
    same, labels = plain_labels(x, LABELS, None)
    assert same is x and labels is LABELS


def draws(mixup, count=3000):
    """(cutmix or not, share of the own label) of many batches; None where nothing was mixed."""
    rng, x, labels, found = np.random.default_rng(0), paddle.arange(2 * 16.0).reshape([2, 1, 4, 4]), LABELS[:2], []
    for _ in range(count):
        mixed, targets = mixup(x, labels, rng)
        whole = np.isin(mixed.numpy()[0], x.numpy()).all()
        found.append((bool(whole), float(targets[0, 0])))
    return found


def test_what_is_drawn_follows_the_probabilities():
    found = draws(Mixup(10, 0.8, 1.0, prob=0.6, switch_prob=0.25))
    mixed = [share for whole, share in found if not whole]
    assert len(mixed) / len(found) == pytest.approx(0.6 * 0.75, abs=0.03)
    # Beta(a, a) has the variance 1 / (8 a + 4).
    assert np.mean(mixed) == pytest.approx(0.5, abs=0.02) and np.var(mixed) == pytest.approx(1 / 10.4, abs=0.01)
    assert draws(Mixup(10, 0.8, 1.0), 20) == draws(Mixup(10, 0.8, 1.0), 20)


def test_shares_are_distributed_as_timms(timm):
    torch = pytest.importorskip("torch")
    from timm.data.mixup import Mixup as TimmMixup

    for alphas in ((0.8, 0.0), (0.0, 1.0)):
        np.random.seed(0)
        theirs = TimmMixup(*alphas, label_smoothing=0.0, num_classes=10)
        x, labels = torch.zeros(2, 1, 32, 32), torch.tensor([0, 1])
        expected = [float(theirs(x.clone(), labels)[1][0, 0]) for _ in range(3000)]
        rng = np.random.default_rng(0)
        ours, x = Mixup(10, *alphas), paddle.zeros([2, 1, 32, 32])
        found = [float(ours(x, LABELS[:2], rng)[1][0, 0]) for _ in range(3000)]
        for share in (0.1, 0.3, 0.5, 0.7, 0.9):
            assert np.quantile(found, share) == pytest.approx(np.quantile(expected, share), abs=0.04)
