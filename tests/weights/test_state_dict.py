"""What is wrapped around weights is taken off, whoever wrote them and in whichever format."""

import pickle

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from cait.errors import CaitError
from cait.weights.layout import transpose_linear
from cait.weights.load import load_weights
from cait.weights.read import load_tensors, read_any, read_weights
from cait.weights.state_dict import PREFIXES, WRAPPERS, named_tensors
from cait.zoo import model_of
from project import GOLDEN

TIMM_STYLE = GOLDEN / "tiny_timm_style.safetensors"


def prefixed(tensors, *prefixes):
    return {"".join(prefixes) + name: value for name, value in tensors.items()}


def as_paddlevit(tensors):
    return {name.replace("patch_embed.proj.", "patch_embed.patch_embed."): value for name, value in tensors.items()}


def beside(key):
    """A training checkpoint as other projects write it: the weights under a key, beside other things."""
    return lambda tensors: {key: tensors, "optimizer": {"LR_Scheduler": {"last_epoch": 3}}, "epoch": 3, "args": None}


WRAPPINGS = {
    "bare": lambda tensors: tensors,
    **{f"key {key}": beside(key) for key in WRAPPERS},
    **{f"prefix {prefix}": lambda tensors, prefix=prefix: prefixed(tensors, prefix) for prefix in PREFIXES},
    "DataParallel of a compiled model": lambda tensors: prefixed(tensors, "module.", "_orig_mod."),
    "a key in a key": lambda tensors: {"state_dict": {"model": prefixed(tensors, "_layers.")}},
    "PaddleViT": lambda tensors: beside("model")(as_paddlevit(tensors)),
    "PaddleViT on several devices": lambda tensors: beside("model")(prefixed(as_paddlevit(tensors), "_layers.")),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_pdparams_files_are_unwrapped(tmp_path, wrapping):
    ours = transpose_linear(load_file(TIMM_STYLE))
    tensors = {name: paddle.to_tensor(value) for name, value in ours.items()}
    paddle.save(WRAPPINGS[wrapping](tensors), str(tmp_path / "a.pdparams"))
    found = read_weights(tmp_path / "a.pdparams")
    assert found.keys() == ours.keys()
    assert all(np.array_equal(found[name], value) for name, value in ours.items())


def test_the_state_of_a_layer_is_unwrapped(tmp_path):
    """Paddle's own state_dict has more than tensors in its file."""
    model = model_of(read_any(TIMM_STYLE))
    load_weights(model, TIMM_STYLE)
    parallel = paddle.nn.LayerDict({"_layers": model})  # the names that paddle.DataParallel gives
    paddle.save({"model": parallel.state_dict(), "epoch": 3}, str(tmp_path / "a.pdparams"))
    other = model_of(read_any(TIMM_STYLE))
    load_weights(other, tmp_path / "a")
    image = paddle.ones([1, 3, *model.image_size])
    model.eval(), other.eval()
    assert np.array_equal(model(image).numpy(), other(image).numpy())


@pytest.mark.parametrize("wrapping", [name for name in WRAPPINGS if name == "bare" or "prefix" in name])
def test_safetensors_files_are_unwrapped(tmp_path, wrapping):
    tensors = load_file(TIMM_STYLE)
    save_file(WRAPPINGS[wrapping](tensors), tmp_path / "a.safetensors")
    found, ours = read_any(tmp_path / "a.safetensors"), read_any(TIMM_STYLE)
    assert found.keys() == ours.keys() and all(np.array_equal(found[name], ours[name]) for name in ours)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_all_formats_share_the_unwrapping(wrapping):
    """`read_torch_file`, of which the tests of its own show that it goes through here."""
    tensors = {"patch_embed.proj.weight": np.zeros(3, "f4"), "norm.bias": np.ones(2, "f4")}
    assert named_tensors(WRAPPINGS[wrapping](tensors), "a.pth") == tensors


def test_a_prefix_of_some_names_is_part_of_them():
    tensors = {"module.a": np.zeros(1, "f4"), "b": np.zeros(1, "f4")}
    assert named_tensors(tensors, "a.pth").keys() == tensors.keys()


def test_a_file_that_holds_itself_ends(tmp_path):
    content = {}
    content["model"] = content
    with open(tmp_path / "a.pdparams", "wb") as file:
        pickle.dump(content, file)
    with pytest.raises(CaitError, match="a.pdparams: "):
        named_tensors(load_tensors(tmp_path / "a.pdparams"), tmp_path / "a.pdparams")
