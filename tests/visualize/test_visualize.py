"""Attention by numbers, the pictures of it, and the command that makes them."""

import subprocess
import sys

import numpy as np
import paddle
import pytest
from PIL import Image

from cait.align.golden import load_golden_weights
from cait.config.read import make_config, read_yaml
from cait.config.saved import save_config
from cait.data.image_files import spread
from cait.deploy.bundle_schema import CLASS_ATTENTION
from cait.deploy.engine import Engine
from cait.deploy.export import build_description
from cait.deploy.predictor import Predictor
from cait.errors import CaitError, UsageError
from cait.records.metrics import write_metrics
from cait.visualize import OF_IMAGES, attention_models, draw, figures, job, maps
from cait.zoo import build_model
from project import CLASS_NAMES, ROOT, run_python
from runs import ROWS

SCRIPT = str(ROOT / "CaiT" / "visualize.py")


@pytest.fixture(scope="module")
def deep(tiny_yaml, tiny_weights):
    """A model of 32 x 16 pixels, 8 x 4 patches, 3 self-attention and 2 class-attention blocks, as a source."""
    more = {"DATA.IMAGE_SIZE": [32, 16], "MODEL.DEPTH": 3, "MODEL.DEPTH_TOKEN_ONLY": 2}
    config = make_config(read_yaml(tiny_yaml) | more)
    model = load_golden_weights(build_model(config))
    return attention_models.CheckpointAttention("deep", model, build_description(config, CLASS_NAMES, tiny_weights[2]))


@pytest.fixture(scope="module")
def image():
    """Normalised [1, 1, 32, 16]."""
    return np.random.default_rng(0).standard_normal((1, 1, 32, 16)).astype("float32")


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def test_patches_come_to_their_places():
    attention = np.arange(2 * 7, dtype="float32").reshape(2, 7)
    np.testing.assert_array_equal(maps.patch_maps(attention, (2, 3))[1], [[8, 9, 10], [11, 12, 13]])


@pytest.mark.parametrize(
    "attention, words",
    [
        (np.zeros((2, 6)), r"shape \[2, 6\] does not end in 1 \+ 2 x 3"),
        (np.float32(0), "does not end in"),
        (np.full(7, np.nan), "not finite"),
    ],
)
def test_attention_of_another_grid_is_an_error(attention, words):
    with pytest.raises(CaitError, match=words):
        maps.patch_maps(attention, (2, 3))


def test_a_hot_patch_lies_on_its_pixels():
    hot = np.zeros((3, 5))
    hot[1, 3] = 1.0
    colours = np.repeat(np.arange(256, dtype="uint8")[:, None], 3, axis=1)
    for height, width in ((48, 80), (7, 11)):  # also where the grid does not divide the picture
        pixels = maps.overlay(np.zeros((height, width, 1), "uint8"), hot, colours, opacity=1.0)
        rows, columns = np.nonzero(pixels[..., 0])
        inside = (np.arange(height) * 3 // height == 1)[:, None] & (np.arange(width) * 5 // width == 3)
        np.testing.assert_array_equal(pixels[..., 0], np.where(inside, 255, 0))
    assert pixels.dtype == np.uint8 and rows.min() == 3 and columns.min() == 7


def test_an_overlay_keeps_the_image_and_clips_the_map():
    colours = np.repeat(np.arange(256, dtype="uint8")[:, None], 3, axis=1)
    image = np.full((4, 4, 3), 100, "uint8")
    assert (maps.overlay(image, np.zeros((2, 2)), colours, opacity=0.0) == 100).all()
    assert (maps.overlay(image, np.full((2, 2), 7.0), colours, opacity=0.5) == 178).all()
    assert (maps.overlay(image, np.zeros((2, 2)), colours, lowest=-1.0, opacity=1.0) == 128).all()
    np.testing.assert_array_equal(maps.relative(np.array([[[0.0, -4.0]], [[0.0, 0.0]]])), [[[0, -1]], [[0, 0]]])


def test_class_attention_sums_to_one_and_the_bundle_gives_the_same(tiny_weights, full_bundle):
    config, model, path = tiny_weights
    weights = attention_models.CheckpointAttention("weights", model, build_description(config, CLASS_NAMES, path))
    bundle = attention_models.BundleAttention("bundle", full_bundle)
    assert weights.grid == bundle.grid == (4, 4)
    images = np.random.default_rng(1).standard_normal((3, 1, 16, 16)).astype("float32")
    (_, expected), (_, attention) = weights(images), bundle(images)
    plain = Predictor(full_bundle, Engine(fused=False)).outputs(images, [CLASS_ATTENTION])[CLASS_ATTENTION]
    for each in (expected, attention, plain):
        assert each.shape == (3, 1, 2, 17)
        np.testing.assert_allclose(each.sum(-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(plain, expected, atol=1e-6)
    np.testing.assert_allclose(attention, expected, atol=1e-5)  # of a matrix unit, 16 bits of each factor count
    assert expected.std() > 1e-3  # so that the agreement says something


def test_self_attention_before_and_after_the_mixing(deep, image):
    """Against the formulas, in NumPy, for the first block."""
    block = deep.network.blocks[0]
    with paddle.no_grad():
        x = deep.network.patch_embed(paddle.to_tensor(image)) + deep.network.pos_embed
        q, k, _ = block.attn.qkv(block.norm1(x)).numpy()[0].reshape(32, 3, 2, 8).transpose(1, 2, 0, 3)
    own = np.einsum("hnd,hmd->hnm", q, k) * 8**-0.5
    steps = deep.talking_heads(image, 0)
    np.testing.assert_allclose(steps["own"], softmax(own), rtol=1e-4, atol=1e-6)
    matrices = {name: of_blocks[0] for name, of_blocks in deep.mixing_matrices().items()}
    logits = np.einsum("gh,hnm->gnm", matrices["proj_l"], own) + block.attn.proj_l.bias.numpy()[:, None, None]
    np.testing.assert_allclose(steps["softmax"], softmax(logits), rtol=1e-4, atol=1e-6)
    mixed = np.einsum("gh,hnm->gnm", matrices["proj_w"], softmax(logits))
    mixed += block.attn.proj_w.bias.numpy()[:, None, None]
    np.testing.assert_allclose(steps["mixed"], mixed, rtol=1e-4, atol=1e-6)
    for name in ("own", "softmax"):
        np.testing.assert_allclose(steps[name].sum(-1), 1.0, atol=1e-6)
    assert not block.attn.proj_l._forward_pre_hooks


def test_self_attention_is_the_same_in_many_passes(deep, image, monkeypatch):
    whole = list(deep.self_attention(image))
    monkeypatch.setattr(attention_models, "MAP_BYTES", 1)
    for (softmax_whole, mixed_whole), (softmax_each, mixed_each) in zip(whole, deep.self_attention(image), strict=True):
        np.testing.assert_array_equal(softmax_each, softmax_whole)
        np.testing.assert_array_equal(mixed_each, mixed_whole)
        np.testing.assert_allclose(softmax_each.sum(-1), 1.0, atol=1e-6)


def test_rollout_is_the_product_of_whole_matrices(deep, image):
    """Of class token and patches together, in loops, as the paper writes it."""
    rollout, product = np.eye(32), np.eye(33)
    for _, mixed in deep.self_attention(image):
        rollout = maps.add_block(rollout, mixed)
        matrix = np.eye(33)
        for row in range(32):
            for column in range(32):
                matrix[1 + row, 1 + column] = np.mean([abs(mixed[head, row, column]) for head in range(2)])
        matrix[1:, 1:] /= matrix[1:, 1:].sum(axis=1, keepdims=True)
        product = (0.5 * np.eye(33) + 0.5 * matrix) @ product
        np.testing.assert_allclose(rollout.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(rollout, product[1:, 1:], atol=1e-12)
    class_attention = deep(image)[1][0]
    for attention in class_attention:
        matrix = np.eye(33)
        matrix[0] = attention.mean(axis=0) / attention.mean(axis=0).sum()
        product = (0.5 * np.eye(33) + 0.5 * matrix) @ product
    result = maps.class_rollout(rollout, class_attention)
    np.testing.assert_allclose(result, product[0], atol=1e-7)
    assert result.sum() == pytest.approx(1.0) and 0.25 < result[0] < 1.0


def test_branch_ratios_are_those_of_the_formula(deep, image):
    expected = {"gamma_1": [], "gamma_2": []}
    with paddle.no_grad():
        x = deep.network.patch_embed(paddle.to_tensor(image)) + deep.network.pos_embed
        for block in deep.network.blocks:
            for name, branch in (("gamma_1", block.attn(block.norm1(x))), ("gamma_2", None)):
                branch = block.mlp(block.norm2(x)) if branch is None else branch
                step = getattr(block, name) * branch
                ratio = np.linalg.norm(step.numpy(), axis=-1) / np.linalg.norm(x.numpy(), axis=-1)
                expected[name].append(float(ratio.mean()))
                x = x + step
    ratios = deep.branch_ratios(image)
    for name, values in expected.items():
        np.testing.assert_allclose(ratios[name], values, rtol=1e-4)
    assert deep.layer_scale().keys() == ratios.keys()


def test_long_names_are_cut_to_a_panel():
    view = draw.view("a_long_run_of_the_demo/best_model", None, "black-and-tan coonhound, dog", 0.987)
    assert (view.name, view.words) == ("…the_demo/best_model", "black-and-tan … 0.99")
    assert draw.view("best_model", None, "zero", 1.0)[::2] == ("best_model", "zero 1.00")


def test_many_heads_and_wide_images_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    views = [
        draw.View(name, rng.integers(0, 255, (16, 48, 3), "uint8"), "a $ class 0.50") for name in ("_a", "二\udce9")
    ]
    attention = [rng.random((2, 18, 2, 6)), rng.random((1, 3, 4, 12))]
    draw.draw_class_attention(tmp_path / "many.png", "$", views, attention)
    with Image.open(tmp_path / "many.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype("int64")
    assert ((pixels.max(-1) - pixels.min(-1)) > 60).mean() > 0.1  # the colours of the maps
    matrices = {name: rng.standard_normal((14, 9, 9)) for name in ("proj_l", "proj_w")}
    draw.draw_mixing_matrices(tmp_path / "matrices.png", ["one"], [matrices])
    assert (tmp_path / "matrices.png").stat().st_size > 10_000


def write_run(folder, config, weights):
    """A run's folder with two checkpoints."""
    folder.mkdir()
    save_config(config, folder / "config.yaml")
    for name in ("latest", "best_model"):
        (folder / f"{name}.pdparams").write_bytes(weights.read_bytes())
    write_metrics(folder / "metrics.jsonl", ROWS)


def test_the_command_draws_everything_and_replaces_nothing(tiny_weights, tmp_path):
    run, out, images = (tmp_path / name for name in ("run", "out", "images"))
    write_run(run, tiny_weights[0], tiny_weights[2])
    rng = np.random.default_rng(0)
    for name in ("1.png", "a/1.jpg", "a/2.png"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), "uint8")).save(images / name)
    (images / "a" / "2.png").write_text("no image")
    words = [f"--img-path={images}", "--model_path", run / "latest", run / "best_model.pdparams", "--runs", run]
    words += ["--output", out]
    result = run_python(SCRIPT, *words)
    assert (result.returncode, result.stderr) == (1, "error: 1 of 3 images could not be read\n")
    assert f"{images / 'a' / '2.png'}: the image cannot be read" in result.stdout
    names = {path.name for path in out.iterdir()}
    each = {f"{stem}_{figure}.png" for stem in ("1", "a_1") for figure in OF_IMAGES}
    others = {"class_attention_sheet.png", "rollout_sheet.png", "talking_heads_matrices.png", "layer_scale.png"}
    assert names == each | others | {"learning_curves.png"}
    for path in out.iterdir():
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG" and picture.width > 200
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    result = run_python(SCRIPT, *words)
    assert result.returncode == 2 and result.stderr.endswith("is there already; --force replaces it\n")
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_bundle_shows_its_class_attention_and_nothing_else(full_bundle, tiny_bundle, digits, tmp_path):
    image = next((digits / "val").rglob("*.png"))
    bundle = attention_models.BundleAttention("bundle", full_bundle)
    assert figures.choose_figures([], [bundle], has_images=True) == ["class_attention"]
    assert job.draw_images([bundle], [str(image)], ["class_attention"], tmp_path) == 0
    assert [path.name for path in tmp_path.glob("*.png")] == [f"{image.stem}_class_attention.png"]
    with pytest.raises(UsageError, match=r"rollout needs the weights \(--model_path\): the bundle bundle has class"):
        figures.choose_figures(["rollout"], [bundle], has_images=True)
    with pytest.raises(UsageError, match="class_attention needs images: --img-path names them"):
        figures.choose_figures([], [bundle], has_images=False)
    with pytest.raises(CaitError, match="exported without its attention: export_model.py --with-attention adds it"):
        attention_models.BundleAttention("bundle", tiny_bundle)


def test_figures_are_those_asked_for(deep):
    assert figures.choose_figures([], [deep], has_images=False) == ["layer_scale"]
    assert figures.choose_figures([], [deep], has_images=True) == [*OF_IMAGES, "layer_scale"]
    assert figures.choose_figures(["rollout"], [deep], has_images=True) == ["rollout"]
    with pytest.raises(UsageError, match="--block 4: deep has 3 self-attention blocks"):
        figures.choose_figures([], [deep], has_images=True, block=4)


def test_many_images_fill_several_sheets(deep, tmp_path, monkeypatch):
    for module in (figures, job):
        monkeypatch.setattr(module, "IMAGES_A_SHEET", 2)
    rng = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(rng.integers(0, 255, (40, 20), "uint8")).save(tmp_path / f"{name}.png")
    paths = [str(tmp_path / f"{name}.png") for name in "abc"]
    names = figures.file_names(figures.picture_stems(paths), ["rollout"], has_runs=False)
    assert job.draw_images([deep], paths, ["rollout"], figures.open_folder(tmp_path / "out", names, False)) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    assert {"rollout_sheet.png", "rollout_sheet_2.png"} < set(names)
    with pytest.raises(UsageError, match="a_rollout.png: is there already; --force replaces it"):
        figures.open_folder(tmp_path / "out", names, force=False)
    assert figures.open_folder(tmp_path / "out", names, force=True) == tmp_path / "out"


def test_names_tell_images_and_models_apart(tmp_path):
    paths = ["a/b/1.png", "a/b/1.jpg", "a/c/1.png", "a/b_1.png"]
    assert figures.picture_stems(paths) == ["b_1", "b_1_2", "c_1", "b_1_3"]
    assert figures.picture_stems(["x/photo.png"]) == ["photo"]
    assert len(figures.picture_stems(["x/" + "字" * 250 + ".png"])[0].encode()) <= 150
    assert spread(list("abcdefghij"), 3) == ["a", "d", "g"] and spread(["a"], 3) == ["a"]
    assert attention_models.distinct_names(["x/run/best", "x/run/latest"]) == ["best", "latest"]
    assert attention_models.distinct_names(["x/one/best", "x/two/best"]) == ["one/best", "two/best"]
    assert attention_models.distinct_names(["x/run/best"]) == ["run/best"] and attention_models.distinct_names([]) == []
    with pytest.raises(UsageError, match="named twice"):
        attention_models.distinct_names(["x/best", "x/best"])


@pytest.mark.parametrize(
    "words, exit_code, message",
    [
        ([], 2, "--img-path names the images, --runs the runs; -h lists the flags"),
        (["--figures", "gradients"], 2, "invalid choice: 'gradients'"),
        (["--model_dir=x", "-o", "MODEL.DEPTH=2"], 2, "-cfg and -o describe weights (--model_path)"),
        (["--runs", "nowhere"], 1, "nowhere: cannot be read"),
        (["--img-path=nowhere", "--model_dir=x"], 1, "nowhere: no such image, folder, list or pattern"),
    ],
)
def test_an_error_is_one_sentence(tmp_path, words, exit_code, message):
    result = run_python(SCRIPT, *words, cwd=tmp_path)
    assert result.returncode == exit_code
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_nothing_starts(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(CaitError, match="matplotlib is needed for the picture: pip install matplotlib"):
        figures.open_folder(tmp_path / "out", [], force=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_reader_that_goes_away_costs_no_picture(tiny_weights, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    write_run(run, tiny_weights[0], tiny_weights[2])
    for name in ("1.png", "2.png"):
        Image.new("L", (20, 20)).save(tmp_path / name)
    words = [f"--img-path={tmp_path}/*.png", "--model_path", run / "latest", "--output", out]
    command = [sys.executable, "-u", SCRIPT, *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(120) == 0
    assert {f"{stem}_{figure}.png" for stem in "12" for figure in OF_IMAGES} < {path.name for path in out.iterdir()}
