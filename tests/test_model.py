"""The model against the reference's numbers, and every argument's effect."""

import numpy as np
import paddle
import pytest

from cait.align.golden import golden_images, load_golden_weights
from cait.model import CaiT, DropPath, TalkingHeadsAttention
from cait.variants import list_models
from cait.zoo import create_model
from project import GOLDEN

SLOW = ("cait_m36_384", "cait_m48_448")
SMALL = {
    "image_size": 16,
    "patch_size": 4,
    "num_classes": 7,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "init_values": 0.5,
}


def variants():
    """All in double precision, which shows every error of the program; two deep ones also as they are used."""
    exact = [("float64", 1e-11, name) for name in list_models()]
    rounded = [("float32", 1e-5, name) for name in ("cait_xxs36_384", "cait_s36_384")]
    return [pytest.param(*case, marks=pytest.mark.slow if case[-1] in SLOW else ()) for case in exact + rounded]


def test_the_ten_variants_are_there():
    assert len(list_models()) == 10


@pytest.mark.parametrize("dtype, tolerance, name", variants())
def test_logits_are_those_of_the_reference(dtype, tolerance, name):
    golden = np.load(GOLDEN / f"forward_{name}.npz")
    paddle.set_default_dtype(dtype)
    model = create_model(name)
    model.eval()
    load_golden_weights(model)
    outputs = []
    for block in [*model.blocks, *model.blocks_token_only]:
        block.register_forward_post_hook(lambda layer, inputs, output: outputs.append(output))
    with paddle.no_grad():
        logits = model(paddle.to_tensor(golden_images(0, 1, *model.image_size).astype(dtype))).numpy()
    assert np.abs(logits - golden["logits"]).max() <= tolerance * np.abs(golden["logits"]).max()
    moments = np.array([[float(x.mean()), float(x.std(unbiased=False))] for x in outputs])
    np.testing.assert_allclose(moments, golden["block_mean_std"], rtol=0, atol=10 * tolerance)
    assert len(model.state_dict()) == golden["num_tensors"]
    assert sum(parameter.size for parameter in model.parameters()) == golden["num_params"]


def test_features_are_those_of_the_reference():
    golden = np.load(GOLDEN / "forward_cait_xxs24_224.npz")
    model = create_model("cait_xxs24_224")
    model.eval()
    load_golden_weights(model)
    with paddle.no_grad():
        features = model.forward_features(paddle.to_tensor(golden_images(0, 1, 224, 224).astype("float32")))
    assert features.shape == [1, 197, 192]
    np.testing.assert_allclose(features[:, 0].numpy(), golden["cls_feature"], atol=1e-5)


def test_an_image_need_not_be_square():
    model = CaiT(**SMALL | {"image_size": (8, 12)})
    assert model.grid_size == (2, 3) and model.pos_embed.shape == [1, 6, 16]
    model.eval()
    images = paddle.randn([2, 3, 8, 12])
    assert model(images).shape == [2, 7]
    # A different place of the same patch gives another answer: rows are not taken for columns.
    assert np.abs((model(images) - model(images.flip(3))).numpy()).max() > 1e-4


def test_a_wrong_image_size_is_an_error():
    with pytest.raises(ValueError, match="8, 12.*16, 16"):
        CaiT(**SMALL)(paddle.randn([1, 3, 8, 12]))


@pytest.mark.parametrize("wrong, words", [({"image_size": 18}, "patch size"), ({"num_heads": 3}, "number of heads")])
def test_sizes_that_do_not_divide_are_an_error(wrong, words):
    with pytest.raises(ValueError, match=words):
        CaiT(**SMALL | wrong)


@pytest.mark.parametrize(
    "argument, name, shape",
    [
        ({"image_size": 8}, "pos_embed", [1, 4, 16]),
        ({"patch_size": 8}, "patch_embed.proj.weight", [16, 3, 8, 8]),
        ({"in_channels": 1}, "patch_embed.proj.weight", [16, 1, 4, 4]),
        ({"num_classes": 5}, "head.weight", [16, 5]),
        ({"embed_dim": 24}, "cls_token", [1, 1, 24]),
        ({"depth": 3}, "blocks.2.gamma_1", [16]),
        ({"depth_token_only": 3}, "blocks_token_only.2.gamma_1", [16]),
        ({"num_heads": 4}, "blocks.0.attn.proj_l.weight", [4, 4]),
        ({"mlp_ratio": 2.0}, "blocks.0.mlp.fc1.weight", [16, 32]),
        ({"mlp_ratio_token_only": 2.0}, "blocks_token_only.0.mlp.fc1.weight", [16, 32]),
    ],
)
def test_shape_arguments_take_effect(argument, name, shape):
    default = dict(CaiT(**SMALL).named_parameters())
    changed = dict(CaiT(**SMALL | argument).named_parameters())
    assert changed[name].shape == shape
    assert name not in default or default[name].shape != shape


def test_without_qkv_bias_there_is_none():
    names = [name for name, _ in CaiT(**SMALL, qkv_bias=False).named_parameters()]
    assert not [name for name in names if name.endswith(("qkv.bias", "attn.q.bias", "attn.k.bias", "attn.v.bias"))]


@pytest.mark.parametrize("argument", ["dropout", "attention_dropout", "drop_path"])
def test_random_arguments_act_in_training_only(argument):
    model = CaiT(**SMALL, **{argument: 0.5})
    images = paddle.randn([4, 3, 16, 16])
    assert not np.allclose(model(images).numpy(), model(images).numpy())
    model.eval()
    assert np.array_equal(model(images).numpy(), model(images).numpy())


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    layer = DropPath(0.25)
    out = layer(paddle.ones([4000, 2, 3])).numpy()
    assert set(np.unique(out.round(6))) == {0.0, np.float32(1 / 0.75).round(6)}
    assert (out == out[:, :1, :1]).all()
    assert abs(out.mean() - 1) < 0.05


def test_drop_path_is_the_same_at_every_depth_and_not_in_class_attention():
    model = CaiT(**SMALL, drop_path=0.3)
    rates = {name: layer.drop_prob for name, layer in model.named_sublayers() if isinstance(layer, DropPath)}
    assert rates == {"blocks.0.drop_path": 0.3, "blocks.1.drop_path": 0.3}


def test_initial_values_are_those_of_the_reference():
    model = create_model("cait_xxs24_224")
    weights = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    for name in (
        "cls_token",
        "pos_embed",
        "head.weight",
        "blocks.3.attn.qkv.weight",
        "blocks_token_only.0.mlp.fc1.weight",
    ):
        assert abs(weights[name].std() - 0.02) < 0.0025, name
        assert abs(weights[name].mean()) < 0.005, name
    assert weights["blocks.0.attn.qkv.weight"].std() == pytest.approx(0.02, rel=0.01)
    patch = weights["patch_embed.proj.weight"]
    assert np.abs(patch).max() <= 1 / np.sqrt(768) and patch.std() == pytest.approx(1 / np.sqrt(3 * 768), rel=0.02)
    for name, values in weights.items():
        if "gamma" in name:
            assert (values == np.float32(1e-5)).all(), name
        elif name.endswith("bias") and "patch_embed" not in name:
            assert (values == 0).all(), name
        elif "norm" in name:
            assert (values == 1).all(), name


def test_attention_maps_come_with_the_same_logits():
    model = CaiT(**SMALL)
    model.eval()
    images = paddle.randn([2, 3, 16, 16])
    names = ["blocks.1", "blocks_token_only.0"]
    logits, maps = model.forward_with_attention(images, names)
    assert np.array_equal(logits.numpy(), model(images).numpy())
    assert list(maps) == names
    assert maps["blocks.1"]["softmax"].shape == maps["blocks.1"]["mixed"].shape == [2, 2, 16, 16]
    assert maps["blocks_token_only.0"]["softmax"].shape == [2, 2, 1, 17]
    for name in names:
        np.testing.assert_allclose(maps[name]["softmax"].sum(-1).numpy(), 1, atol=1e-6)


def test_an_unknown_block_is_an_error():
    with pytest.raises(ValueError, match=r"blocks\.2.*blocks\.0 to blocks_token_only\.1"):
        CaiT(**SMALL).forward_with_attention(paddle.randn([1, 3, 16, 16]), ["blocks.2"])


def test_head_mixing_equals_a_linear_layer_over_the_heads():
    attention = TalkingHeadsAttention(12, 3, True, 0.0, 0.0)
    x = paddle.randn([2, 3, 5, 7])
    linear = paddle.nn.functional.linear(x.transpose([0, 2, 3, 1]), attention.proj_l.weight, attention.proj_l.bias)
    np.testing.assert_allclose(attention.proj_l(x).numpy(), linear.transpose([0, 3, 1, 2]).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"recompute": True}, {"query_chunk": 3}, {"recompute": True, "query_chunk": 5}], ids=str
)
def test_saving_memory_changes_no_gradient(options):
    """With dropout and drop path, whose random numbers the second run of a block must draw again."""
    arguments = dict(image_size=16, patch_size=4, in_channels=1, num_classes=5, embed_dim=16, depth=3, num_heads=2)
    model = load_golden_weights(CaiT(**arguments, dropout=0.1, drop_path=0.3))
    images = paddle.randn([4, 1, 16, 16])

    def gradients():
        model.train()
        model.clear_gradients()
        paddle.seed(5)
        model(images).square().mean().backward()
        return {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}

    expected = gradients()
    model.save_memory(**options)
    calls = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda layer, inputs: calls.append(layer))
    found = gradients()
    assert len(calls) == (6 if "recompute" in options else 3)  # else nothing was saved
    largest = max(np.abs(value).max() for value in expected.values())  # some gradients are zero but for rounding
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6 * largest, err_msg=name)
    model.eval()
    logits = model(images).numpy()
    model.save_memory()
    np.testing.assert_array_equal(model(images).numpy(), logits)


@pytest.mark.parametrize("query_chunk", [None, 3])
def test_the_biases_of_the_mixing_count_the_same_outside_the_matrix(query_chunk, monkeypatch):
    """In an exported program, they are in it. That before the softmax changes nothing, and gets a gradient of zero."""
    paddle.set_default_dtype("float64")
    attention = TalkingHeadsAttention(8, 2, True, 0.0, 0.0)
    attention.query_chunk = query_chunk
    for bias in (attention.proj_l.bias, attention.proj_w.bias):
        bias.set_value(paddle.randn([2]) * 3)
    x, found = paddle.randn([2, 7, 8]), []
    for is_dynamic in (True, False):
        monkeypatch.setattr(paddle, "in_dynamic_mode", lambda is_dynamic=is_dynamic: is_dynamic)
        maps = {} if query_chunk is None else None
        out = attention(x, maps)
        (out * out).sum().backward()
        found.append([out.numpy(), *(parameter.grad.numpy() for parameter in attention.parameters())])
        found[-1] += [value.numpy() for value in maps.values()] if maps else []
        attention.clear_gradients()
    for apart, within in zip(*found, strict=True):
        np.testing.assert_allclose(apart, within, atol=1e-12)
    names = [name for name, _ in attention.named_parameters()]
    assert not found[0][1 + names.index("proj_l.bias")].any() and found[0][1 + names.index("proj_w.bias")].any()


def test_looking_at_attention_changes_no_bit():
    attention = TalkingHeadsAttention(8, 2, True, 0.0, 0.0)
    attention.proj_w.bias.set_value(paddle.randn([2]) * 3)
    x = paddle.randn([2, 7, 8])
    np.testing.assert_array_equal(attention(x, {}).numpy(), attention(x).numpy())
