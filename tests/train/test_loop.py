"""The loops: accumulation, clipping, counts, seeds."""

import logging
import re
import traceback

import numpy as np
import paddle
import pytest
from paddle import nn

from cait.data.dataset import ImageDataset
from cait.data.normalize import Normalize
from cait.data.transforms import EvalTransform
from cait.errors import CaitError
from cait.model import CaiT
from cait.train import evaluation, loop, step
from cait.train.ema import ModelEma
from cait.train.losses import soft_target_cross_entropy
from cait.train.mixed_precision import Precision
from cait.train.mixup import Mixup
from cait.train.optim import adamw
from cait.train.step import TrainStep
from pictures import loader_of, noise_images

LOG = logging.getLogger("test_engine")
LOG.setLevel(logging.INFO)
NORMALIZE = Normalize([0.5] * 3, [0.5] * 3, "float64")
PLANNED = loop.EpochPlan._fields


def small_model(**arguments):
    """In float64, where the order of sums does not matter at the tolerances below."""
    paddle.set_default_dtype("float64")
    paddle.seed(0)
    sizes = {"image_size": 8, "patch_size": 4, "num_classes": 10, "embed_dim": 8, "depth": 1, "num_heads": 2}
    return CaiT(**sizes | {"init_values": 0.5} | arguments)


@pytest.fixture
def make_loader(tmp_path):
    source = noise_images(tmp_path, 10)

    def make(batch_size, **options):
        dataset = ImageDataset(source, EvalTransform((8, 8)), 3, seed=0)
        return loader_of(dataset, batch_size, shuffle=True, **options)

    return make


def train_epoch(model, loader, criterion, optimizer, **options):
    """An epoch; the options are those of the plan, of `train_one_epoch` and of the step."""
    plan = loop.EpochPlan(**{"epoch": 1, "num_epochs": 3} | {n: options.pop(n) for n in PLANNED if n in options})
    rest = {name: options.pop(name) for name in ("start", "save") if name in options}
    return loop.train_one_epoch(TrainStep(model, NORMALIZE, criterion, optimizer, **options), loader, LOG, plan, **rest)


def train(model, loader, **options):
    optimizer = adamw(model, 0.05)
    optimizer.set_lr(1e-2)
    result = train_epoch(model, loader, nn.CrossEntropyLoss(), optimizer, **options)
    return result, np.concatenate([parameter.numpy().ravel() for parameter in model.parameters()])


@pytest.mark.parametrize("small, accum_iter, large", [(2, 3, 6), (1, 4, 4), (3, 10, 10)])
def test_accumulation_equals_the_large_batch_to_the_last_partial_group(make_loader, small, accum_iter, large):
    # 10 images: groups of 6 + 4, of 4 + 4 + 2, and of all with a last batch of 1.
    accumulated, weights = train(small_model(), make_loader(small), accum_iter=accum_iter)
    whole, expected = train(small_model(), make_loader(large))
    assert accumulated.num_steps == whole.num_steps
    assert accumulated.loss == pytest.approx(whole.loss, rel=1e-12)
    np.testing.assert_allclose(weights, expected, rtol=1e-9, atol=1e-12)


def test_clipping_bounds_the_step(make_loader):
    model = small_model()
    _, free = train(small_model(), make_loader(10))
    _, loose = train(small_model(), make_loader(10), grad_clip=1e6)
    _, tight = train(model, make_loader(10), grad_clip=1e-9)
    assert np.array_equal(free, loose)
    start = np.concatenate([parameter.numpy().ravel() for parameter in small_model().parameters()])
    assert np.abs(tight - start).max() < np.abs(free - start).max()


def test_drop_path_differs_from_process_to_process(make_loader, monkeypatch):
    def weights():
        return train(small_model(drop_path=0.5), make_loader(5))[1]

    first = weights()
    monkeypatch.setattr(step.collectives, "rank", lambda: 1)
    assert not np.array_equal(first, weights())


def test_drop_path_repeats_with_the_seed_and_changes_with_the_epoch(make_loader):
    def weights(**options):
        return train(small_model(drop_path=0.5), make_loader(5), **options)[1]

    assert np.array_equal(weights(seed=1), weights(seed=1))
    assert not np.array_equal(weights(seed=1), weights(seed=2))
    assert not np.array_equal(weights(seed=1), weights(seed=1, epoch=2))


def test_training_learns(make_loader):
    model, loader = small_model(), make_loader(5)
    optimizer = adamw(model, 0.0)
    optimizer.set_lr(1e-2)
    losses = []
    for epoch in range(1, 41):
        result = train_epoch(model, loader, nn.CrossEntropyLoss(), optimizer, epoch=epoch, num_epochs=40)
        losses.append(result.loss)
    assert losses[-1] < 0.5 * losses[0]


def test_the_lines_of_training(make_loader, caplog):
    caplog.set_level(logging.INFO)
    train(small_model(), make_loader(4), report_freq=2)
    lines = [record.getMessage() for record in caplog.records]
    number = r"\d+\.\d+"
    pattern = (
        rf"Epoch\[001/003\], Step\[000[02]/0003\], Avg Loss: {number}, Avg Acc: {number}, loss: {number} "
        rf"avg_reader_cost: {number} sec avg_batch_cost: {number} sec ips: {number} samples/s eta: \d+:\d\d:\d\d"
    )
    assert len(lines) == 2
    for line in lines:
        assert re.fullmatch(pattern, line), line


class FixedLogits(nn.Layer):
    """Knows the class of each noise image, but for the images it is told to miss."""

    def __init__(self, classes, wrong, second):
        super().__init__()
        self.classes, self.wrong, self.second = classes, wrong, second
        self.seen = 0

    def forward(self, images):
        logits = np.zeros((images.shape[0], self.classes), "float32")
        for row in range(images.shape[0]):
            index = self.seen + row
            if index in self.second:  # right class in second place
                logits[row, index % self.classes], logits[row, (index + 1) % self.classes] = 1, 2
            else:
                logits[row, (index + (index in self.wrong)) % self.classes] = 1
                if index in self.wrong:
                    logits[row, index % self.classes] = -1
        self.seen += images.shape[0]
        return paddle.to_tensor(logits)


def classifier(model):
    return evaluation.Classifier(model, NORMALIZE, Precision())


def test_evaluation_counts_images_not_batches(tmp_path):
    dataset = ImageDataset(noise_images(tmp_path, 10), EvalTransform((8, 8)), 3, seed=0)
    loader = loader_of(dataset, 4)  # batches of 4, 4 and 2
    model = FixedLogits(10, wrong={8}, second={0, 9})
    result = evaluation.evaluate(classifier(model), loader, LOG)
    assert (result.acc1, result.acc5, result.num_images) == (0.7, 0.9, 10)
    assert result.loss == pytest.approx(_mean_loss(FixedLogits(10, {8}, {0, 9})), rel=1e-6)


def _mean_loss(model):
    logits = model(paddle.zeros([10, 3, 8, 8])).numpy().astype("float64")
    return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(10), np.arange(10)]))


def test_fewer_than_five_classes(tmp_path):
    source = noise_images(tmp_path, 3)
    loader = loader_of(ImageDataset(source, EvalTransform((8, 8)), 3, seed=0), 4)
    result = evaluation.evaluate(classifier(FixedLogits(3, set(), {1})), loader, LOG)
    assert (result.acc1, result.acc5) == (pytest.approx(2 / 3), 1.0)


def test_prediction_gives_softmax_probabilities(tmp_path):
    source = noise_images(tmp_path, 3)
    loader = loader_of(ImageDataset(source, EvalTransform((8, 8)), 3, seed=0), 2)
    model = FixedLogits(4, set(), {1})
    results = list(evaluation.predict(classifier(model), loader, LOG, top_k=2))
    assert [name for name, _, _ in results] == source.names
    assert [best[0][0] for _, best, _ in results] == [0, 2, 2]
    e = np.e
    assert results[1][1][0][1] == pytest.approx(e**2 / (e**2 + e + 2)) and results[1][1][1][0] == 1


def test_a_loss_that_is_not_finite_stops(make_loader):
    model = small_model()
    model.head.bias.set_value(np.full(10, np.nan))
    with pytest.raises(CaitError, match="the loss is nan at epoch 1, step 0, learning rate 0.01; the first .* is head"):
        train(model, make_loader(5))


def weights_of(model):
    return [parameter.numpy() for parameter in model.parameters()]


def test_a_loss_that_is_not_finite_stops_before_the_step(make_loader):
    """Found in the third step, in its second batch, from the same draws of drop path; the weights stay finite."""

    class Overflowing(nn.Layer):
        def __init__(self, model):
            super().__init__()
            self.model, self.noise, self.calls = model, nn.Dropout(0.5), 0
            self.draws = []

        def forward(self, images):
            self.calls += 1
            self.draws.append(self.noise(paddle.ones([64])).numpy())
            logits = self.model(images)
            return logits * (float("inf") if self.calls in (6, 8) else 1.0)

    inner = small_model()
    model = Overflowing(inner)
    seen = {}

    def keep_weights():
        seen["weights"] = weights_of(inner)

    with pytest.raises(CaitError) as caught:
        train(model, make_loader(1), accum_iter=2, after_step=keep_weights)
    assert re.search(r"the loss is (nan|inf) at epoch 1, step 2, learning rate 0.01; ", str(caught.value))
    assert model.calls == 8 and np.array_equal(model.draws[5], model.draws[7])
    assert not np.array_equal(model.draws[5], model.draws[4])
    assert all(np.array_equal(left, right) for left, right in zip(seen["weights"], weights_of(inner)))


def test_gradients_that_are_not_finite_stop(make_loader):
    model = small_model()

    def criterion(logits, labels):
        loss = nn.functional.cross_entropy(logits, labels)
        model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    before, optimizer = weights_of(model), adamw(model, 0.05)
    optimizer.set_lr(1e-2)
    for grad_clip in (None, 1.0):
        optimizer.clear_grad()
        with pytest.raises(
            CaitError, match="the norm of the gradients is (inf|nan) at epoch 1, step 0.* that of head.weight"
        ):
            train_epoch(model, make_loader(5), criterion, optimizer, num_epochs=1, grad_clip=grad_clip)
    assert all(np.array_equal(left, right) for left, right in zip(before, weights_of(model)))


def test_clipping_does_not_hide_where_a_gradient_went_wrong(make_loader, monkeypatch):
    """Clipping by a norm that is not a number makes all gradients so."""
    model = small_model()
    name, parameter = list(model.named_parameters())[4]
    parameter.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(CaitError, match=f"the first gradient that is not is that of {name}"):
        train(model, make_loader(4), grad_clip=1.0)


def test_every_batch_is_mixed_by_its_own_draw(make_loader):
    """From (seed, epoch, number of the batch), and from nothing else."""

    def draws(**options):
        found = []

        def mix(images, labels, rng):
            found.append(rng.random())
            return images, labels

        train(small_model(), make_loader(2), mix=mix, **options)
        return found

    first = draws()
    assert len(set(first)) == 5 and first == draws() == draws(accum_iter=2)
    assert not set(first) & set(draws(epoch=2)) and not set(first) & set(draws(seed=1))


def test_the_accuracy_of_training_is_against_the_labels(make_loader):
    mixup = Mixup(10, 0.8, 0.0)

    class Seeing(nn.Layer):  # right where it sees the labels, whatever the images are
        def __init__(self):
            super().__init__()
            self.scale = self.create_parameter([1], default_initializer=nn.initializer.Constant(1.0), dtype="float64")

        def forward(self, images):
            return self.scale * nn.functional.one_hot(self.labels, 10).astype("float64")

    model = Seeing()

    def mix(images, labels, rng):
        model.labels = labels
        return mixup(images, labels, rng)

    optimizer = adamw(model, 0.0)
    result = train_epoch(model, make_loader(5), soft_target_cross_entropy, optimizer, num_epochs=1, mix=mix)
    assert result.acc1 == 1.0 and result.loss > 1.5


@pytest.mark.parametrize("accum_iter, batch_size, stop", [(1, 3, 1), (1, 3, 4), (2, 2, 2), (3, 1, 3)])
def test_an_epoch_goes_on_within_it(make_loader, accum_iter, batch_size, stop):
    """The state after `stop` steps, taken up by another optimizer, ends in the same weights, loss and accuracy."""

    def run(model, optimizer, **options):
        options |= {"mix": Mixup(10, 0.8, 1.0), "seed": 3, "epoch": 2, "accum_iter": accum_iter}
        return train_epoch(model, make_loader(batch_size), soft_target_cross_entropy, optimizer, **options)

    class Stop(Exception):
        pass

    whole = small_model(drop_path=0.5)
    optimizer = adamw(whole, 0.05)
    optimizer.set_lr(1e-2)
    expected = run(whole, optimizer)

    states = []

    def save(state):
        states.append(state)
        raise Stop

    model = small_model(drop_path=0.5)
    optimizer = adamw(model, 0.05)
    optimizer.set_lr(1e-2)
    with pytest.raises(Stop):
        run(model, optimizer, save_steps=stop, save=save)
    assert states[0].num_steps == stop and states[0].num_read == min(stop * accum_iter, -(-10 // batch_size))
    result = run(model, optimizer, start=states[0])
    assert (result.loss, result.acc1, result.num_steps) == (expected.loss, expected.acc1, expected.num_steps)
    for left, right in zip(weights_of(whole), weights_of(model)):
        assert np.array_equal(left, right)


def test_states_are_saved_every_so_many_steps(make_loader):
    states = []
    train(small_model(), make_loader(2), save_steps=2, save=states.append)
    assert [state.num_steps for state in states] == [2, 4] and [state.sums[3] for state in states] == [4, 8]


def test_an_epoch_without_a_readable_image_stops(make_loader, tmp_path):
    loader = make_loader(5, skip_bad_images=True)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(CaitError, match="no image of epoch 1 could be read"):
        train(small_model(), loader)


READING = ("numpy", "item", "tolist", "__float__", "__int__", "__bool__", "__index__", "__array__")


@pytest.fixture
def reads(monkeypatch):
    """Where the values of tensors are read, each of which a GPU would have to be waited for."""
    places = []

    def wrapped(name, real):
        def read(tensor, *words, **options):
            inner = any(place.name == "read" for place in traceback.extract_stack()[:-1])  # tolist calls numpy
            places.extend([] if inner else [name])
            return real(tensor, *words, **options)

        return read

    for name in READING:
        monkeypatch.setattr(paddle.Tensor, name, wrapped(name, getattr(paddle.Tensor, name)))
    return places


def test_a_step_waits_for_the_device_once(make_loader, reads):
    """Accumulation, mixing, clipping and the average of the weights included; lines of the log read more."""
    model = small_model(drop_path=0.1, dropout=0.1)
    ema, seen = ModelEma(model, 0.9), []

    def after_step():
        ema.update()
        seen.append(len(reads))

    mix = Mixup(10, 0.8, 1.0, 1.0, 0.5, 0.1)
    optimizer = adamw(model, 0.05)
    optimizer.set_lr(1e-2)
    options = {"mix": mix, "after_step": after_step, "accum_iter": 2, "grad_clip": 1e-3, "report_freq": 100}
    loader = make_loader(1)
    train_epoch(model, loader, soft_target_cross_entropy, optimizer, **options)
    assert len(seen) == 5 and [after - before for before, after in zip(seen[1:], seen[2:])] == [1, 1, 1]
