"""Weights know their patch grid, and are put where they belong; those that do not know it are taken as the docs say."""

import json
import subprocess
import sys

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from cait.errors import CaitError
from cait.train import checkpoint
from cait.train.optim import adamw
from cait.variants import list_models
from cait.weights import layout, load, write
from cait.weights.input_record import METADATA, in_record, read_input, record_of
from cait.weights.position_embedding import resize_pos_embed
from cait.weights.safetensors_file import read_metadata
from cait.weights.trailer import append_record, read_record
from cait.zoo import create_model, model_of_yaml, variant_config, variant_record
from models import assert_equal_weights, small_model, trained
from project import ROOT, run_python

SCRIPT = ROOT / "CaiT" / "convert_weights.py"
PUBLISHED = (56, 56)  # 14x14 patches, as XXS24 at 224 has
TALL, SQUARE, WIDE = (32, 8), (16, 16), (8, 32)  # 16 patches each: 8x2, 4x4 and 2x8


def save(model, folder, kind):
    """The weights of a model with their record, as the commands write them; the file."""
    write.save_weights(model, folder / "weights.pdparams")
    if kind == "safetensors":
        result = run_python(SCRIPT, folder / "weights.pdparams", "--to", "safetensors")
        assert result.returncode == 0, result.stderr
    return folder / f"weights.{kind}"


def save_bare(model, folder):
    """The weights as others save them: without any record."""
    paddle.save(model.state_dict(), str(folder / "bare.pdparams"))
    return folder / "bare.pdparams"


@pytest.mark.parametrize("kind", ["pdparams", "safetensors"])
@pytest.mark.parametrize("size", [SQUARE, WIDE, (12, 20)])
def test_a_grid_that_is_no_square_is_resized_from_where_its_patches_were(tmp_path, kind, size):
    model, other = small_model(image_size=TALL), small_model(image_size=size)
    file, grid = save(model, tmp_path, kind), tuple(side // 4 for side in size)
    notes = load.load_weights(other, file)
    assert notes[1:] == [f"position embedding resized from 8x2 to {grid[0]}x{grid[1]} patches"]
    expected = resize_pos_embed(model.pos_embed.numpy(), grid, (8, 2))
    assert np.array_equal(other.pos_embed.numpy(), expected)
    assert not np.allclose(expected.ravel()[:8], expected.ravel()[-8:])


def test_rows_of_a_tall_grid_stay_rows(tmp_path):
    model, other = small_model(image_size=TALL), small_model(image_size=SQUARE)
    rows = np.repeat(np.arange(8.0), 2)[None, :, None] * np.ones(8)
    model.pos_embed.set_value(rows.astype("float32"))
    load.load_weights(other, save(model, tmp_path, "pdparams"))
    found = other.pos_embed.numpy().reshape(4, 4, 8)
    np.testing.assert_allclose(found[:, :, 0], np.repeat([[0.5], [2.5], [4.5], [6.5]], 4, axis=1), atol=0.1)


@pytest.mark.parametrize("kind", ["pdparams", "safetensors"])
def test_the_same_grid_returns_as_it_was(tmp_path, kind):
    model, other = small_model(image_size=WIDE), small_model(image_size=WIDE)
    file = save(model, tmp_path, kind)
    assert load.load_weights(other, file) == [f"weights from {file}"]
    assert_equal_weights(model, other)


def test_every_file_of_a_run_has_the_record(tmp_path):
    from cait.train.ema import ModelEma

    model, optimizer = trained()
    model.pixel_stats = [0.5, 0.4, 0.3], [0.2, 0.3, 0.1]
    checkpoint.save_checkpoint(
        tmp_path, ["latest"], model, optimizer, {"epoch": 1}, ModelEma(model, 0.9), ["latest_ema"]
    )
    expected = {"grid": [2, 2], "patch_size": 4, "heads": 2, "channels": 3}
    expected |= {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.1]}
    for name in ("latest.pdparams", "latest.pdstates", "latest_ema.pdparams"):
        assert read_record(tmp_path / name)["input"] == expected
        assert read_input(tmp_path / name, {}) == record_of(model)


@pytest.mark.parametrize("kind", ["pdparams", "safetensors"])
def test_the_record_survives_conversion_there_and_back(tmp_path, kind):
    model = small_model(image_size=TALL)
    model.pixel_stats = [0.5, 0.4, 0.3], [0.2, 0.3, 0.1]
    file = save(model, tmp_path, kind)
    if kind == "safetensors":
        assert read_metadata(file)["format"] == "pt"  # by which others know whose layout it is
        assert json.loads(read_metadata(file)[METADATA])["grid"] == [8, 2]
    target = tmp_path / "again.pdparams"
    words = [file, "--output", target] if kind == "safetensors" else [file, "--output", target, "--force"]
    result = run_python(SCRIPT, *words, "--verify")
    assert result.returncode == 0, result.stderr
    assert read_input(target, {}) == record_of(model)


def test_the_fixed_image_of_a_conversion_has_the_recorded_grid(tmp_path):
    digests = set()
    for size in (TALL, SQUARE):
        paddle.seed(3)
        write.save_weights(small_model(image_size=size, init_values=1.0), tmp_path / "a.pdparams")
        result = run_python(SCRIPT, tmp_path / "a.pdparams", "--to", "safetensors", "--force", "--verify")
        digests.add(result.stdout.splitlines()[-1])
    assert len(digests) == 2 and all("logits of the fixed image" in words for words in digests)


def test_plain_paddle_loads_files_with_a_record(tmp_path):
    model = small_model(image_size=TALL)
    file = save(model, tmp_path, "pdparams")
    code = (
        "import sys, paddle, numpy as np\n"
        "tensors = paddle.load(sys.argv[1])\n"
        "assert not any(name.startswith('cait') for name in sys.modules)\n"
        "np.savez(sys.argv[2], **{name: tensor.numpy() for name, tensor in tensors.items()})\n"
    )
    words = [sys.executable, "-c", code, str(file), str(tmp_path / "found.npz")]
    subprocess.run(words, check=True, cwd=tmp_path, timeout=300)
    with np.load(tmp_path / "found.npz") as found:
        assert set(found) == set(model.state_dict())
        for name, tensor in model.state_dict().items():
            assert np.array_equal(found[name], tensor.numpy()), name


def test_others_load_safetensors_files_with_a_record(tmp_path):
    model = small_model(image_size=TALL)
    assert set(load_file(save(model, tmp_path, "safetensors"))) == set(model.state_dict())


@pytest.mark.parametrize(
    "saved, size, words",
    [
        (PUBLISHED, PUBLISHED, None),
        (PUBLISHED, SQUARE, "position embedding resized from 14x14 to 4x4 patches"),
        (TALL, SQUARE, "warning: position embedding taken as 4x4 patches, which the file does not record"),
        (SQUARE, (8, 8), "warning: position embedding resized from 4x4 to 2x2 patches; that it was square is a guess"),
        (
            TALL,
            TALL,
            "warning: position embedding taken as 8x2 patches, which the file does not record, as many as a 4x4",
        ),
        ((8, 12), (8, 12), "warning: position embedding taken as 2x3 patches, which the file does not record"),
        (SQUARE, (8, 12), "warning: position embedding resized from 4x4 to 2x3 patches; that it was square is a guess"),
    ],
)
def test_what_a_file_without_record_is_taken_for(tmp_path, saved, size, words):
    file = save_bare(small_model(image_size=saved), tmp_path)
    notes = load.load_weights(small_model(image_size=size), file)[1:]
    assert (notes == []) if words is None else (len(notes) == 1 and notes[0].startswith(words))


def test_a_file_without_record_that_is_no_square_cannot_be_resized(tmp_path):
    file = save_bare(small_model(image_size=(8, 12)), tmp_path)
    with pytest.raises(
        CaitError, match="for 6 patches, the model's for 4x4; it cannot be resized, since the file does"
    ):
        load.load_weights(small_model(image_size=SQUARE), file)


def test_files_with_the_record_of_before_load(tmp_path):
    model, other = small_model(image_size=PUBLISHED), small_model(image_size=PUBLISHED)
    file = save_bare(model, tmp_path)
    append_record(file, {"epoch": 3})
    assert load.load_weights(other, file) == [f"weights from {file}"]
    assert_equal_weights(model, other)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"grid": [4, 2]}, r"records a grid of 4x2 patches, and its pos_embed has the shape \[1, 16, 8\]"),
        ({"channels": 1}, "records 1 channels, and its patch_embed.proj.weight has"),
        ({"patch_size": 8}, "records patches of 8 pixels, and its patch_embed"),
        ({"heads": 4}, r"records 4 heads, and its blocks.0.attn.proj_l.weight has the shape \[2, 2\]"),
        ({"grid": [0, 16]}, "is malformed .grid must be from 1 to 65536, not 0"),
        ({"grid": "8x2"}, "grid must be rows and columns"),
        ({"mean": [0.5]}, "mean must be a number for each of 3 channels"),
    ],
)
@pytest.mark.parametrize("kind", ["pdparams", "safetensors"])
def test_a_record_that_contradicts_its_tensors_is_refused(tmp_path, change, words, kind):
    model = small_model(image_size=TALL)
    facts = record_of(model).facts() | change
    file = tmp_path / f"a.{kind}"
    if kind == "pdparams":
        paddle.save(model.state_dict(), str(file))
        append_record(file, {"input": facts})
    else:
        tensors = layout.transpose_linear({name: value.numpy() for name, value in model.state_dict().items()})
        save_file(tensors, file, {METADATA: json.dumps(facts)})
    with pytest.raises(CaitError, match=words):
        load.load_weights(small_model(image_size=TALL), file)


def test_a_state_of_another_grid_is_not_resumed(tmp_path):
    model = small_model(image_size=TALL)
    checkpoint.save_checkpoint(tmp_path, ["latest"], model, adamw(model, 0.0), {"epoch": 1})
    other = small_model(image_size=SQUARE)
    before = other.pos_embed.numpy()
    with pytest.raises(CaitError, match="the state of a model with 8x2 patches, and this one has 4x4"):
        checkpoint.load_checkpoint(other, adamw(other, 0.0), tmp_path)
    assert np.array_equal(other.pos_embed.numpy(), before)


def test_other_pixels_than_in_training_are_warned_of(tmp_path):
    model = small_model()
    model.pixel_stats = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]
    write.save_weights(model, tmp_path / "a.pdparams")
    same, other, unknown = small_model(), small_model(), small_model()
    same.pixel_stats, other.pixel_stats = model.pixel_stats, ([0.485, 0.5, 0.5], [0.5, 0.5, 0.5])
    assert len(load.load_weights(same, tmp_path / "a")) == len(load.load_weights(unknown, tmp_path / "a")) == 1
    note = load.load_weights(other, tmp_path / "a")[1]
    assert note.startswith(
        f"warning: {tmp_path / 'a.pdparams'} was trained with DATA.MEAN [0.5, 0.5, 0.5] and DATA.STD"
    )


def test_weights_that_are_resumed_alone_say_how_they_were_taken(tmp_path):
    save_bare(small_model(image_size=(8, 12)), tmp_path)
    other, notes = small_model(image_size=(8, 12)), []
    assert checkpoint.load_checkpoint(other, adamw(other, 0.0), tmp_path / "bare", note=notes.append) is None
    assert len(notes) == 1 and notes[0].startswith("warning: position embedding taken as 2x3 patches")


def test_converted_weights_of_a_published_variant_get_the_record_of_it(tmp_path):
    model = create_model("cait_xxs24_224")
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    save_file(layout.transpose_linear(tensors), tmp_path / "theirs.safetensors")
    words = [tmp_path / "theirs.safetensors", "--output", tmp_path / "a.pdparams"]
    assert run_python(SCRIPT, *words).returncode == 0
    assert read_input(tmp_path / "a.pdparams", {}) is None
    assert run_python(SCRIPT, *words, "--force", "--variant", "cait_xxs24_224").returncode == 0
    assert read_input(tmp_path / "a.pdparams", {}) == record_of(model)


@pytest.mark.parametrize("name", list_models())
def test_the_record_of_a_variant_is_that_of_its_model(name):
    heads = variant_config(name).MODEL.NUM_HEADS
    assert record_of(create_model(name, embed_dim=heads, depth=1)) == variant_record(name)


def test_models_of_a_config_know_their_pixels(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "DATA: {IMAGE_SIZE: [8, 16], MEAN: [0.5], STD: [0.25]}\n"
        "MODEL: {PATCH_SIZE: 4, IN_CHANNELS: 1, EMBED_DIM: 8, DEPTH: 1, NUM_HEADS: 2}\n"
    )
    model = model_of_yaml(tmp_path / "a.yaml")
    assert in_record(record_of(model)) == {
        "input": {"grid": [2, 4], "patch_size": 4, "heads": 2, "channels": 1, "mean": [0.5], "std": [0.25]}
    }
    sizes = {"embed_dim": 8, "depth": 1, "num_heads": 2}
    assert record_of(create_model("cait_xxs24_224", **sizes)).mean == (0.485, 0.456, 0.406)
    assert record_of(create_model("cait_xxs24_224", in_channels=1, **sizes)).mean is None
