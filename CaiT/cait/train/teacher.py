"""Teachers of distillation: whatever turns the student's images into logits of the same classes.

The authors distil from RegNetY-16GF (paper section 5; DeiT `main.py`); as an ONNX file, timm's serves.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import paddle

from cait.deploy.bundle import PROGRAMS, read_description
from cait.deploy.bundle_folder import DESCRIPTION, STEM, bundle_folder
from cait.deploy.onnx_file import check_tools, open_session
from cait.errors import CaitError, UsageError
from cait.files import check_readable
from cait.weights.find import find_weights
from cait.weights.read import read_weights

Teacher = Callable[[paddle.Tensor], paddle.Tensor]  # normalised images [B, C, height, width] -> logits [B, classes]


def build_teacher(config) -> Teacher:
    """The teacher that DISTILL.TEACHER names, in evaluation mode, tried on one image.

    A bundle's folder, a program (`.json`, `.pdmodel`), an `.onnx` file, or the name of a `paddle.vision` model with
    DISTILL.WEIGHTS. It sees the student's images: of DATA.IMAGE_SIZE, normalised by DATA.MEAN and DATA.STD.

    Raises:
        UsageError: there is no such teacher.
        CaitError: it cannot be loaded, wants other images, or knows another number of classes.
    """
    name, path = config.DISTILL.TEACHER, bundle_folder(config.DISTILL.TEACHER)
    with _unchanged_random_state():
        if (path / DESCRIPTION).is_file():
            data, channels = config.DATA, config.MODEL.IN_CHANNELS
            ours = {"DATA.IMAGE_SIZE": data.IMAGE_SIZE, "MODEL.IN_CHANNELS": channels}
            _check_preprocessing(path, ours | {"DATA.MEAN": data.MEAN, "DATA.STD": data.STD})
            teacher = _program(path / STEM)
        elif path.suffix == ".onnx":
            teacher = OnnxTeacher(path)
        elif path.suffix in {pathlib.Path(program).suffix for program in PROGRAMS}:
            teacher = _program(path.with_suffix(""))
        elif name in paddle.vision.models.__all__ and name[0].islower():
            teacher = _vision_model(name, config.DISTILL.WEIGHTS, config.MODEL.NUM_CLASSES)
        else:
            raise UsageError(
                f"DISTILL.TEACHER {name}: no bundle, no .json, .pdmodel or .onnx file, and no model of paddle.vision"
            )
        image = paddle.zeros([1, config.MODEL.IN_CHANNELS, *config.DATA.IMAGE_SIZE])
        try:
            shape = list(teacher(image).shape)
        except Exception as error:  # every framework has its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            size = "x".join(map(str, image.shape[1:]))
            raise CaitError(f"{name}: the teacher does not take images of {size} ({reason})") from error
    if shape != [1, config.MODEL.NUM_CLASSES]:
        raise CaitError(
            f"{name}: the teacher answers {shape} for one image; MODEL.NUM_CLASSES is {config.MODEL.NUM_CLASSES}"
        )
    return teacher


def build_teacher_names(config) -> list[str] | None:
    """The names of the classes of a teacher that is a bundle; of others they are not known.

    Raises:
        CaitError: the bundle's description is damaged.
    """
    path = bundle_folder(config.DISTILL.TEACHER)
    return read_description(path).class_names if (path / DESCRIPTION).is_file() else None


def with_teacher(mix: Callable, teacher: Teacher) -> Callable:
    """`mix`, (images, labels, random generator) -> (images, targets), with the targets (targets, teacher's logits).

    The teacher sees the images as the student does: augmented and mixed (DeiT `engine.py`).
    """

    def mixed(images, labels, rng):
        images, targets = mix(images, labels, rng)
        return images, (targets, teacher(images))

    return mixed


@contextlib.contextmanager
def _unchanged_random_state() -> Iterator[None]:
    """A model draws its first weights when it is made: the student's random numbers must not depend on that."""
    state = paddle.get_rng_state()
    try:
        yield
    finally:
        paddle.set_rng_state(state)


def _check_preprocessing(folder: pathlib.Path, ours: dict[str, Any]) -> None:
    description = read_description(folder)
    values = (description.image_size, description.channels, description.mean, description.std)
    for (key, value), theirs in zip(ours.items(), values):
        if value != theirs:
            raise CaitError(f"{folder}: the teacher was trained with {key} {theirs}; here it is {value}")


def _program(stem: pathlib.Path) -> Teacher:
    if not any(stem.with_suffix(pathlib.Path(program).suffix).is_file() for program in PROGRAMS):
        raise UsageError(f"{stem}: no such program, neither .json nor .pdmodel")
    try:
        layer = paddle.jit.load(str(stem))
    except Exception as error:  # Paddle raises almost anything on a program it cannot load
        raise CaitError(f"{stem}: PaddlePaddle cannot load the teacher ({type(error).__name__})") from error
    return _without_gradients(layer)


def _vision_model(name: str, weights: str, num_classes: int) -> Teacher:
    if not weights:
        raise UsageError(f"DISTILL.TEACHER {name} needs its weights: DISTILL.WEIGHTS=FILE.pdparams")
    layer = getattr(paddle.vision.models, name)(num_classes=num_classes)
    tensors = read_weights(find_weights(weights))
    wanted = {key: list(value.shape) for key, value in layer.state_dict().items()}
    found = {key: list(value.shape) for key, value in tensors.items()}
    if wanted != found:
        wrong = next(key for key in [*wanted, *found] if wanted.get(key) != found.get(key))
        raise CaitError(
            f"{weights}: not the weights of {name} with {num_classes} classes ({wrong} is {found.get(wrong)}, "
            f"and should be {wanted.get(wrong)})"
        )
    layer.set_state_dict(tensors)
    return _without_gradients(layer)


def _without_gradients(layer: paddle.nn.Layer) -> Teacher:
    layer.eval()

    def teacher(images: paddle.Tensor) -> paddle.Tensor:
        with paddle.no_grad():
            outputs = layer(images)
        logits = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
        return logits.detach()  # a loaded program forgets no_grad in PaddlePaddle 3.3

    return teacher


class OnnxTeacher:
    """An ONNX file in ONNX Runtime, on the GPU of this process where its package can; the first output counts.

    A file of a fixed batch size is fed in pieces of that size. Images are read where they lie, without a copy.

    Raises:
        UsageError: ONNX Runtime is not installed, or there is no such file.
        CaitError: the file cannot be loaded.
    """

    def __init__(self, path: str | os.PathLike):
        check_tools("onnxruntime")
        if not os.path.isfile(path):
            raise UsageError(f"DISTILL.TEACHER {path}: no such file")
        check_readable(path)
        try:
            self._session = open_session(path, [*self._on_gpu(), "CPUExecutionProvider"])
        except Exception as error:  # its errors have no common class
            raise CaitError(f"{path}: ONNX Runtime cannot load the teacher ({type(error).__name__})") from error
        self._input = self._session.get_inputs()[0]
        self._output = self._session.get_outputs()[0].name
        size = self._input.shape[0]
        self._batch_size = size if isinstance(size, int) else None

    @property
    def provider(self) -> str:
        """The provider of ONNX Runtime that computes, such as `CPUExecutionProvider`."""
        return self._session.get_providers()[0]

    def __call__(self, images: paddle.Tensor) -> paddle.Tensor:
        """Normalised images [B, C, height, width] -> logits [B, classes], both float32."""
        count = images.shape[0]
        size = self._batch_size or count
        if padding := -count % size:
            images = paddle.concat([images, images[-1:].expand([padding, *images.shape[1:]])])
        parts = [self._run(images[start : start + size].contiguous()) for start in range(0, count, size)]
        return paddle.to_tensor(np.concatenate(parts)[:count])

    def _on_gpu(self) -> list[tuple[str, dict[str, int]]]:
        """The provider for the GPU of this process; not TensorRT's, which builds its engines anew at every start."""
        import onnxruntime

        kind, _, index = paddle.device.get_device().partition(":")
        if kind != "gpu" or "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            return []
        return [("CUDAExecutionProvider", {"device_id": int(index)})]

    def _run(self, images: paddle.Tensor) -> np.ndarray:
        binding, place = self._session.io_binding(), images.place
        device, index = ("cuda", place.gpu_device_id()) if place.is_gpu_place() else ("cpu", 0)
        binding.bind_input(self._input.name, device, index, np.float32, images.shape, images.data_ptr())
        binding.bind_output(self._output)
        if device == "cuda":  # the two have streams of their own
            paddle.device.synchronize()
        self._session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()[0]
