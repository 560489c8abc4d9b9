"""Parameter groups, schedules and the optimizer's state; test_align.py has AdamW's steps against the reference."""

import numpy as np
import pytest

from cait.errors import CaitError
from cait.train.optim import FROZEN, adamw, freeze, is_decayed, layer_number, load_optimizer_state, optimizer_state
from cait.train.schedule import learning_rate, learning_rate_text, scaled_learning_rate
from models import one_step, seeded_model, tiny_golden_model
from project import GOLDEN


def test_weight_decay_spares_vectors_and_embeddings():
    model = tiny_golden_model()
    spared = {name for name, parameter in model.named_parameters() if not is_decayed(name, parameter)}
    decayed = {name for name, _ in model.named_parameters()} - spared
    assert {"pos_embed", "cls_token", "norm.weight", "blocks.0.gamma_1", "head.bias"} <= spared
    assert {"patch_embed.proj.weight", "head.weight", "blocks.0.attn.proj_l.weight"} <= decayed
    optimizer = adamw(model, weight_decay=0.5)
    optimizer.set_lr(0.1)
    before = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    (sum(parameter.sum() for parameter in model.parameters()) * 0.0).backward()  # gradients of zero: decay alone
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1.0 if name in spared else 0.95
        np.testing.assert_allclose(parameter.numpy(), before[name] * factor, rtol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    "name, num_epochs, base_lr, warmup_start_lr, end_lr, warmup_epochs",
    [
        ("paper_400", 400, 5e-4, 1e-6, 1e-5, 5),
        ("short_100", 100, 1e-4, 1e-6, 1e-6, 3),
        ("finetune_30_const", 30, 5e-6, 5e-6, 5e-6, 0),
    ],
)
def test_schedules_are_those_of_the_reference(name, num_epochs, base_lr, warmup_start_lr, end_lr, warmup_epochs):
    reference = np.load(GOLDEN / "lr_schedules.npz")[name]
    rates = [
        learning_rate(epoch, num_epochs, base_lr, warmup_start_lr, end_lr, warmup_epochs) for epoch in range(num_epochs)
    ]
    np.testing.assert_allclose(rates, reference, rtol=1e-12)


def test_learning_rate_scales_with_the_batch():
    assert scaled_learning_rate(5e-4, 1024, 512) == 1e-3
    assert scaled_learning_rate(5e-4, 1024, None) == 5e-4


def test_optimizer_state_survives_other_automatic_names():
    model = seeded_model()
    optimizer = adamw(model, 0.05)
    optimizer.set_lr(1e-2)
    one_step(model, optimizer)
    saved = {name: value.numpy() for name, value in optimizer_state(optimizer, model).items()}
    assert {"head.weight/moment1", "pos_embed/beta2_pow_acc"} <= set(saved)

    seeded_model()  # a teacher, an EMA copy: the automatic names of what comes after it change
    resumed = seeded_model()
    resumed.set_state_dict(model.state_dict())
    other = adamw(resumed, 0.05)
    other.set_lr(1e-2)
    load_optimizer_state(other, resumed, saved)
    one_step(model, optimizer)
    one_step(resumed, other)
    for (name, left), (_, right) in zip(model.named_parameters(), resumed.named_parameters()):
        assert np.array_equal(left.numpy(), right.numpy()), name


def test_optimizer_state_of_another_model_is_an_error():
    model = seeded_model()
    with pytest.raises(CaitError, match="another model.*one side only"):
        load_optimizer_state(adamw(model, 0.0), model, {"foo/moment1": np.zeros(1)})


def test_layers_are_numbered_from_the_embedding_to_the_head():
    numbers = {name: layer_number(name, 24, 2) for name in (
        "patch_embed.proj.weight", "cls_token", "pos_embed", "blocks.0.gamma_1", "blocks.23.mlp.fc2.bias",
        "blocks_token_only.0.attn.q.weight", "blocks_token_only.1.norm1.bias", "norm.weight", "head.bias",
    )}  # fmt: skip
    assert list(numbers.values()) == [0, 0, 0, 1, 24, 25, 26, 27, 27]


def test_the_learning_rate_and_the_weight_decay_fall_from_layer_to_layer():
    model = seeded_model()  # layers: embedding, one block, two class-attention blocks, head
    optimizer = adamw(model, weight_decay=0.5, layer_decay=0.5)
    optimizer.set_lr(0.1)
    before = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    scales = {
        "patch_embed": 1 / 16, "pos_embed": 1 / 16, "cls_token": 1 / 16, "blocks.0": 1 / 8,
        "blocks_token_only.0": 1 / 4, "blocks_token_only.1": 1 / 2, "norm": 1, "head": 1,
    }  # fmt: skip
    for parameter in model.parameters():
        parameter.sum().backward()  # a gradient of 1 everywhere: Adam's first step is the learning rate
    optimizer.step()
    for name, parameter in model.named_parameters():
        rate = 0.1 * next(scale for start, scale in scales.items() if name.startswith(start))
        kept = before[name] * (1 - 0.5 * rate) if is_decayed(name, parameter) else before[name]
        np.testing.assert_allclose(parameter.numpy(), kept - rate, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("what", ["all_but_class_attention", "all_but_head"])
def test_frozen_parameters_stay_bit_for_bit(what):
    model = seeded_model()
    freeze(model, what)
    optimizer = adamw(model, weight_decay=0.5)
    optimizer.set_lr(0.1)
    before = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    for _ in range(3):
        one_step(model, optimizer)
    changed = {
        name for name, parameter in model.named_parameters() if not np.array_equal(parameter.numpy(), before[name])
    }
    assert {name.split(".")[0] for name in changed} & set(FROZEN[what]) == set()
    trained = {name for name in before if name.split(".")[0] not in FROZEN[what]}
    # The class token's key has no bias of its own in the softmax: its gradient is zero but for rounding.
    assert trained - changed <= {name for name in trained if name.endswith("attn.k.bias")}
    assert {name.split("/")[0] for name in optimizer_state(optimizer, model)} == trained


def test_a_frozen_run_resumes_and_another_freezing_is_an_error():
    model = seeded_model()
    freeze(model, "all_but_head")
    optimizer = adamw(model, 0.05)
    optimizer.set_lr(1e-2)
    one_step(model, optimizer)
    saved = {name: value.numpy() for name, value in optimizer_state(optimizer, model).items()}
    resumed = seeded_model()
    resumed.set_state_dict(model.state_dict())
    with pytest.raises(CaitError, match="another TRAIN.FREEZE"):
        load_optimizer_state(adamw(resumed, 0.05), resumed, saved)
    freeze(resumed, "all_but_head")
    other = adamw(resumed, 0.05)
    other.set_lr(1e-2)
    load_optimizer_state(other, resumed, saved)
    for pair in ((model, optimizer), (resumed, other)):
        one_step(*pair)
    for left, right in zip(model.parameters(), resumed.parameters()):
        assert np.array_equal(left.numpy(), right.numpy())
    freeze(resumed, "none")
    assert not any(parameter.stop_gradient for parameter in resumed.parameters())


@pytest.mark.parametrize(
    "rate, text",
    [
        (0.0, "0.000000"),
        (1e-6, "0.000001"),
        (2.5e-6, "0.0000025"),
        (2.5e-4, "0.000250"),
        (5e-4, "0.000500"),
        (4.3217e-5, "0.0000432"),
        (9.9999e-8, "0.0000001"),
        (1.234e-9, "0.00000000123"),
        (0.123456789, "0.123457"),
        (12.5, "12.500000"),
    ],
)
def test_a_learning_rate_is_shown_with_enough_digits_and_no_exponent(rate, text):
    assert learning_rate_text(rate) == text
    assert float(text) == pytest.approx(rate, rel=0.005)
