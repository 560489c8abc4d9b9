"""The fused operators, on every instruction set of this processor, against a reference in plain NumPy."""

import concurrent.futures
import ctypes
import os
import subprocess
import sysconfig
import threading
import time
import venv

import numpy as np
import paddle
import pytest

from cait.deploy.fused import FusedCaiT
from cait.model import CaiT
from cait.ops import library
from cait.ops.library import OperatorsUnavailable
from cait.ops.pack import pack_blocks
from project import ROOT, run_python

INFER = str(ROOT / "CaiT" / "infer.py")

THREADS = (1, 2, 3)  # more than there are cores will do: what matters is how the work is cut
INSTRUCTIONS = ("amx", "avx512_bf16", "avx512", "avx2", "portable")
# (image side, patch, dim, heads, mlp ratio, batch): the widths and heads of the ten variants, and sizes that are no
# multiples of anything; batches that do and do not divide among the threads; a hidden layer that is cut both ways.
SHAPES = [
    (32, 8, 192, 4, 4.0, 2),
    (48, 8, 288, 6, 1.0, 1),
    (24, 8, 384, 8, 1.0, 3),
    (32, 8, 768, 16, 0.5, 1),
    (30, 5, 40, 4, 2.3, 3),
    (21, 7, 60, 5, 1.3, 5),
    (112, 8, 24, 2, 1.5, 1),
    (144, 8, 48, 2, 32.0, 1),
]


@pytest.fixture(scope="module", autouse=True)
def operators():
    try:
        return library.operators()
    except OperatorsUnavailable as reason:
        pytest.skip(f"the operators cannot be used here: {reason}")


def set_threads(number):
    """How many threads the operators use: one, after the import of Paddle."""
    ctypes.CDLL(str(library.folder() / library.LIBRARY)).omp_set_num_threads(number)


@pytest.fixture(autouse=True)
def one_thread(operators):
    yield
    set_threads(1)


def random_model(side, patch, dim, heads, mlp_ratio):
    model = CaiT(
        side,
        patch,
        embed_dim=dim,
        depth=2,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
        mlp_ratio_token_only=2.0,
        num_classes=7,
    )
    rng = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        spread = (
            0.5
            if parameter.ndim == 1
            else np.prod(parameter.shape[1:] if parameter.ndim == 4 else parameter.shape[0]) ** -0.5
        )
        values = rng.standard_normal(parameter.shape) * spread
        values += "proj_" in name and parameter.ndim == 2 and np.eye(heads)
        parameter.set_value(values.astype("float32"))
    model.eval()
    return model


def layer_norm(x, norm):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * norm.weight + norm.bias


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def split(x, heads):
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def reference(model, image):
    """Logits and class attention of one image, float64; the formulas of the paper and nothing else."""
    from scipy.special import erf

    class Double:  # the model's parameters, by the same names, as float64
        def __init__(self, layer):
            self.layer = layer

        def __getattr__(self, name):
            value = getattr(self.layer, name)
            return value.numpy().astype("float64") if isinstance(value, paddle.Tensor) else Double(value)

    def linear(x, layer):
        return x @ layer.weight + layer.bias

    def mlp(x, layer):
        hidden = linear(x, layer.fc1)
        return linear(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, layer.fc2)

    net, patch = Double(model), model.patch_embed.proj.weight.shape[-1]
    heads = model.blocks[0].attn.num_heads
    rows, columns = model.grid_size
    cut = image.reshape(-1, rows, patch, columns, patch).transpose(1, 3, 0, 2, 4).reshape(rows * columns, -1)
    weight = net.patch_embed.proj.weight
    x = cut @ weight.reshape(len(weight), -1).T + net.patch_embed.proj.bias + net.pos_embed[0]
    scale = (x.shape[1] / heads) ** -0.5
    for block in map(Double, model.blocks):
        attn = block.attn
        q, k, v = (split(part, heads) for part in np.split(linear(layer_norm(x, block.norm1), attn.qkv), 3, axis=1))
        logits = np.einsum("gnm,gh->hnm", q * scale @ k.transpose(0, 2, 1), attn.proj_l.weight)
        weights = softmax(logits + attn.proj_l.bias[:, None, None])
        weights = np.einsum("gnm,gh->hnm", weights, attn.proj_w.weight) + attn.proj_w.bias[:, None, None]
        x = x + block.gamma_1 * linear((weights @ v).transpose(1, 0, 2).reshape(x.shape), attn.proj)
        x = x + block.gamma_2 * mlp(layer_norm(x, block.norm2), block.mlp)
    token, maps = net.cls_token[0], []
    for block in map(Double, model.blocks_token_only):
        tokens = layer_norm(np.concatenate([token, x]), block.norm1)
        q, k, v = (split(linear(tokens, part), heads) for part in (block.attn.q, block.attn.k, block.attn.v))
        maps.append(softmax(q[:, :1] * scale @ k.transpose(0, 2, 1))[:, 0])
        out = (maps[-1][:, None] @ v).transpose(1, 0, 2).reshape(token.shape)
        token = token + block.gamma_1 * linear(out, block.attn.proj)
        token = token + block.gamma_2 * mlp(layer_norm(token, block.norm2), block.mlp)
    return linear(layer_norm(token, net.norm), net.head)[0], np.stack(maps)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_instruction_set_gives_the_reference(shape, monkeypatch):
    *sizes, batch = shape
    model = random_model(*sizes)
    images = np.random.default_rng(1).standard_normal((batch, 3, sizes[0], sizes[0])).astype("float32")
    expected = [reference(model, image.astype("float64")) for image in images]
    logits, maps = (np.stack(arrays) for arrays in zip(*expected))
    with paddle.no_grad():
        np.testing.assert_allclose(model(paddle.to_tensor(images)).numpy(), logits, atol=2e-5 * np.abs(logits).max())
    for precision, tolerance in (("fp32", 2e-5), ("bf16", 0.05)):
        fused = FusedCaiT(model, precision, with_attention=True)
        fused.eval()
        tried = 0
        for name in INSTRUCTIONS:
            monkeypatch.setenv("CAIT_INSTRUCTIONS", name)
            if not library.instruction_set():
                continue
            tried += 1
            for threads in THREADS:
                set_threads(threads)
                with paddle.no_grad():
                    found, attention = (tensor.numpy() for tensor in fused(paddle.to_tensor(images)))
                case = (name, precision, threads)
                assert np.abs(found - logits).max() <= tolerance * np.abs(logits).max(), case
                assert np.abs(attention - maps).max() <= tolerance, case
                np.testing.assert_allclose(attention.sum(-1), 1, atol=1e-5)
        assert tried


SHORT_OF_THREADS = """
import sys
import numpy as np, paddle
sys.path[:0] = sys.argv[1:]
import test_ops

model = test_ops.random_model(64, 2, 64, 2, 1.0)
fused = test_ops.FusedCaiT(model, "fp32")
fused.eval()
with paddle.no_grad():
    for batch in (5, 6, 13):
        images = paddle.to_tensor(np.random.default_rng(1).standard_normal((batch, 3, 64, 64)).astype("float32"))
        test_ops.set_threads(3)
        found = fused(images).numpy()
        test_ops.set_threads(1)
        np.testing.assert_allclose(fused(images).numpy(), found, atol=1e-4 * np.abs(found).max())
"""


@pytest.mark.parametrize("instructions", ["portable", ""])
def test_fewer_threads_than_were_asked_for(instructions, monkeypatch):
    monkeypatch.setenv("OMP_THREAD_LIMIT", "2")
    monkeypatch.setenv("CAIT_INSTRUCTIONS", instructions)
    paths = [str(ROOT / "tests" / name) for name in ("ops", "helpers")]
    result = run_python("-c", SHORT_OF_THREADS, str(ROOT / "CaiT"), *paths)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize("dim", [20, 40, 100])
def test_rows_far_from_zero_are_normalised(operators, dim, instructions, monkeypatch):
    monkeypatch.setenv("CAIT_INSTRUCTIONS", instructions)
    if not library.instruction_set():
        pytest.skip("not on this processor")
    model = random_model(32, 8, dim, 4, 1.0)
    vectors, panels = map(paddle.to_tensor, pack_blocks(model.blocks, "fp32"))
    values = np.random.default_rng(2).uniform(5, 3000, 200).astype("float32")
    x = np.broadcast_to(values[:, None, None], (200, 16, dim))
    with paddle.no_grad():
        found = operators.cait_blocks(paddle.to_tensor(np.ascontiguousarray(x)), vectors, panels, 4, dim).numpy()
    assert np.isfinite(found).all()


@pytest.mark.parametrize("openmp_threads", [1, 2])
def test_threads_at_once_do_not_disturb_each_other(openmp_threads):
    set_threads(openmp_threads)
    model = random_model(*SHAPES[0][:-1])
    fused = FusedCaiT(model, "fp32")
    fused.eval()
    images = paddle.to_tensor(np.random.default_rng(1).standard_normal((3, 3, 32, 32)).astype("float32"))
    with paddle.no_grad():
        expected, found = fused(images).numpy(), []

    def work():
        set_threads(openmp_threads)  # which is each thread's own
        with paddle.no_grad():
            found.extend(np.array_equal(fused(images).numpy(), expected) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 60 and all(found)


@pytest.mark.parametrize("heads, dim", [(0, 40), (3, 40), (65, 65)])
def test_sizes_that_do_not_fit_are_an_error(operators, heads, dim):
    vectors, panels = map(paddle.to_tensor, pack_blocks(random_model(32, 8, 40, 4, 1.0).blocks, "fp32"))
    with pytest.raises(Exception, match="do not fit: number of heads"):  # Paddle chooses its class
        operators.cait_blocks(paddle.zeros([1, 16, dim]), vectors, panels, heads, 40)
    with pytest.raises(Exception, match="do not fit: patches"):
        operators.cait_blocks(paddle.zeros([16, 40]), vectors, panels, 4, 40)


LARGE = 2**31 - 1
HEADS = (0, -1, 1, 3, 5, 8, 40, 64, 65, LARGE, -LARGE - 1)
HIDDEN = (0, -1, -92, 16, 48, 112, 1 << 18, 1 << 28, LARGE - 15, LARGE, -LARGE - 1)
WRONG_ATTRIBUTES = {
    "cait_patches": [[size] for size in (0, -1, 1, 7, 9, 1 << 16, LARGE, -LARGE - 1)],
    "cait_blocks": [*((heads, 92) for heads in (2, *HEADS)), *((4, hidden) for hidden in HIDDEN)],
    # Two heads of 20 take as much memory here as four of 10.
    "cait_class_blocks": [*((heads, 80) for heads in HEADS), *((4, hidden) for hidden in HIDDEN)],
}


def wrong_tensors(tensor, others):
    """Of a valid input: with a side that is too short or too long or missing, and of other types."""
    shape = tensor.shape
    for axis, side in enumerate(shape):
        yield paddle.zeros([*shape[:axis], side + 16, *shape[axis + 1 :]], tensor.dtype)
        for cut in {0, 1, side // 2, side - 1} - {side}:
            yield paddle.zeros([*shape[:axis], cut, *shape[axis + 1 :]], tensor.dtype)
    yield paddle.zeros([1, *shape], tensor.dtype)
    yield paddle.zeros([int(np.prod(shape)), 1] if len(shape) == 1 else [int(np.prod(shape))], tensor.dtype)
    for kind in ("float64", "float16", "int32", "uint8", "bool", *others):
        yield paddle.zeros(shape, kind)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_inputs_and_attributes_that_do_not_fit_each_other_are_an_error(operators, precision):
    fused = FusedCaiT(random_model(30, 5, 40, 4, 2.3), precision)
    x = paddle.zeros([2, 36, 40])
    calls = {
        "cait_patches": ([paddle.zeros([2, 3, 30, 30]), fused.positions, fused.patch_panels], [5]),
        "cait_blocks": ([x, fused.vectors, fused.panels], [4, 92]),
        "cait_class_blocks": ([x, fused.class_token, fused.class_vectors, fused.class_panels], [4, 80]),
    }
    # These fit as well: other numbers of images and patches, and what `padded` makes the same.
    fitting = {"cait_patches": {(0, (18, 3, 30, 30)), (0, (1, 3, 30, 30)), (1, (36, 39))}}
    fitting["cait_blocks"] = {(0, shape) for shape in ((18, 36, 40), (1, 36, 40), (2, 52, 40), (2, 1, 40))}
    fitting["cait_blocks"] |= {(0, (2, tokens, 40)) for tokens in (18, 35)}
    fitting["cait_class_blocks"] = fitting["cait_blocks"]
    tried = 0
    for name, (tensors, attributes) in calls.items():
        operator = getattr(operators, name)
        operator(*tensors, *attributes)
        cases = [[*tensors, *changed] for changed in WRONG_ATTRIBUTES[name]]
        for place, tensor in enumerate(tensors):
            others = [] if tensor is tensors[-1] else ["int16"]
            for wrong in wrong_tensors(tensor, others):
                if wrong.dtype != tensor.dtype or (place, tuple(wrong.shape)) not in fitting[name]:
                    cases.append([*tensors[:place], wrong, *tensors[place + 1 :], *attributes])
        for case in cases:
            with pytest.raises(Exception, match="do not fit"):  # Paddle chooses its class
                operator(*case)
                print(name, [word.shape if isinstance(word, paddle.Tensor) else word for word in case])
        tried += len(cases)
    assert tried > 150


def test_a_library_that_cannot_be_loaded_says_why(tmp_path, monkeypatch):
    (tmp_path / library.LIBRARY).write_text("no library")
    monkeypatch.setattr(library, "_built", lambda: tmp_path)
    with pytest.raises(OperatorsUnavailable, match=r"cannot be loaded \(.*file too short"):
        library.register.__wrapped__()


def test_threads_that_ask_at_once_wait_for_the_first():
    calls = []

    def work():
        calls.append(1)
        time.sleep(0.2)
        return len(calls)

    once = library._once(work)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: once(), range(3))) == [1, 1, 1]


def test_without_a_compiler_the_reason_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OperatorsUnavailable, match="no compiler"):
        library._built()


def test_a_build_that_fails_is_not_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for message in ("building them failed; ", "building them failed before"):
        with pytest.raises(OperatorsUnavailable, match=message):
            library._built()


def test_a_bundle_runs_its_plain_program_where_the_fused_one_cannot_run(tiny_bundle, digits, monkeypatch):
    monkeypatch.setenv("CAIT_INSTRUCTIONS", "abacus")
    assert library.instruction_set() == ""
    result = run_python(INFER, f"--img-path={digits / 'val'}", f"--model_dir={tiny_bundle}")
    assert result.returncode == 0 and "plain program: the fused operators cannot be used here" in result.stderr


def test_fused_operators_can_be_left_out(tiny_bundle, digits):
    words = [f"--img-path={digits / 'val'}", f"--model_dir={tiny_bundle}"]
    plain, fused = (run_python(INFER, *words, *more) for more in (["--no-fused-ops"], []))
    assert "plain program, as asked for" in plain.stderr and "fused program, fp32, " in fused.stderr
    assert len(plain.stdout.splitlines()) == len(fused.stdout.splitlines()) > 0


@pytest.mark.slow
def test_the_operators_are_built_from_and_in_paths_with_blanks_and_quotes(tmp_path):
    folder = tmp_path / 'it\'s a "folder"'
    folder.mkdir()
    venv.create(folder / "venv")
    for name, target in (("packages", sysconfig.get_path("purelib")), ("code", ROOT / "CaiT")):
        (folder / name).symlink_to(target)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "all.pth").write_text(f"{folder / 'packages'}\n{folder / 'code'}\n")
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": "/proc"}
    words = [folder / "venv" / "bin" / "python", "-c", "from cait.ops import library; print(library.register())"]
    result = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.split() == [library.register()], result.stderr
