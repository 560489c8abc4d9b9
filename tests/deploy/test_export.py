"""Export, bundle and engines: what is deployed answers as what was trained."""

import dataclasses
import hashlib
import importlib.util
import json
import re
import shutil

import numpy as np
import paddle
import pytest
import yaml

from cait.align import parity
from cait.align.parity import Gate, deployment_rows
from cait.deploy import engine_config
from cait.deploy import export as exporting
from cait.deploy import predictor as predicting
from cait.deploy.bundle import digest_of_bundle, find_program, read_description
from cait.deploy.bundle_schema import ADDED, PRECISIONS
from cait.deploy.engine import Engine
from cait.deploy.engine_config import processor_has_bf16
from cait.deploy.export import build_description, export
from cait.deploy.onnx_file import OnnxPredictor, check_tools
from cait.deploy.predictor import Predictor, allowed_difference, distances, softmax
from cait.errors import CaitError, UsageError
from cait.variants import list_models
from cait.weights.write import save_weights
from cait.zoo import build_model, create_model, variant_config
from project import CLASS_NAMES, ROOT, run_python

EXPORT = str(ROOT / "CaiT" / "export_model.py")


@pytest.fixture
def own_bundle(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_is_few_files_and_says_what_inference_needs(tiny_weights, tiny_bundle):
    description = read_description(tiny_bundle)
    assert {path.name for path in tiny_bundle.iterdir()} == {*description.files, "inference.yaml"}
    assert len(description.files) == (4 if description.fused_files("fp32") else 2)
    assert (description.variant, description.image_size, description.channels) == ("tiny", [16, 16], 1)
    assert description.class_names == CLASS_NAMES and len(description.self_test_logits) == 10
    text = (tiny_bundle / "inference.yaml").read_text()
    assert text.startswith("# ") and yaml.safe_load(text)["interpolation"] == "bicubic"


@pytest.mark.parametrize("engine", [Engine(), Engine(onednn=False), Engine(cpu_threads=1)], ids=str)
def test_every_engine_gives_the_logits_of_the_model(tiny_weights, tiny_bundle, engine):
    _, model, _ = tiny_weights
    images = np.random.default_rng(5).standard_normal((4, 1, 16, 16)).astype("float32")
    with paddle.no_grad():
        logits = model(paddle.to_tensor(images)).numpy()
    predictor = Predictor(tiny_bundle, engine)
    for size in (1, 4, 2):
        np.testing.assert_allclose(predictor(images[:size]), logits[:size], atol=1e-5)


def test_a_program_that_differs_is_no_bundle(tiny_weights, tmp_path, monkeypatch):
    config, model, path = tiny_weights
    real = exporting._save_program

    def scaled(model, description, folder):
        weight = model.blocks[0].attn.proj_w.weight
        before = weight.numpy()
        weight.set_value(before * np.float32(1.01))
        real(model, description, folder)
        weight.set_value(before)

    monkeypatch.setattr(exporting, "_save_program", scaled)
    (tmp_path / "latest.pdparams").write_text("mine")
    with pytest.raises(CaitError, match="differs from the model by .* no bundle was written"):
        export(model, build_description(config, CLASS_NAMES, path), tmp_path, fused=False)
    assert [file.name for file in tmp_path.iterdir()] == ["latest.pdparams"]


def test_an_export_replaces_an_earlier_bundle_and_nothing_else(tiny_weights, own_bundle):
    config, model, path = tiny_weights
    (own_bundle / "latest.pdparams").write_text("mine")
    export(model, build_description(config, CLASS_NAMES[::-1], path), own_bundle, force=True)
    assert read_description(own_bundle).class_names == CLASS_NAMES[::-1]
    assert len(list(own_bundle.iterdir())) == len(read_description(own_bundle).files) + 2
    assert (own_bundle / "latest.pdparams").read_text() == "mine"


def test_a_fused_program_that_differs_is_no_bundle(tiny_weights, tmp_path, monkeypatch):
    config, model, path = tiny_weights
    real = exporting._fused

    def scaled(*arguments):
        if not (layer := real(*arguments)):
            pytest.skip("the fused operators cannot be used here")
        layer.panels.set_value(layer.panels * 1.01)
        return layer

    monkeypatch.setattr(exporting, "_fused", scaled)
    with pytest.raises(CaitError, match="on the CPU, fused fp32 .* no bundle was written"):
        export(model, build_description(config, CLASS_NAMES, path), tmp_path)


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda folder: (folder / "inference.yaml").unlink(), "inference.yaml is missing"),
        (lambda folder: (folder / "inference.yaml").write_text("variant: x"), "not the description of a bundle"),
        (lambda folder: (folder / "inference.yaml").write_text("a: ["), "not the description of a bundle"),
        (lambda folder: edit(folder, files=None), "not the description of a bundle"),
        (lambda folder: edit(folder, image_size="16"), "not the description of a bundle"),
        (lambda folder: edit(folder, files={}), "`files` must name one program and inference.pdiparams"),
        (lambda folder: edit(folder, format=1), "format 1, and this version reads 2 and 3"),
        (lambda folder: find_program(folder).unlink(), "missing; the bundle is not whole"),
        (lambda folder: (folder / "inference.pdiparams").unlink(), "missing; the bundle is not whole"),
        (lambda folder: flip(folder / "inference.pdiparams"), "its checksum differs"),
    ],
)
def test_a_damaged_bundle_is_an_error(own_bundle, damage, words):
    damage(own_bundle)
    with pytest.raises(CaitError, match=words):
        Predictor(own_bundle, Engine())


def edit(folder, **values):
    path = folder / "inference.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


def test_a_program_of_another_format_in_the_folder_is_not_run(own_bundle):
    name = read_description(own_bundle).program
    other = "inference.pdmodel" if name.endswith(".json") else "inference.json"
    (own_bundle / other).write_text("left by another export")
    Predictor(own_bundle, Engine())


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_file_read_beside_the_import_is_read_once_and_again_where_it_changed(own_bundle, monkeypatch):
    import gc

    from cait.deploy import bundle

    seen = []

    def digest(path):
        seen.append(path.name)
        return sha256_of(path)

    sha256_of = bundle.sha256_of
    monkeypatch.setattr(bundle, "sha256_of", digest)
    with bundle.read_beside(own_bundle, None) as reading:
        assert not gc.isenabled()
    description = reading.result()
    assert gc.isenabled() and description == read_description(own_bundle)
    own = [description.program, "inference.pdiparams", *(description.fused_files("fp32") or ())]
    Predictor(own_bundle, Engine(), description=description)
    assert sorted(seen) == sorted(own)
    for name in own[1::2]:  # the parameters
        flip(own_bundle / name)
        with pytest.raises(CaitError, match=f"{name}: not the file that was exported"):
            bundle.verify(own_bundle, description, name)


def test_the_self_test_sees_another_model(own_bundle):
    text = (own_bundle / "inference.yaml").read_text()
    content = yaml.safe_load(text)
    content["self_test_logits"][3] += 0.01
    (own_bundle / "inference.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(CaitError, match="the self-test differs by 1.00e-02"):
        Predictor(own_bundle, Engine())


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: [float("inf"), *logits[1:]],
        lambda logits: [*logits[:-1], float("-inf")],
        lambda logits: [float("nan")] * len(logits),
        lambda logits: [float("inf")] * len(logits),
        lambda logits: logits[:1],
        lambda logits: [],
    ],
    ids=["inf", "-inf", "nan", "all inf", "one", "none"],
)
def test_a_self_test_that_expects_no_finite_logits_of_all_classes_fails(own_bundle, change):
    edit(own_bundle, self_test_logits=change(read_description(own_bundle).self_test_logits))
    with pytest.raises(CaitError, match="no finite logits|not the description of a bundle"):
        Predictor(own_bundle, Engine())


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("sides", [("found",), ("expected",), ("found", "expected")], ids=str)
def test_no_comparison_lets_pass_what_is_not_finite(value, precision, sides):
    arrays = {name: np.array([[0.5, 2.0], [1.0, -1.0]], "float32") for name in ("found", "expected")}
    limit = allowed_difference(arrays["expected"], precision)
    assert 0 == distances(**arrays).max() < limit < 1
    for side in sides:
        arrays[side][1, 0] = value
    limit = allowed_difference(arrays["expected"], precision)
    assert np.isfinite(limit) and distances(**arrays).max() > limit and distances(**arrays)[0].max() == 0


def test_answers_of_another_shape_are_infinitely_wrong():
    for found, expected in (((2, 1), (2, 3)), ((3,), (2, 3)), ((0,), (0,)), ((2, 3), (0,))):
        assert distances(np.zeros(found), np.zeros(expected)).min() == np.inf


def test_huge_logits_do_not_widen_the_limit_to_infinity():
    logits = np.array([3e38, -3e38], "float32")
    assert np.isfinite([allowed_difference(logits, precision) for precision in ("fp32", "bf16")]).all()


def test_the_gate_sees_a_model_that_is_not_finite(tiny_weights, own_bundle, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(Gate, "_predictor", lambda *_: lambda images: np.full((len(images), 10), np.inf))
    rows, _ = deployment_rows(own_bundle, tiny_weights[2], digits / "val")
    assert len(rows) >= 6 and not any(row.passed for row in rows)


def test_an_export_of_a_model_that_is_not_finite_is_no_bundle(tiny_weights, tmp_path, monkeypatch):
    config, _, path = tiny_weights
    model = build_model(config)
    model.head.bias.set_value(np.array([np.inf] * 10, "float32"))
    with pytest.raises(CaitError, match="must be a number from .*, not inf|differs from the model by inf"):
        export(model, build_description(config, CLASS_NAMES, path), tmp_path, fused=False)
    assert not list(tmp_path.iterdir())


def tampered(name, change):
    def tamper(layer):
        setattr(layer, name, change(getattr(layer, name)))

    return tamper


def shorter(tensor):
    return paddle.to_tensor(tensor.numpy()[..., :-16])


@pytest.mark.parametrize(
    "tamper",
    [
        tampered("patch_size", lambda _: 0),
        tampered("num_heads", lambda _: 0),
        tampered("hidden_dims", lambda dims: [dims[0], 2**31 - 1]),
        tampered("panels", shorter),
        *(
            pytest.param(change, marks=pytest.mark.slow)
            for change in (
                tampered("patch_size", lambda size: -size),
                tampered("num_heads", lambda _: 2**31 - 1),
                tampered("hidden_dims", lambda dims: [-dims[0], dims[1]]),
                tampered("hidden_dims", lambda dims: [1 << 20, dims[1]]),
                tampered("positions", lambda tensor: paddle.to_tensor(tensor.numpy()[:-1])),
                tampered("patch_panels", shorter),
                tampered("vectors", shorter),
                tampered("class_panels", lambda tensor: tensor.astype("uint8")),
                tampered("class_panels", lambda tensor: tensor.reshape([-1, 1])),
                tampered("class_token", shorter),
            )
        ),
    ],
)
def test_a_tampered_fused_program_ends_in_one_sentence(tiny_weights, tmp_path, monkeypatch, tamper):
    """One whose checksums are right: it was written as it is. Paddle keeps to itself what an operator says."""
    config, model, path = tiny_weights
    real = exporting._fused

    def fused(*arguments):
        if not (layer := real(*arguments)):
            pytest.skip("the fused operators cannot be used here")
        tamper(layer)
        return layer

    monkeypatch.setattr(exporting, "_fused", fused)
    monkeypatch.setattr(exporting, "_prove", lambda *_: {})
    export(model, build_description(config, CLASS_NAMES, path), tmp_path)
    with pytest.raises(CaitError, match="fails in the self-test|cannot load the bundle") as error:
        Predictor(tmp_path, Engine())
    assert "\n" not in str(error.value)


def test_an_error_of_paddle_is_told_in_its_own_words(own_bundle, monkeypatch):
    """Which may hold braces, as those of its parser of JSON do."""

    def fail(settings):
        raise RuntimeError("pages of it\nunexpected '}'; expected {0} or {name}")

    monkeypatch.setattr(predicting.inference, "create_predictor", fail)
    words = "cannot load the bundle (unexpected '}'; expected {0} or {name}); it was made with PaddlePaddle "
    with pytest.raises(CaitError, match=re.escape(words)):
        Predictor(own_bundle, Engine())


def test_a_program_with_other_outputs_than_described_is_an_error(own_bundle):
    edit(own_bundle, outputs=["logits", "class_attention"])
    with pytest.raises(CaitError, match="the program has 1 outputs, and inference.yaml names 2"):
        Predictor(own_bundle, Engine())


def test_a_file_that_is_exchanged_while_it_is_loaded_is_an_error(own_bundle, monkeypatch):
    real = predicting.inference.create_predictor

    def exchanging(settings):
        shutil.copyfile(own_bundle / "inference.pdiparams", own_bundle / "copy")
        (own_bundle / "copy").replace(own_bundle / "inference.pdiparams")
        return real(settings)

    monkeypatch.setattr(predicting.inference, "create_predictor", exchanging)
    with pytest.raises(CaitError, match="inference.pdiparams: was changed while it was loaded; start again"):
        Predictor(own_bundle, Engine(fused=False))


def test_only_a_trusted_bundle_is_run(own_bundle):
    digest = hashlib.sha256((own_bundle / "inference.yaml").read_bytes()).hexdigest()
    assert digest_of_bundle(own_bundle) == digest
    assert read_description(own_bundle, ["0" * 64, digest]) == read_description(own_bundle)
    text = (own_bundle / "inference.yaml").read_text()
    for other in (text + "#", text.replace("\n", "\r\n"), "no description at all"):
        (own_bundle / "inference.yaml").write_bytes(other.encode())
        with pytest.raises(CaitError, match="not the bundle of --trusted-digest, nothing of it was run"):
            read_description(own_bundle, [digest])
    (own_bundle / "inference.yaml").write_text(text)
    flip(own_bundle / "inference.pdiparams")
    with pytest.raises(CaitError, match="its checksum differs"):
        read_description(own_bundle, [digest])


def test_a_gpu_that_is_not_there_is_an_error(tiny_bundle):
    if paddle.device.is_compiled_with_cuda():
        pytest.skip("the GPU build of PaddlePaddle")
    with pytest.raises(UsageError, match="a GPU was asked for"):
        Predictor(tiny_bundle, Engine(use_gpu=True))


def test_bf16_is_close_or_refused_with_the_reason(tiny_weights, tiny_bundle):
    engine = Engine(precision="bf16")
    if not processor_has_bf16():
        with pytest.raises(UsageError, match="no bf16 instructions"):
            Predictor(tiny_bundle, engine)
        return
    _, model, _ = tiny_weights
    images = np.random.default_rng(5).standard_normal((4, 1, 16, 16)).astype("float32")
    with paddle.no_grad():
        logits = model(paddle.to_tensor(images)).numpy()
    low = Predictor(tiny_bundle, engine)(images)
    assert 1e-5 < np.abs(low - logits).max() <= allowed_difference(logits, "bf16")


@pytest.mark.parametrize(
    "engine, words",
    [(Engine(precision="fp16"), "fp16 needs a GPU"), (Engine(onednn=False, precision="bf16"), "bf16 .* needs oneDNN")],
)
def test_a_precision_that_the_hardware_lacks_is_an_error(tiny_bundle, engine, words):
    with pytest.raises(UsageError, match=words):
        Predictor(tiny_bundle, engine)


@pytest.mark.parametrize(
    "built_with, installed, words",
    [
        ((0, 0, 0), (0, 0, 0), "this PaddlePaddle was built without TensorRT"),
        ((8, 5, 3), (0, 0, 0), "TensorRT is not installed, .* this PaddlePaddle was built with 8.5.3"),
        ((8, 5, 3), (8, 6, 1), ""),
    ],
)
def test_tensorrt_is_used_where_its_libraries_are(monkeypatch, built_with, installed, words):
    """Every wheel for GPUs was built with it."""
    monkeypatch.setattr(engine_config, "has_gpu", lambda: True)
    monkeypatch.setattr(engine_config.inference, "get_trt_compile_version", lambda: built_with)
    monkeypatch.setattr(engine_config.inference, "get_trt_runtime_version", lambda: installed)
    assert re.fullmatch(words, engine_config.why_not(Engine(use_gpu=True, tensorrt=True)))


@pytest.mark.parametrize("supported, words", [(True, ""), (False, "this GPU has no bf16")])
def test_bf16_runs_on_a_gpu_that_has_it(monkeypatch, supported, words):
    monkeypatch.setattr(engine_config, "has_gpu", lambda: True)
    monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda: supported)
    assert engine_config.why_not(Engine(use_gpu=True, precision="bf16")) == words


def test_names_of_precisions_are_paddles():
    assert PRECISIONS == tuple(engine_config.PRECISION_TYPES) == tuple(engine_config.TENSORRT_MODES)
    for name in engine_config.PRECISION_TYPES.values():
        assert hasattr(engine_config.inference.PrecisionType, name)


def test_names_of_tensorrts_modes_are_paddles():
    tensorrt = pytest.importorskip("paddle.tensorrt", reason="PaddlePaddle for CPUs and 2.6 have none")
    for name in engine_config.TENSORRT_MODES.values():
        assert hasattr(tensorrt.PrecisionMode, name)


def test_processors_are_recognised_by_their_flags(tmp_path):
    (tmp_path / "cpuinfo").write_text("flags : fpu avx512f avx512_bf16")
    assert processor_has_bf16(str(tmp_path / "cpuinfo"))
    (tmp_path / "cpuinfo").write_text("flags : fpu avx512f")
    assert not processor_has_bf16(str(tmp_path / "cpuinfo")) and not processor_has_bf16(str(tmp_path / "none"))


def test_the_parity_gate(tiny_weights, tiny_bundle, digits, tmp_path):
    _, _, path = tiny_weights
    script = str(ROOT / "CaiT" / "check_alignment.py")
    words = [
        script,
        "--deploy",
        tiny_bundle,
        "--weights",
        path,
        "--images",
        digits / "val",
        "--output",
        tmp_path / "out",
    ]
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


def test_attention_maps_are_an_output(tiny_weights, full_bundle):
    _, model, _ = tiny_weights
    model.eval()
    images = np.random.default_rng(5).standard_normal((3, 1, 16, 16)).astype("float32")
    with paddle.no_grad():
        logits, maps = model.forward_with_attention(paddle.to_tensor(images), ["blocks_token_only.0"])
    expected = maps["blocks_token_only.0"]["softmax"].numpy().transpose(0, 2, 1, 3)
    description = read_description(full_bundle)
    assert description.outputs == ["logits", "class_attention"] and description.patch_size == 4
    for predictor in (Predictor(full_bundle, Engine()), OnnxPredictor(full_bundle, description)):
        outputs = predictor.outputs(images)
        assert list(outputs) == ["logits", "class_attention"]
        np.testing.assert_allclose(outputs["logits"], logits.numpy(), atol=1e-5)
        assert outputs["class_attention"].shape == (3, 1, 2, 17)
        np.testing.assert_allclose(outputs["class_attention"], expected, atol=1e-5)


def test_maps_that_contradict_the_description_are_an_error(full_bundle, tmp_path):
    shutil.copytree(full_bundle, tmp_path / "bundle")
    edit(tmp_path / "bundle", heads=3)
    words = r"says 3 heads and a grid of 4x4 patches, and its program gives maps of \[2, 17\]"
    with pytest.raises(CaitError, match=words):
        Predictor(tmp_path / "bundle", Engine())


def test_a_bundle_of_the_format_before_runs(full_bundle, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(full_bundle, folder)
    content = yaml.safe_load((folder / "inference.yaml").read_text())
    (folder / "inference.yaml").write_text(
        yaml.safe_dump({name: value for name, value in content.items() if name not in ADDED} | {"format": 2})
    )
    found, expected = read_description(folder), read_description(full_bundle)
    assert found == dataclasses.replace(expected, heads=None) and expected.heads == 2 and expected.grid == [4, 4]
    image = expected.self_test_input()
    for name, array in Predictor(full_bundle, Engine()).outputs(image).items():
        assert np.array_equal(Predictor(folder, Engine()).outputs(image)[name], array)


def test_onnx_files_speak_for_themselves(full_bundle):
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(full_bundle / "inference.onnx").graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["images", "logits", "class_attention"]
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output)} == {"batch"}


def test_a_changed_onnx_file_is_an_error(full_bundle, tmp_path):
    shutil.copytree(full_bundle, tmp_path / "bundle")
    flip(tmp_path / "bundle" / "inference.onnx")
    with pytest.raises(CaitError, match="inference.onnx: not the file that was exported"):
        OnnxPredictor(tmp_path / "bundle", read_description(tmp_path / "bundle"))


def test_an_onnx_file_that_differs_is_no_bundle(tiny_weights, full_bundle, tmp_path, monkeypatch):
    config, model, path = tiny_weights
    real = exporting.OnnxPredictor.outputs
    monkeypatch.setattr(
        exporting.OnnxPredictor,
        "outputs",
        lambda self, images, names=None: {name: value + 1e-3 for name, value in real(self, images, names).items()},
    )
    with pytest.raises(CaitError, match=r"differs from the model by 1.0.e-03 on the ONNX Runtime \(logits\)"):
        export(model, build_description(config, CLASS_NAMES, path), tmp_path / "bundle", onnx=True)
    assert not list((tmp_path / "bundle").iterdir())


def test_onnx_without_its_packages_is_one_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "paddle2onnx" else 1)
    with pytest.raises(UsageError, match="needs paddle2onnx, .* pip install -r requirements-onnx.txt"):
        check_tools()


def test_the_gate_judges_onnx_too(tiny_weights, full_bundle, digits, tmp_path):
    _, _, path = tiny_weights
    rows, missing = deployment_rows(full_bundle, path, digits / "val")
    names = {row.name for row in rows}
    assert {"ONNX Runtime", "static program"} <= names and all(row.passed for row in rows)
    assert set(missing) | names >= set(parity.NAMES) and not set(missing) & names


def test_a_bundle_remembers_the_precision_it_was_made_for(tiny_weights, tmp_path):
    config, model, path = tiny_weights
    if not processor_has_bf16():
        with pytest.raises(UsageError, match="--precision=bf16 cannot be tried here: this processor has no bf16"):
            export(model, build_description(config, CLASS_NAMES, path, "bf16"), tmp_path)
        return
    differences = export(model, build_description(config, CLASS_NAMES, path, "bf16"), tmp_path)
    assert differences["CPU"] < 1e-5 < differences["CPU, oneDNN bf16"]
    assert Predictor(tmp_path, Engine(precision=None)).engine.precision == "bf16"
    assert Predictor(tmp_path, Engine()).engine.precision == "fp32"
    with pytest.raises(UsageError, match="bf16 on the CPU needs oneDNN: the bundle is meant for bf16, but --precision"):
        Predictor(tmp_path, Engine(onednn=False, precision=None))


def test_a_precision_that_cannot_be_tried_leaves_what_is_there(tiny_weights, own_bundle):
    config, model, path = tiny_weights
    if paddle.device.is_compiled_with_cuda():
        pytest.skip("the GPU build of PaddlePaddle")
    with pytest.raises(UsageError, match="--precision=fp16 cannot be tried here: fp16 needs a GPU"):
        export(model, build_description(config, CLASS_NAMES, path, "fp16"), own_bundle)
    Predictor(own_bundle, Engine())


# Each variant's own sizes, in two blocks; how the error grows with the depth is seen at the deepest of the small ones.
@pytest.mark.slow
@pytest.mark.parametrize("name, depth", [*((name, 2) for name in list_models()), ("cait_xxs36_384", 36)])
def test_variants_export(name, depth, tmp_path):
    from cait.align.golden import load_golden_weights

    model = load_golden_weights(create_model(name, depth=depth))
    path = tmp_path / "weights.pdparams"
    save_weights(model, path)
    config = variant_config(name)
    config.defrost()
    config.MODEL.DEPTH = depth
    config.freeze()
    description = build_description(config, [str(index) for index in range(1000)], path)
    differences = export(model, description, tmp_path / "bundle")
    logits = np.asarray(read_description(tmp_path / "bundle").self_test_logits)
    assert {"CPU, oneDNN", "CPU"} <= set(differences) and max(differences.values()) <= 1e-4
    assert 2 < np.abs(logits).max() < 6


@pytest.mark.slow
def test_bf16_agrees_on_200_demo_images(all_digits, demo_run, tmp_path):
    """The demo's model after a part of its training, on 200 of the held-out digits."""
    if not processor_has_bf16():
        pytest.skip("this processor has no bf16 instructions")
    words = [f"-cfg={demo_run / 'config.yaml'}", f"--model_path={demo_run / 'latest'}"]
    result = run_python(EXPORT, *words, f"--save-inference-dir={tmp_path / 'bundle'}", "--precision=bf16")
    assert result.returncode == 0, result.stderr
    rows, _ = deployment_rows(tmp_path / "bundle", demo_run / "latest", all_digits / "val")
    rows = {row.name: row for row in rows}
    low = [name for name in ("Paddle Inference, oneDNN bf16", "Paddle Inference, fused bf16") if name in rows]
    assert len(low) == (1 if "without a fused program" in result.stdout else 2)
    for name in low:
        assert rows[name].passed and rows[f"{name}, changed classes"].max_diff <= 0.01
    assert rows["Paddle Inference, oneDNN"].max_diff <= 1e-4


def test_an_exported_program_does_not_compute_the_batch_before_every_reshape(full_bundle):
    """That would be more operators than all others together."""
    import onnx

    kinds = [node.op_type for node in onnx.load(full_bundle / "inference.onnx").graph.node]
    assert kinds.count("Reshape") > 10 and kinds.count("Shape") <= 3  # for the class token and the maps
