"""Export, bundle and inference: what is deployed answers as what was trained."""

import csv
import json
import shutil

import numpy as np
import paddle
import pytest
import yaml
from PIL import Image

from cait.checkpoint import save_weights
from cait.deploy import export as exporting
from cait.deploy.bundle import find_program, read_description
from cait.deploy.classify import MAX_PIXELS, Reader, classify, find_images, read_ahead
from cait.deploy.export import build_description, export
from cait.deploy.predictor import Engine, Predictor, allowed_difference, processor_has_bf16, softmax
from cait.errors import CaitError, UsageError
from cait.model import build_model
from conftest import ROOT, run_python

EXPORT, INFER = str(ROOT / "CaiT" / "export_model.py"), str(ROOT / "CaiT" / "infer.py")
NAMES = [f"class {index}" for index in range(10)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory, tiny_yaml):
    """A tiny model with random weights whose logits are of size 1."""
    from cait.align_golden import load_golden_weights
    from cait.config import make_config, read_yaml

    config = make_config(read_yaml(tiny_yaml))
    model = load_golden_weights(build_model(config))
    path = tmp_path_factory.mktemp("weights") / "tiny.pdparams"
    save_weights(model, path)
    return config, model, path


@pytest.fixture(scope="module")
def bundle(weights, tmp_path_factory):
    config, model, path = weights
    folder = tmp_path_factory.mktemp("bundle")
    differences = export(model, build_description(config, NAMES, path), folder)
    assert max(differences.values()) < 1e-5 and {"CPU", "CPU, oneDNN"} <= set(differences)
    return folder


@pytest.fixture
def own_bundle(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_is_three_files_and_says_what_inference_needs(weights, bundle):
    assert len(list(bundle.iterdir())) == 3
    description = read_description(bundle)
    assert (description.variant, description.image_size, description.channels) == ("tiny", [16, 16], 1)
    assert description.class_names == NAMES and len(description.self_test_logits) == 10
    text = (bundle / "inference.yaml").read_text()
    assert text.startswith("# ") and yaml.safe_load(text)["interpolation"] == "bicubic"


@pytest.mark.parametrize("engine", [Engine(), Engine(onednn=False), Engine(cpu_threads=1)], ids=str)
def test_every_engine_gives_the_logits_of_the_model(weights, bundle, engine):
    _, model, _ = weights
    images = np.random.default_rng(5).standard_normal((4, 1, 16, 16)).astype("float32")
    with paddle.no_grad():
        logits = model(paddle.to_tensor(images)).numpy()
    predictor = Predictor(bundle, engine)
    for size in (1, 4, 2):
        np.testing.assert_allclose(predictor(images[:size]), logits[:size], atol=1e-5)


def test_a_program_that_differs_is_no_bundle(weights, tmp_path, monkeypatch):
    config, model, path = weights
    real = exporting._save_program

    def scaled(model, description, folder):
        weight = model.blocks[0].attn.proj_w.weight
        weight.set_value(weight.numpy() * 1.01)
        real(model, description, folder)
        weight.set_value(weight.numpy() / np.float32(1.01))

    monkeypatch.setattr(exporting, "_save_program", scaled)
    (tmp_path / "latest.pdparams").write_text("mine")
    with pytest.raises(CaitError, match="differs from the model by .* no bundle was written"):
        export(model, build_description(config, NAMES, path), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["latest.pdparams"]


def test_an_export_replaces_an_earlier_bundle_and_nothing_else(weights, own_bundle):
    config, model, path = weights
    (own_bundle / "latest.pdparams").write_text("mine")
    export(model, build_description(config, NAMES[::-1], path), own_bundle)
    assert read_description(own_bundle).class_names == NAMES[::-1]
    assert len(list(own_bundle.iterdir())) == 4 and (own_bundle / "latest.pdparams").read_text() == "mine"


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda folder: (folder / "inference.yaml").unlink(), "inference.yaml: missing"),
        (lambda folder: (folder / "inference.yaml").write_text("variant: x"), "not the description of a bundle"),
        (lambda folder: (folder / "inference.yaml").write_text("a: ["), "not the description of a bundle"),
        (lambda folder: find_program(folder).unlink(), "missing; the bundle is not whole"),
        (lambda folder: (folder / "inference.pdiparams").unlink(), "missing; the bundle is not whole"),
        (lambda folder: flip(folder / "inference.pdiparams"), "its checksum differs"),
    ],
)
def test_a_damaged_bundle_is_an_error(own_bundle, damage, words):
    damage(own_bundle)
    with pytest.raises(CaitError, match=words):
        Predictor(own_bundle, Engine())


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_self_test_sees_another_model(own_bundle):
    text = (own_bundle / "inference.yaml").read_text()
    content = yaml.safe_load(text)
    content["self_test_logits"][3] += 0.01
    (own_bundle / "inference.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(CaitError, match="the self-test differs by 1.00e-02"):
        Predictor(own_bundle, Engine())


def test_a_gpu_that_is_not_there_is_an_error(bundle):
    if paddle.device.is_compiled_with_cuda():
        pytest.skip("the GPU build of PaddlePaddle")
    with pytest.raises(UsageError, match="a GPU was asked for"):
        Predictor(bundle, Engine(use_gpu=True))


def test_bf16_is_close_or_refused_with_the_reason(weights, bundle):
    engine = Engine(precision="bf16")
    if not processor_has_bf16():
        with pytest.raises(UsageError, match="no bf16 instructions"):
            Predictor(bundle, engine)
        return
    _, model, _ = weights
    images = np.random.default_rng(5).standard_normal((4, 1, 16, 16)).astype("float32")
    with paddle.no_grad():
        logits = model(paddle.to_tensor(images)).numpy()
    low = Predictor(bundle, engine)(images)
    assert 1e-5 < np.abs(low - logits).max() <= allowed_difference(logits, "bf16")


@pytest.mark.parametrize(
    "engine, words",
    [(Engine(precision="fp16"), "fp16 needs a GPU"), (Engine(onednn=False, precision="bf16"), "bf16 .* needs oneDNN")],
)
def test_a_precision_that_the_hardware_lacks_is_an_error(bundle, engine, words):
    with pytest.raises(UsageError, match=words):
        Predictor(bundle, engine)


def test_processors_are_recognised_by_their_flags(tmp_path):
    (tmp_path / "cpuinfo").write_text("flags : fpu avx512f avx512_bf16")
    assert processor_has_bf16(str(tmp_path / "cpuinfo"))
    (tmp_path / "cpuinfo").write_text("flags : fpu avx512f")
    assert not processor_has_bf16(str(tmp_path / "cpuinfo")) and not processor_has_bf16(str(tmp_path / "none"))


def test_the_parity_gate(weights, bundle, digits, tmp_path):
    _, _, path = weights
    script = str(ROOT / "CaiT" / "check_alignment.py")
    words = [script, "--deploy", bundle, "--weights", path, "--images", digits / "val", "--output", tmp_path / "out"]
    result = run_python(*words)
    assert result.returncode == 0, result.stderr
    assert "6 deployment" in result.stdout and "skipped: Paddle Inference, GPU: a GPU was asked for" in result.stdout
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    names = {row["name"] for row in rows}
    assert {"static program", "Paddle Inference, oneDNN", "Paddle Inference, without oneDNN"} <= names
    other = {name: tensor for name, tensor in paddle.load(str(path)).items()}
    other["blocks.0.attn.proj_w.weight"] = other["blocks.0.attn.proj_w.weight"] * 1.01
    paddle.save(other, str(tmp_path / "other.pdparams"))
    words[words.index(path)] = tmp_path / "other.pdparams"
    result = run_python(*words)
    assert result.returncode == 1 and "FAILED" in result.stdout and "static program" in result.stdout


def test_softmax():
    logits = np.array([[1000.0, 1000.0], [0.0, np.log(3.0)]], "float32")
    np.testing.assert_allclose(softmax(logits), [[0.5, 0.5], [0.25, 0.75]], rtol=1e-6)


def test_batches_change_nothing_and_a_bad_image_costs_the_others_nothing(bundle, digits):
    predictor = Predictor(bundle, Engine())
    paths = find_images(str(digits / "train"))
    bad = paths[3]
    open(bad, "wb").close()
    read = Reader(predictor.description, apply_exif=True)
    single, batched = (list(classify(predictor, read, paths, size, 3)) for size in (1, 16))
    assert [result.path for result in single] == [result.path for result in batched] == paths
    for left, right in zip(single, batched):
        assert [index for index, _ in left.classes] == [index for index, _ in right.classes]
        np.testing.assert_allclose([p for _, p in left.classes], [p for _, p in right.classes], rtol=1e-4)
    assert [result.path for result in single if result.error] == [bad]
    assert single[3].error.startswith(f"{bad}: the image cannot be read")


def test_reading_stays_a_bounded_number_of_images_ahead():
    started = []

    def read(path):
        started.append(path)
        return np.zeros(1)

    results = read_ahead((str(index) for index in range(1000)), read, depth=8)
    next(results)
    next(results)
    assert len(started) <= 10
    assert len(list(results)) == 998


def save(path, mode="RGB", size=(30, 20), **options):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype="uint8")
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return str(path)


def test_every_kind_of_image(bundle, tmp_path):
    read = Reader(read_description(bundle), apply_exif=True)
    kinds = {
        "cmyk.jpg": "CMYK", "palette.png": "P", "alpha.png": "RGBA", "grey.png": "L", "bit.png": "1", "a.gif": "P",
    }  # fmt: skip
    for name, mode in kinds.items():
        assert read(save(tmp_path / name, mode)).shape == (1, 16, 16)
    assert read(save(tmp_path / "one.png", size=(1, 1))).shape == (1, 16, 16)


def test_exif_orientation_is_applied_unless_told_otherwise(bundle, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    path = save(tmp_path / "turned.png", exif=exif)
    description = read_description(bundle)
    turned, plain = Reader(description, True)(path), Reader(description, False)(path)
    assert not np.array_equal(turned, plain)
    unmarked = save(tmp_path / "plain.png")
    assert np.array_equal(Reader(description, True)(unmarked), plain)


def test_too_many_pixels_are_refused_before_they_are_decoded(bundle, tmp_path):
    path = tmp_path / "large.png"
    Image.new("1", (20000, 20000)).save(path)
    with pytest.raises(CaitError, match=f"20000x20000 pixels, more than the {MAX_PIXELS} allowed"):
        Reader(read_description(bundle), True)(str(path))


def test_ways_to_name_images(digits, tmp_path):
    folder = digits / "val" / "zero"
    names = sorted(str(path) for path in folder.glob("*.png"))
    (tmp_path / "list.txt").write_text("\n".join(names))
    assert (
        find_images(str(folder))
        == find_images(str(folder / "*.png"))
        == find_images(str(tmp_path / "list.txt"))
        == names
    )
    assert find_images(names[0]) == names[:1]
    for wrong in ("nowhere.png", "no*.png"):
        with pytest.raises(CaitError, match="no such image, folder, list or pattern"):
            find_images(wrong)


@pytest.fixture(scope="module")
def exported(weights, tiny_yaml, tmp_path_factory):
    """The same bundle by command."""
    folder = tmp_path_factory.mktemp("exported")
    _, _, path = weights
    words = [f"--config_dir={tiny_yaml}", f"--model_path={path.with_suffix('')}", f"--save-inference-dir={folder}"]
    result = run_python(EXPORT, *words)
    assert result.returncode == 0, result.stderr
    assert f"exported: tiny to {folder}" in result.stdout
    return folder


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_commands_agree_with_prediction_by_the_model(exported, weights, tiny_yaml, digits, tmp_path, suffix):
    _, _, path = weights
    output = tmp_path / f"results{suffix}"
    words = [
        f"--img-path={digits / 'val'}",
        f"--model_dir={exported}",
        "--batch-size=4",
        "--top-k=3",
        f"--output={output}",
    ]
    result = run_python(INFER, *words)
    assert result.returncode == 0, result.stderr
    if suffix == ".csv":
        with open(output, newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = [json.loads(line) for line in output.read_text().splitlines()]
    shutil.copytree(digits / "val", digits / "test")
    main = str(ROOT / "CaiT" / "main_single_gpu.py")
    words = [f"-cfg={tiny_yaml}", "-dataset=folder", f"-data_path={digits}", f"-pretrained={path}", "-pred"]
    other = run_python(main, *words, f"-output_dir={tmp_path / 'pred'}", "-o", "PREDICT.TOP_K=3")
    assert other.returncode == 0, other.stderr
    with open(tmp_path / "pred" / "predictions.csv", newline="") as file:
        expected = list(csv.DictReader(file))
    assert len(rows) == len(expected) > 60
    for row, reference in zip(rows, expected):
        assert row["image_name"].replace("/val/", "/test/") == reference["image_name"]
        assert int(row["class_id"]) == int(reference["class_id"])
        assert float(row["prob"]) == pytest.approx(float(reference["prob"]), rel=1e-4)
    first = rows[0]
    line = (
        f"image_name: {first['image_name']}, class_id: {first['class_id']}, class_name: {first['class_name']}, prob: "
    )
    assert line in result.stdout


def test_a_folder_with_a_bad_image_ends_with_exit_code_1(exported, digits):
    bad = digits / "val" / "zero" / "0000.png"
    bad.write_bytes(b"no image")
    count = len(find_images(str(digits / "val")))
    result = run_python(INFER, f"--img-path={digits / 'val'}", f"--model_dir={exported}")
    assert result.returncode == 1
    assert result.stdout.count("class_id: ") == count - 1 and f"{bad}: the image cannot be read" in result.stdout
    assert result.stderr == f"error: 1 of {count} images could not be read\n"


@pytest.mark.parametrize(
    "words, exit_code, message",
    [
        ([], 2, "required: --img-path"),
        (["--img-path=nowhere"], 1, "nowhere: no such image, folder, list or pattern"),
        (["--img-path=.", "--batch-size=0"], 2, "'0' must be a whole number from 1"),
        (["--img-path=.", "--precision=int8"], 2, "invalid choice: 'int8'"),
        (["--img-path=.", "--use_gpu=maybe"], 2, "'maybe' must be True or False"),
        (["--img-path=.", "--output=a.txt"], 2, "must end in .csv or .jsonl"),
    ],
)
def test_wrong_usage_is_one_sentence(tmp_path, words, exit_code, message):
    result = run_python(INFER, *words, cwd=tmp_path)
    assert result.returncode == exit_code
    assert result.stderr.startswith("error: ") and message in result.stderr and result.stderr.count("\n") == 1


def test_an_empty_folder_is_no_bundle(digits, tmp_path):
    result = run_python(INFER, f"--img-path={digits / 'val'}", f"--model_dir={tmp_path}")
    assert result.returncode == 1 and result.stderr.startswith(f"error: {tmp_path}/inference.yaml: missing")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cait_xxs24_224", "cait_s24_224", "cait_xs24_384", "cait_m36_384"])
def test_variants_export(name, tmp_path):
    from cait.align_golden import load_golden_weights
    from cait.zoo import create_model, variant_config

    model = load_golden_weights(create_model(name))
    path = tmp_path / "weights.pdparams"
    save_weights(model, path)
    config = variant_config(name)
    description = build_description(config, [str(index) for index in range(1000)], path)
    differences = export(model, description, tmp_path / "bundle")
    assert max(differences.values()) <= 1e-4
