"""Saving and loading."""

import os
import pickle

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from cait.align.golden import golden_images
from cait.errors import CaitError, UsageError
from cait.train import checkpoint
from cait.train.optim import adamw, optimizer_state
from cait.weights import load, read, write
from cait.weights.position_embedding import resize_pos_embed
from models import assert_equal_weights, small_model, trained
from project import GOLDEN


def test_weights_return_as_they_were(tmp_path):
    model, other = small_model(), small_model()
    write.save_weights(model, tmp_path / "weights.pdparams")
    for name in ("weights", "weights.pdparams"):
        assert load.load_weights(other, tmp_path / name) == [f"weights from {tmp_path / 'weights.pdparams'}"]
        assert_equal_weights(model, other)


def test_a_name_with_dots_is_found(tmp_path):
    write.save_weights(small_model(), tmp_path / "v1.2.pdparams")
    load.load_weights(small_model(), tmp_path / "v1.2")


def test_the_weights_are_anybodys_paddle_load(tmp_path):
    model, optimizer = trained()
    checkpoint.save_checkpoint(tmp_path, ["latest"], model, optimizer, {"epoch": 1})
    other = small_model()
    missing, unexpected = other.set_state_dict(paddle.load(str(tmp_path / "latest.pdparams")))
    assert not missing and not unexpected
    assert_equal_weights(model, other)


@pytest.mark.parametrize("name", ["", "latest", "latest.pdparams", "latest.pdstates", "best_model", "epoch_3"])
def test_every_name_of_a_checkpoint_resumes(tmp_path, name):
    model, optimizer = trained()
    progress = {"epoch": 3, "step": 7, "best_acc1": 0.5}
    checkpoint.save_checkpoint(tmp_path, ["latest", "best_model", "epoch_3"], model, optimizer, progress)
    other = small_model()
    other_optimizer = adamw(other, 0.05)
    assert checkpoint.load_checkpoint(other, other_optimizer, tmp_path / name) == progress
    assert_equal_weights(model, other)
    saved, loaded = optimizer_state(optimizer, model), None
    other_optimizer.set_lr(0.0)
    F.cross_entropy(other(paddle.randn([2, 3, 8, 8])), paddle.to_tensor([1, 2])).backward()
    other_optimizer.step()  # Paddle fills its state in the first step
    loaded = optimizer_state(other_optimizer, other)
    assert set(saved) == set(loaded)
    power = "head.weight/beta1_pow_acc"
    assert loaded[power].item() == pytest.approx(saved[power].item() * 0.9)


def test_a_later_save_leaves_the_other_names_alone(tmp_path):
    model, optimizer = trained()
    checkpoint.save_checkpoint(tmp_path, ["latest", "best_model"], model, optimizer, {"epoch": 1})
    checkpoint.save_checkpoint(tmp_path, ["latest"], *trained(), {"epoch": 2})
    assert read.load_tensors(tmp_path / "best_model.pdstates")["progress"] == {"epoch": 1}
    best = small_model()
    load.load_weights(best, tmp_path / "best_model")
    assert_equal_weights(model, best)


def test_no_hard_links_no_difference(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    model, optimizer = trained()
    checkpoint.save_checkpoint(tmp_path, ["latest", "best_model"], model, optimizer, {"epoch": 1})
    assert (tmp_path / "best_model.pdstates").read_bytes() == (tmp_path / "latest.pdstates").read_bytes()


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "weights.pdparams"
    write.save_weights(small_model(), path)
    before = path.read_bytes()

    def fail(state, name):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(paddle, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write.save_weights(small_model(), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def test_weights_without_a_training_state_say_so(tmp_path):
    model = small_model()
    write.save_weights(model, tmp_path / "weights.pdparams")
    other = small_model()
    assert checkpoint.load_checkpoint(other, adamw(other, 0.0), tmp_path / "weights") is None
    assert_equal_weights(model, other)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            {"num_classes": 4},
            "head.weight has shape [8, 4], the model [8, 3]; head.bias has shape [4], the model [3]; -o ",
        ),
        ({"embed_dim": 16}, "cls_token has shape [1, 1, 16], the model [1, 1, 8]; pos_embed"),
        ({"depth": 2}, "blocks.1.gamma_1 is not part of the model"),
        ({"depth_token_only": 1}, "blocks_token_only.1.gamma_1 is missing"),
    ],
)
def test_weights_of_another_model_are_an_error(tmp_path, arguments, words):
    write.save_weights(small_model(**arguments), tmp_path / "weights.pdparams")
    model = small_model()
    before = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    with pytest.raises(CaitError) as caught:
        load.load_weights(model, tmp_path / "weights")
    assert f"{tmp_path / 'weights.pdparams'}: weights of another model: " in str(caught.value)
    assert words in str(caught.value)
    for name, parameter in model.named_parameters():
        assert np.array_equal(parameter.numpy(), before[name])


def test_a_tensor_that_is_none_is_an_error(tmp_path):
    model = small_model()
    weights = {name: parameter.numpy() for name, parameter in model.state_dict().items()}
    weights["head.bias"] = np.array(["a", "b", "c"])
    with open(tmp_path / "weights.pdparams", "wb") as file:
        pickle.dump(weights, file)
    with pytest.raises(CaitError, match="head.bias holds <U1, not floating-point numbers"):
        load.load_weights(model, tmp_path / "weights")


@pytest.mark.parametrize("content", [b"", b"<html>", pickle.dumps([1, 2]), pickle.dumps({})])
def test_what_is_no_checkpoint_is_an_error(tmp_path, content):
    (tmp_path / "weights.pdparams").write_bytes(content)
    with pytest.raises(CaitError, match="weights.pdparams: not a"):
        load.load_weights(small_model(), tmp_path / "weights")


def test_a_truncated_checkpoint_is_an_error(tmp_path):
    path = tmp_path / "weights.pdparams"
    write.save_weights(small_model(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CaitError, match="weights.pdparams: not a Paddle checkpoint, or damaged"):
        load.load_weights(small_model(), path)


def test_a_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(CaitError, match="nowhere: no such checkpoint"):
        load.load_weights(small_model(), tmp_path / "nowhere")


def test_weights_under_the_name_of_a_state_are_an_error(tmp_path):
    model, optimizer = trained()
    write.save_weights(model, tmp_path / "latest.pdstates")
    with pytest.raises(CaitError, match="latest.pdstates: not the state of a training run"):
        checkpoint.load_checkpoint(model, optimizer, tmp_path / "latest")


def test_the_position_embedding_is_resized_as_the_reference_does():
    golden = np.load(GOLDEN / "pos_embed_resize.npz")
    for key in ("resized_24x24", "resized_28x28", "resized_7x7"):
        side = int(key.rsplit("x")[-1])
        resized = resize_pos_embed(golden["pos_embed_14x14"], (side, side), (14, 14))
        np.testing.assert_allclose(resized, golden[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize("size, grid", [(16, "4x4"), ((8, 12), "2x3"), (4, "1x1")])
def test_weights_run_at_another_resolution(tmp_path, size, grid):
    write.save_weights(small_model(image_size=12), tmp_path / "weights.pdparams")
    model = small_model(image_size=size)
    notes = load.load_weights(model, tmp_path / "weights")
    assert notes[1:] == [f"position embedding resized from 3x3 to {grid} patches"]
    side = (size, size) if isinstance(size, int) else size
    assert np.isfinite(model(paddle.randn([1, 3, *side])).numpy()).all()


def test_rows_and_columns_of_the_position_embedding_keep_their_places():
    rows, columns = np.meshgrid(np.arange(6.0), np.arange(6.0), indexing="ij")
    resized = resize_pos_embed(np.stack([rows, columns], -1).reshape(1, 36, 2), (3, 12), (6, 6)).reshape(3, 12, 2)
    np.testing.assert_allclose(resized[:, 5, 0], [0.5, 2.5, 4.5], atol=0.1)
    np.testing.assert_allclose(resized[1, 2:10, 1], np.arange(0.75, 4.5, 0.5), atol=0.1)


def test_a_head_of_another_class_count_is_fresh_only_when_asked_for(tmp_path):
    other = small_model(num_classes=4)
    write.save_weights(other, tmp_path / "weights.pdparams")
    model = small_model()
    head = model.head.weight.numpy()
    with pytest.raises(CaitError, match="MODEL.RESET_HEAD=true"):
        load.load_weights(model, tmp_path / "weights")
    notes = load.load_weights(model, tmp_path / "weights", reset_head=True)
    assert notes[1:] == ["fresh head for 3 classes in place of 4"]
    assert np.array_equal(model.head.weight.numpy(), head)
    assert np.array_equal(model.norm.weight.numpy(), other.norm.weight.numpy())
    assert np.array_equal(model.blocks[0].attn.qkv.weight.numpy(), other.blocks[0].attn.qkv.weight.numpy())


def test_a_head_of_the_same_class_count_is_never_reset(tmp_path):
    other, model = small_model(), small_model()
    write.save_weights(other, tmp_path / "weights.pdparams")
    assert len(load.load_weights(model, tmp_path / "weights", reset_head=True)) == 1
    assert_equal_weights(model, other)


@pytest.mark.parametrize("name", ["tiny_fb_style", "tiny_fb_style.pth", "tiny_timm_style.safetensors"])
def test_checkpoints_of_pytorch_load_directly(name):
    tiny = {"image_size": 16, "patch_size": 4, "num_classes": 10, "embed_dim": 24, "depth": 3, "num_heads": 2}
    model = small_model(**tiny)
    load.load_weights(model, GOLDEN / name)
    golden = np.load(GOLDEN / "train_tiny.npz")["logits"]
    model.eval()
    images = paddle.to_tensor(golden_images(1, 8, 16, 16).astype("float32"))
    np.testing.assert_allclose(model(images).numpy(), golden, atol=1e-5)


@pytest.mark.parametrize(
    "content, words",
    [
        ({"cls_token": np.zeros((1, 1, 8), "uint16")}, "cls_token is in bfloat16; save the weights in float32"),
        ({"weights": {"cls_token": np.zeros(1, "f4")}}, "'weights' is not a named tensor of numbers"),
        ({"model": {}}, "weights.pdparams: holds no named tensors"),
        ({3: np.zeros(1, "f4")}, "3 is not a named tensor of numbers"),
        ({"cls_token": [[1.0], [1.0, 2.0]]}, "'cls_token' is not a named tensor of numbers"),
        ({"cls_token": np.zeros(1, "complex64")}, "cls_token holds complex64"),
    ],
)
def test_content_that_is_no_weights_is_an_error(tmp_path, content, words):
    with open(tmp_path / "weights.pdparams", "wb") as file:
        pickle.dump(content, file)
    with pytest.raises(CaitError, match=words):
        load.load_weights(small_model(), tmp_path / "weights")


def test_weights_in_bfloat16_are_refused(tmp_path):
    weights = {name: tensor.astype("bfloat16") for name, tensor in small_model().state_dict().items()}
    paddle.save(weights, str(tmp_path / "weights.pdparams"))
    with pytest.raises(CaitError, match="is in bfloat16"):
        load.load_weights(small_model(), tmp_path / "weights")


def test_a_file_of_another_kind_is_never_unpickled(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"cos\nmkdir\n(S'owned'\ntR.")
    with pytest.raises(UsageError, match="weights.pt: must end in .pdparams, .safetensors or .pth"):
        load.load_weights(small_model(), tmp_path / "weights.pt")
