"""Teachers: every kind gives its own logits, leaves the random numbers alone, and is refused where it does not fit."""

import numpy as np
import paddle
import pytest

from cait.errors import CaitError, UsageError
from cait.train import teacher
from cait.train.teacher import OnnxTeacher, build_teacher


@pytest.fixture
def images():
    return paddle.to_tensor(np.random.default_rng(3).standard_normal((3, 1, 16, 16)).astype("float32"))


def logits_of(model, images):
    with paddle.no_grad():
        return model(images).numpy()


def test_a_bundle_teaches(tiny_config, tiny_weights, tiny_bundle, images):
    _, model, _ = tiny_weights
    teacher = build_teacher(tiny_config(DISTILL__TYPE="hard", DISTILL__TEACHER=str(tiny_bundle)))
    result = teacher(images)
    assert result.stop_gradient
    np.testing.assert_allclose(result.numpy(), logits_of(model, images), atol=1e-5)


def test_a_bare_program_teaches(tiny_config, tiny_weights, tiny_bundle, images, tmp_path):
    _, model, _ = tiny_weights
    # The bundle may hold the program with the fused operators too, whose files have the same endings.
    for file in tiny_bundle.glob("inference.*"):
        if file.suffix != ".yaml":
            (tmp_path / f"other{file.suffix}").write_bytes(file.read_bytes())
    (program,) = [file for file in tmp_path.glob("other.*") if file.suffix in (".json", ".pdmodel")]
    teacher = build_teacher(tiny_config(DISTILL__TYPE="hard", DISTILL__TEACHER=str(program)))
    np.testing.assert_allclose(teacher(images).numpy(), logits_of(model, images), atol=1e-5)


def test_an_onnx_file_teaches(tiny_config, tiny_weights, full_bundle, images):
    _, model, _ = tiny_weights
    teacher = build_teacher(tiny_config(DISTILL__TYPE="hard", DISTILL__TEACHER=str(full_bundle / "inference.onnx")))
    np.testing.assert_allclose(teacher(images).numpy(), logits_of(model, images), atol=1e-5)


def test_an_onnx_file_reads_images_however_they_lie(tiny_weights, full_bundle, images):
    """As parts of other tensors, and with their axes in another order."""
    _, model, _ = tiny_weights
    onnx = OnnxTeacher(full_bundle / "inference.onnx")
    expected = logits_of(model, images)
    turned = images.transpose([0, 2, 3, 1]).contiguous().transpose([0, 3, 1, 2])
    for same in (paddle.concat([images, images])[len(images) :], turned):
        np.testing.assert_allclose(onnx(same).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    "device, available, providers",
    [
        ("cpu", ["TensorrtExecutionProvider", "CUDAExecutionProvider"], ["CPUExecutionProvider"]),
        ("gpu:1", ["CPUExecutionProvider"], ["CPUExecutionProvider"]),
        (
            "gpu:1",
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
            [("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"],
        ),
    ],
)
def test_an_onnx_file_runs_on_the_gpu_of_its_process(monkeypatch, full_bundle, device, available, providers):
    onnxruntime = pytest.importorskip("onnxruntime")
    asked = []

    def open_session(path, providers):
        asked.extend(providers)
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    monkeypatch.setattr(teacher, "open_session", open_session)
    monkeypatch.setattr(paddle.device, "get_device", lambda: device)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    OnnxTeacher(full_bundle / "inference.onnx")
    assert asked == providers


@pytest.mark.parametrize("size", [1, 2, 4])
def test_an_onnx_file_of_a_fixed_batch_size_teaches(tiny_weights, full_bundle, images, tmp_path, size):
    onnx = pytest.importorskip("onnx")
    _, model, _ = tiny_weights
    graph = onnx.load(full_bundle / "inference.onnx")
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    onnx.save(graph, tmp_path / "fixed.onnx")
    teacher = OnnxTeacher(tmp_path / "fixed.onnx")
    assert teacher._batch_size == size
    np.testing.assert_allclose(teacher(images).numpy(), logits_of(model, images), atol=1e-5)


def test_a_model_of_paddle_vision_teaches(tiny_config, tmp_path):
    paddle.seed(1)
    model = paddle.vision.models.mobilenet_v3_small(num_classes=10)
    model.eval()
    weights = tmp_path / "weights.pdparams"
    paddle.save(model.state_dict(), str(weights))
    keys = {"DATA__IMAGE_SIZE": [32, 32], "MODEL__IN_CHANNELS": 3, "DATA__MEAN": [0.5] * 3, "DATA__STD": [0.5] * 3}
    keys |= {"DISTILL__TEACHER": "mobilenet_v3_small"}
    images = paddle.randn([2, 3, 32, 32])
    teacher = build_teacher(tiny_config(DISTILL__TYPE="hard", **keys, DISTILL__WEIGHTS=str(weights)))
    for _ in range(2):  # in evaluation mode: its batch norms do not move
        np.testing.assert_array_equal(teacher(images).numpy(), logits_of(model, images))
    with pytest.raises(UsageError, match="mobilenet_v3_small needs its weights: DISTILL.WEIGHTS"):
        build_teacher(tiny_config(DISTILL__TYPE="hard", **keys))
    for content in ({"model": {"a": 1}, "epoch": 3}, {"a": paddle.ones([2], "int64")}):
        paddle.save(content, str(tmp_path / "other.pdparams"))
        with pytest.raises(CaitError, match="other.pdparams"):
            build_teacher(tiny_config(DISTILL__TYPE="hard", **keys, DISTILL__WEIGHTS=str(tmp_path / "other")))
    with pytest.raises(CaitError, match="no such checkpoint"):
        build_teacher(tiny_config(DISTILL__TYPE="hard", **keys, DISTILL__WEIGHTS="nowhere"))
    with pytest.raises(UsageError, match="DISTILL.WEIGHTS goes with a teacher of paddle.vision"):
        tiny_config(DISTILL__TYPE="hard", DISTILL__TEACHER="a/bundle", DISTILL__WEIGHTS=str(weights))
    with pytest.raises(CaitError, match="weights.pdparams: not the weights of mobilenet_v3_small with 7 classes"):
        build_teacher(tiny_config(DISTILL__TYPE="hard", **keys, DISTILL__WEIGHTS=str(weights), MODEL__NUM_CLASSES=7))


def test_building_a_teacher_draws_no_random_numbers(tiny_config, tmp_path):
    model = paddle.vision.models.mobilenet_v3_small(num_classes=10)
    paddle.save(model.state_dict(), str(tmp_path / "weights.pdparams"))
    keys = {"DATA__IMAGE_SIZE": [32, 32], "MODEL__IN_CHANNELS": 3, "DATA__MEAN": [0.5] * 3, "DATA__STD": [0.5] * 3}
    keys |= {"DISTILL__TEACHER": "mobilenet_v3_small", "DISTILL__WEIGHTS": str(tmp_path / "weights.pdparams")}
    paddle.seed(7)
    expected = paddle.rand([4]).numpy()
    paddle.seed(7)
    build_teacher(tiny_config(DISTILL__TYPE="hard", **keys))
    np.testing.assert_array_equal(paddle.rand([4]).numpy(), expected)


def test_a_teacher_that_does_not_fit_is_one_sentence(tiny_config, tiny_bundle, full_bundle, tmp_path):
    (tmp_path / "broken.onnx").write_text("no model")
    (tmp_path / "broken.json").write_text("no model")
    onnx = str(full_bundle / "inference.onnx")
    cases = [
        (
            dict(DISTILL__TEACHER=str(tiny_bundle), DATA__IMAGE_SIZE=[32, 32]),
            r"trained with DATA.IMAGE_SIZE \[16, 16",
        ),
        (
            dict(DISTILL__TEACHER=str(tiny_bundle), DATA__MEAN=[0.4]),
            r"trained with DATA.MEAN \[0.5\]; here",
        ),
        (
            dict(DISTILL__TEACHER=str(tiny_bundle), MODEL__NUM_CLASSES=11),
            r"answers \[1, 10\] for one image; .*is 11",
        ),
        (dict(DISTILL__TEACHER=onnx, DATA__IMAGE_SIZE=[32, 32]), "does not take images of 1x32x32"),
        (dict(DISTILL__TEACHER=str(tmp_path / "broken.onnx")), "broken.onnx: ONNX Runtime cannot load the teacher"),
        (dict(DISTILL__TEACHER=str(tmp_path / "broken.json")), "broken: PaddlePaddle cannot load the teacher"),
        (dict(DISTILL__TEACHER=str(tmp_path / "no.onnx")), "no.onnx: no such file"),
        (dict(DISTILL__TEACHER=str(tmp_path / "no.json")), "no: no such program"),
        (dict(DISTILL__TEACHER="resnet51"), "DISTILL.TEACHER resnet51: no bundle"),
        (dict(DISTILL__TEACHER="ResNet"), "DISTILL.TEACHER ResNet: no bundle"),
    ]
    for keys, words in cases:
        with pytest.raises(CaitError, match=words):
            build_teacher(tiny_config(DISTILL__TYPE="hard", **keys))
