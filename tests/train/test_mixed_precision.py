"""Mixed precision: PaddlePaddle has none on the CPU, so that its wiring is tested, with stand-ins for the kernels."""

import contextlib

import numpy as np
import paddle
import pytest

from cait.errors import UsageError
from cait.model import CaiT, ClassAttention, TalkingHeadsAttention, add_branch
from cait.precision import float32, full_precision
from cait.train import mixed_precision
from cait.train.mixed_precision import Precision, build_precision
from scaler import Scaler

# With float32 weights, Paddle's promotion would leave next to nothing in half precision; norms stay in float32.
O2 = {"use_promote": False, "custom_black_list": {"layer_norm"}}


@pytest.fixture
def spied(monkeypatch):
    """Precision as on a GPU, and the options of every `auto_cast`."""
    casts = []

    @contextlib.contextmanager
    def auto_cast(**options):
        casts.append(options)
        yield

    monkeypatch.setattr(paddle.amp, "GradScaler", Scaler)
    monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)
    return casts


def step(precision, gradient=None):
    """One step of a linear layer whose gradients are all ones, or as given; the change of its weights."""
    layer = paddle.nn.Linear(2, 3, bias_attr=False)
    optimizer = paddle.optimizer.SGD(1.0, parameters=layer.parameters())
    before = layer.weight.numpy()
    precision.backward((layer.weight * 1.0).sum())
    if gradient is not None:
        layer.weight.grad.set_value(paddle.full([2, 3], gradient))
    precision.unscale(optimizer)
    found = layer.weight.grad.numpy()
    precision.step(optimizer)
    return found, layer.weight.numpy() - before


def test_float32_is_the_plain_thing():
    precision = Precision()
    found, change = step(precision)
    np.testing.assert_array_equal(found, np.ones((2, 3)))
    np.testing.assert_allclose(change, -np.ones((2, 3)), atol=1e-6)
    assert not precision.may_overflow and precision.state() == {}
    precision.load({})


def test_float16_scales_and_leaves_out_a_step_that_overflows(spied):
    precision = Precision("float16")
    found, change = step(precision)
    np.testing.assert_allclose(found, np.ones((2, 3)))  # the scale is out again before clipping
    np.testing.assert_allclose(change, -np.ones((2, 3)), atol=1e-6)
    assert precision.scaler.calls == ["unscale", "step", "update"] and precision.may_overflow
    _, change = step(precision, gradient=float("inf"))
    np.testing.assert_array_equal(change, np.zeros((2, 3)))
    assert precision.state() == {"scale": [2.0**15], "incr_count": 3}
    other = Precision("float16")
    other.load(precision.state())
    assert other.state() == precision.state()
    other.load({"scale": [1.0], "incr_count": 0})
    assert not other.may_overflow  # nothing is left to lower


def test_bfloat16_is_not_scaled(spied):
    precision = Precision("bfloat16", "O2")
    assert not precision.may_overflow and precision.state() == {}
    precision.run(lambda images: images, paddle.ones([1]))
    assert spied == [{"enable": True, "dtype": "bfloat16", "level": "O2"} | O2]


def test_logits_come_back_in_the_precision_of_the_images(spied):
    logits = Precision("bfloat16").run(lambda images: images.astype("bfloat16"), paddle.ones([2, 3]))
    assert logits.dtype == paddle.float32


@pytest.fixture
def half_kernels(monkeypatch):
    """Products of bfloat16 tensors, which the CPU lacks, and the types of all operands of products and softmax."""
    matmul, softmax, seen = paddle.matmul, paddle.nn.functional.softmax, []

    def spied_matmul(x, y, **options):
        seen.append(("matmul", x.dtype, y.dtype))
        return matmul(x.astype("float32"), y.astype("float32"), **options).astype(x.dtype)

    def spied_softmax(x, **options):
        seen.append(("softmax", x.dtype))
        return softmax(x, **options)

    monkeypatch.setattr(paddle, "matmul", spied_matmul)
    monkeypatch.setattr("cait.model.F.softmax", spied_softmax)
    return seen


def _with_bfloat16(operation):
    """An operation of two that is there in float32 alone, for bfloat16 as well."""

    def operate(x, y):
        return operation(float32(x), float32(y) if isinstance(y, paddle.Tensor) else y).astype(x.dtype)

    return operate


def test_attention_is_float32_from_logits_to_softmax(half_kernels, monkeypatch):
    for name in ("__mul__", "__add__"):
        monkeypatch.setattr(paddle.Tensor, name, _with_bfloat16(getattr(paddle.Tensor, name)))
    attention = TalkingHeadsAttention(8, 2, True, 0.0, 0.0)
    q, k, v = (paddle.randn([1, 2, 3, 4]).astype("bfloat16") for _ in range(3))
    maps = {}
    assert attention._attend(q, k, v, maps).dtype == paddle.bfloat16
    full, half = paddle.float32, paddle.bfloat16
    mixing = ("matmul", full, full)
    assert half_kernels == [("matmul", full, full), mixing, ("softmax", full), mixing, ("matmul", half, half)]
    assert maps["softmax"].dtype == maps["mixed"].dtype == full


def test_class_attention_is_float32_too(half_kernels):
    attention = ClassAttention(8, 2, True)
    q, k = paddle.randn([1, 3, 8]), paddle.randn([1, 3, 8])
    attention.q.forward = attention.k.forward = lambda x: x.astype("float32")
    attention(paddle.concat([q, k], axis=1))
    assert [entry for entry in half_kernels if entry[0] == "softmax"] == [("softmax", paddle.float32)]


def test_layerscale_and_residual_sums_are_float32():
    branch = paddle.full([1, 1, 2], 1.0).astype("bfloat16")
    result = add_branch(paddle.ones([1, 1, 2]), paddle.full([2], 1e-6), branch)
    assert result.dtype == paddle.float32 and float(result[0, 0, 0]) > 1.0  # 1 + 1e-6 is 1 in bfloat16


def test_mixed_precision_on_the_cpu_is_an_error(tiny_config):
    assert not build_precision(tiny_config()).is_mixed
    with pytest.raises(UsageError, match="AMP: mixed precision needs a GPU"):
        build_precision(tiny_config(AMP=True))
    assert not build_precision(tiny_config(AMP=True), evaluation=True).is_mixed
    with pytest.raises(UsageError, match="AMP_EVAL: mixed precision needs a GPU"):
        build_precision(tiny_config(AMP_EVAL=True), evaluation=True)


def test_a_gpu_without_the_precision_is_an_error(tiny_config, monkeypatch, spied):
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda: False)
    monkeypatch.setattr(paddle.amp, "is_float16_supported", lambda: True)
    with pytest.raises(UsageError, match="AMP: this GPU has no bfloat16, another AMP_DTYPE is needed"):
        build_precision(tiny_config(AMP=True, AMP_DTYPE="bfloat16"))
    precision = build_precision(tiny_config(AMP=True, AMP_LEVEL="O2"))
    with precision.autocast():
        pass
    assert (
        spied == [{"enable": True, "dtype": "float16", "level": "O2"} | O2]
        and mixed_precision.INITIAL_LOSS_SCALE == 65536
    )


@pytest.mark.parametrize("options", [{"recompute": True}, {"query_chunk": 3}], ids=str)
@pytest.mark.parametrize("level", ["O1", "O2"])
def test_what_is_computed_again_is_computed_alike(monkeypatch, options, level):
    """Paddle does not restore `use_promote` by itself: at O2, its second pass is in float32."""
    state, seen = [], []

    @contextlib.contextmanager
    def auto_cast(**options):
        state.append({name: value for name, value in options.items() if value})
        yield
        state.pop()

    attend = TalkingHeadsAttention._attend

    def noting(attention, *arguments):
        seen.append((attention, state[-1]))
        return attend(attention, *arguments)

    monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)
    monkeypatch.setattr(TalkingHeadsAttention, "_attend", noting)
    arguments = dict(image_size=16, patch_size=4, in_channels=1, num_classes=5, embed_dim=16, depth=2, num_heads=2)
    model = CaiT(**arguments)
    model.save_memory(**options)
    model.train()
    Precision("bfloat16", level).run(model, paddle.randn([2, 1, 16, 16])).mean().backward()
    for block in model.blocks:
        states = [each for attention, each in seen if attention is block.attn]
        assert len(states) in (2, 12) and states == states[:1] * len(states)
        assert states[0].get("level") == level and states[0]["enable"]


@pytest.mark.parametrize("mixed", [False, True])
def test_mixed_precision_is_turned_off_where_it_is_on(monkeypatch, mixed):
    """`auto_cast` takes longer than many an operation, and a model asks for full precision dozens of times."""
    asked = []

    @contextlib.contextmanager
    def auto_cast(**options):
        asked.append(options)
        yield

    tracer = paddle.base.framework._dygraph_tracer()
    monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)
    before = tracer._amp_level
    try:
        tracer._amp_level = paddle.base.core.AmpLevel.O1 if mixed else before
        with full_precision():
            pass
    finally:
        tracer._amp_level = before
    assert asked == ([{"enable": False}] if mixed else [])
