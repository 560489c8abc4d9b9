"""Numbers that are not finite are found where they begin."""

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn.utils import clip_grad_norm_

from cait.train.not_finite import explain, first_layer_not_finite
from cait.train.optim import clip_gradients, gradient_norm
from models import seeded_model


def forward_of(model):
    return lambda: model(paddle.ones([2, 3, 8, 8]))


@pytest.mark.parametrize(
    "parameter, layer",
    [
        ("patch_embed.proj.bias", "patch_embed.proj"),
        ("blocks.0.attn.proj_l.weight", "blocks.0.attn.proj_l"),
        ("blocks.0.gamma_2", "blocks.0.drop_path"),
        ("blocks_token_only.1.mlp.fc2.weight", "blocks_token_only.1.mlp.fc2"),
        ("norm.weight", "norm"),
        ("head.bias", "head"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_first_layer_is_named(parameter, layer, value):
    model = seeded_model()
    assert first_layer_not_finite(model, forward_of(model)) is None
    tensor = dict(model.named_parameters())[parameter]
    tensor.set_value(np.full(tensor.shape, value, "float32"))
    for _ in range(2):  # the hooks of the first time are gone
        assert first_layer_not_finite(model, forward_of(model)) == layer
    assert explain(model, forward_of(model)) == f"the first layer whose output is not finite is {layer}"


def test_a_gradient_is_named_where_all_outputs_are_finite():
    model = seeded_model()
    model(paddle.ones([2, 3, 8, 8])).sum().backward()
    assert explain(model, forward_of(model)) == "the outputs of all layers are finite"
    for name in ("blocks.0.norm1.weight", "blocks.1.norm1.weight", "norm.weight"):
        parameter = dict(model.named_parameters()).get(name)
        if parameter is not None:
            parameter.grad.set_value(np.full(parameter.shape, np.inf, "float32"))
    assert explain(model, forward_of(model)).endswith("the first gradient that is not is that of norm.weight")


def test_the_norm_is_the_clipping_functions():
    model = seeded_model()
    model(paddle.ones([2, 3, 8, 8])).sum().backward()
    norm = float(gradient_norm(model.parameters()))
    assert norm == pytest.approx(float(clip_grad_norm_(model.parameters(), 1e9)), rel=1e-6)
    assert float(gradient_norm(nn.Linear(2, 2).parameters())) == 0


def test_clipped_gradients_are_the_clipping_functions():
    """Torch's rule, which Paddle's function follows: nothing above its bound, nothing changed below it."""
    for share in (0.3, 2.0):
        gradients = []
        for clip in (lambda parameters, norm, largest: clip_grad_norm_(parameters, largest), clip_gradients):
            paddle.seed(0)
            model = seeded_model()
            model(paddle.ones([2, 3, 8, 8])).sum().backward()
            norm = gradient_norm(model.parameters()).item()
            clip(model.parameters(), norm, share * norm)
            gradients.append([parameter.grad.numpy() for parameter in model.parameters() if parameter.grad is not None])
            assert float(gradient_norm(model.parameters())) == pytest.approx(min(1.0, share) * norm, rel=1e-5)
        for theirs, ours in zip(*gradients):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-12)
