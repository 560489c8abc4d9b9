"""Names, shapes and layout between PyTorch and Paddle; the command that converts."""

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from cait import zoo
from cait.align.golden import golden_images, load_golden_weights
from cait.errors import CaitError, UsageError
from cait.model import CaiT
from cait.variants import list_models
from cait.weights import layout, read, write
from cait.weights.read import load_tensors
from cait.zoo import create_model, variant_config, variant_shapes
from project import GOLDEN, ROOT, run_python

SCRIPT = str(ROOT / "CaiT" / "convert_weights.py")
TIMM_STYLE, FB_STYLE = GOLDEN / "tiny_timm_style.safetensors", GOLDEN / "tiny_fb_style.pth"


@pytest.mark.parametrize("name", list_models())
def test_the_map_has_every_tensor_of_every_variant(name):
    shapes = variant_shapes(variant_config(name))
    golden = np.load(GOLDEN / f"forward_{name}.npz")
    assert len(shapes) == golden["num_tensors"]
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == golden["num_params"]
    arguments = layout.infer_arguments(shapes)
    assert layout.tensor_shapes(**arguments) == shapes


@pytest.mark.parametrize(
    "arguments", [{}, {"qkv_bias": False}, {"mlp_ratio": 2.0, "depth_token_only": 1, "in_channels": 1}]
)
def test_the_map_is_that_of_the_model(arguments):
    sizes = {"image_size": (8, 12), "patch_size": 4, "num_classes": 3, "embed_dim": 8, "depth": 2, "num_heads": 2}
    own = {name: tuple(value.shape) for name, value in CaiT(**sizes, **arguments).state_dict().items()}
    in_torch = {name: shape[::-1] if len(shape) == 2 else shape for name, shape in own.items()}
    assert layout.tensor_shapes(**layout.infer_arguments(in_torch)) == in_torch


@pytest.mark.parametrize("source", [TIMM_STYLE, FB_STYLE])
@pytest.mark.parametrize("back", ["safetensors"])
def test_there_and_back_without_loss(tmp_path, source, back):
    there, again = tmp_path / "weights.pdparams", tmp_path / f"weights.{back}"
    assert run_python(SCRIPT, source, "--output", there).returncode == 0
    assert run_python(SCRIPT, there, "--to", back).returncode == 0
    original, returned = load_file(TIMM_STYLE), load_file(again)
    assert set(original) == set(returned)
    for name, value in original.items():
        assert value.dtype == returned[name].dtype and np.array_equal(value, returned[name]), name


def test_the_converted_model_gives_the_logits_of_the_reference(tmp_path):
    write.write_any(read.read_any(FB_STYLE), tmp_path / "weights.pdparams")
    model = zoo.model_of(read.read_any(tmp_path / "weights.pdparams"))
    model.set_state_dict(paddle.load(str(tmp_path / "weights.pdparams")))
    model.eval()
    logits = model(paddle.to_tensor(golden_images(1, 8, 16, 16).astype("float32"))).numpy()
    np.testing.assert_allclose(logits, np.load(GOLDEN / "train_tiny.npz")["logits"], atol=1e-5)


def damaged(tmp_path, change):
    tensors = load_file(TIMM_STYLE)
    change(tensors)
    save_file(tensors, tmp_path / "damaged.safetensors")
    return tmp_path / "damaged.safetensors"


def rename(tensors):
    tensors["norm.w"] = tensors.pop("norm.weight")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.pop("blocks.1.norm1.bias"), "blocks.1.norm1.bias is missing"),
        (lambda t: t.update(extra=np.zeros(3, "f4")), "extra is not part of the model"),
        (lambda t: t.update({"norm.bias": np.zeros(3, "f4")}), r"norm.bias has shape \[3\], the model \[24\]"),
        (lambda t: t.pop("pos_embed"), "no checkpoint of a CaiT: pos_embed is missing"),
        (lambda t: t.update({"norm.bias": np.zeros(24, "i4")}), "norm.bias holds int32, not floating-point numbers"),
        (rename, "norm.weight is missing; norm.w is not part of the model"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, words):
    with pytest.raises(CaitError, match=rf"damaged.safetensors: .*{words}"):
        read.read_any(damaged(tmp_path, change))


def test_half_precision_becomes_single(tmp_path):
    path = damaged(tmp_path, lambda t: t.update({name: value.astype("f2") for name, value in t.items()}))
    tensors = read.read_any(path)
    assert {value.dtype for value in tensors.values()} == {np.dtype("f4")}


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"  \n<html>"])
def test_a_page_is_no_checkpoint(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(CaitError, match="an HTML page, not a checkpoint"):
        read.read_any(tmp_path / "a.safetensors")


def test_a_truncated_safetensors_file_is_an_error(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(TIMM_STYLE.read_bytes()[:-10])
    with pytest.raises(CaitError, match="a.safetensors: not a safetensors file, or damaged"):
        read.read_any(tmp_path / "a.safetensors")


def test_an_existing_file_is_replaced_only_by_force(tmp_path):
    path = tmp_path / "a.pdparams"
    path.write_text("mine")
    with pytest.raises(UsageError, match="is there already; --force replaces it"):
        write.write_any(read.read_any(TIMM_STYLE), path)
    with pytest.raises(UsageError, match="is there and not a checkpoint, so it is not replaced"):
        write.write_any(read.read_any(TIMM_STYLE), path, force=True)
    assert path.read_text() == "mine"
    path.write_bytes(TIMM_STYLE.read_bytes())
    write.write_any(read.read_any(TIMM_STYLE), path, force=True)
    assert len(load_tensors(path)) == 98


def test_a_published_variant_is_recognised():
    shapes = variant_shapes(variant_config("cait_xxs24_224"))
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    assert zoo.name_of(tensors) == "cait_xxs24_224"
    tensors["head.weight"], tensors["head.bias"] = np.zeros((7, 192), "f4"), np.zeros(7, "f4")
    assert zoo.name_of(tensors) is None  # never written where the official weights are looked for
    assert zoo.name_of(read.read_any(TIMM_STYLE)) is None


def test_the_digest_is_the_same_everywhere_and_sees_every_weight(tmp_path):
    words = [SCRIPT, TIMM_STYLE, "--output", tmp_path / "a.pdparams", "--verify"]
    result = run_python(*words)
    assert "logits of the fixed image: sha256 c71de5b51fc094a0, class 4, mean -0.621891" in result.stdout
    path = damaged(tmp_path, lambda t: t.update({"blocks.0.attn.proj.weight": t["blocks.0.attn.proj.weight"].T.copy()}))
    result = run_python(SCRIPT, path, "--output", tmp_path / "b.pdparams", "--verify")
    assert result.returncode == 0 and "sha256" in result.stdout and "c71de5b51fc094a0" not in result.stdout


@pytest.mark.parametrize(
    "words, exit_code, message",
    [
        ([], 2, "name a file, or a published variant with --variant"),
        (["--variant", "cait_xl", "a.pth"], 2, "no variant 'cait_xl'"),
        (["nowhere.pth"], 1, "nowhere.pth: no such checkpoint; `python CaiT/convert_weights.py --variant NAME`"),
        (["nowhere.pdparams", "--to", "safetensors"], 1, "nowhere.pdparams: no such checkpoint; "),
        (
            [str(TIMM_STYLE), "--variant", "cait_xxs24_224"],
            1,
            "weights of another model: blocks.3.norm1.weight is missing",
        ),
        ([str(TIMM_STYLE), "--output", "a.txt"], 2, "a.txt: must end in .pdparams or .safetensors or .pth"),
        ([str(TIMM_STYLE), "--output", "a.pth"], 2, "a.pth: must end in .pdparams, as --to says"),
    ],
)
def test_wrong_usage_is_one_sentence(tmp_path, words, exit_code, message):
    result = run_python(SCRIPT, *words, cwd=tmp_path)
    assert result.returncode == exit_code
    assert result.stderr.startswith("error: ") and message in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_default_output_is_where_the_commands_look(tmp_path):
    import shutil

    shutil.copytree(ROOT / "CaiT", tmp_path / "CaiT", ignore=shutil.ignore_patterns("*.pdparams", "__pycache__"))
    model = create_model("cait_xxs24_224")
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    save_file(layout.transpose_linear(weights), tmp_path / "mine.safetensors")
    result = run_python("CaiT/convert_weights.py", "mine.safetensors", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    written = load_tensors(tmp_path / "CaiT" / "cait_xxs24_224.pdparams")
    for name, value in weights.items():
        assert np.array_equal(written[name], value), name


def test_timm_loads_what_was_trained_here(tmp_path):
    torch = pytest.importorskip("torch")
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        pytest.skip(f"timm cannot be imported: {error}")
    model = load_golden_weights(create_model("cait_xxs24_224", depth=2))
    model.eval()
    paddle.save(model.state_dict(), str(tmp_path / "a.pdparams"))
    for target in ("safetensors", "torch"):
        result = run_python(SCRIPT, tmp_path / "a.pdparams", "--to", target)
        assert result.returncode == 0, result.stderr
    other = timm.create_model("cait_xxs24_224", depth=2).eval()
    images = golden_images(0, 2, 224, 224).astype("float32")
    with paddle.no_grad():
        logits = model(paddle.to_tensor(images)).numpy()
    for state in (
        {name: torch.from_numpy(value) for name, value in load_file(tmp_path / "a.safetensors").items()},
        torch.load(tmp_path / "a.pth")["model"],
    ):
        other.load_state_dict(state, strict=True)
        with torch.no_grad():
            np.testing.assert_allclose(other(torch.from_numpy(images)).numpy(), logits, atol=2e-5)


def test_any_cait_can_be_verified(tmp_path):
    sizes = {"image_size": (8, 12), "patch_size": 4, "num_classes": 3, "embed_dim": 56, "depth": 1, "num_heads": 2}
    model = CaiT(**sizes, mlp_ratio=61.5 / 56)
    paddle.save(model.state_dict(), str(tmp_path / "a.pdparams"))
    result = run_python(SCRIPT, tmp_path / "a.pdparams", "--to", "safetensors", "--verify")
    assert result.returncode == 0, result.stderr
    assert "logits of the fixed image: sha256 " in result.stdout


def test_a_name_cannot_make_millions_of_blocks(tmp_path):
    path = damaged(
        tmp_path, lambda t: t.update({"blocks.3000000.x": np.zeros(1, "f4"), "blocks.².x": np.zeros(1, "f4")})
    )
    with pytest.raises(CaitError, match="is not part of the model"):
        read.read_any(path)
