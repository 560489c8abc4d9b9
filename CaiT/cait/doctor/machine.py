"""Describes this machine and environment: everything that decides whether and how this project runs here."""

import functools
import os
import pathlib
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import paddle
import PIL
from paddle import inference
from paddle.base import core
from PIL import features

import cait
from cait.bench.machine import describe_machine
from cait.data import pixels
from cait.data.decoding import formats
from cait.deploy.autolog import ask_nvidia
from cait.deploy.engine_config import why_no_tensorrt
from cait.doctor.report import ROOT
from cait.files import user_cache
from cait.machine.device import device_words, has_gpu
from cait.ops import library
from cait.train.mixed_precision import why_not_mixed

Facts = dict[str, str]
SHARED_MEMORY = "/dev/shm"
COMPILERS = ("g++", "nvcc")
CODECS = ("libjpeg_turbo", "webp", "avif", "zlib")
SECONDS = 60.0  # for a program that says its version
# What may go wrong with a single fact, which is then said in its place.
_ERRORS = (OSError, RuntimeError, ValueError, AttributeError, ImportError, MemoryError, subprocess.SubprocessError)


def describe() -> dict[str, Facts]:
    """The facts by section: all of them texts, in which paths of the user's may stand."""
    machine = describe_machine()
    return {
        "System": dict(_told(_system(machine))),
        "Packages": machine["versions"] | {"environment": _pairs(machine["environment"]) or "no variables that matter"},
        "PaddlePaddle": dict(_told(_paddle())),
        "GPUs": dict(_told(_gpus())),
        "Inference": dict(_told(_inference())),
        "Compiled parts": dict(_told(_compiled())),
        "Images": dict(_told(_images())),
        "Space": dict(_told(_space())),
    }


Told = Iterator[tuple[str, Callable[[], Any]]]


def _told(facts: Told) -> Iterator[tuple[str, str]]:
    """Each fact, or why it is not known: one that cannot be had must not cost the others."""
    for name, tell in facts:
        try:
            yield name, str(tell())
        except _ERRORS as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            yield name, f"not known ({reason})"


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _system(machine: dict[str, Any]) -> Told:
    yield "system", lambda: f"{_distribution()}, kernel {platform.release()}, {platform.machine()}"
    yield "Python", lambda: f"{machine['python']}, {platform.python_implementation()}, {' '.join(platform.libc_ver())}"
    yield "processor", lambda: f"{machine['processor']}, {machine['cores']} usable cores"
    yield "instructions", lambda: ", ".join(machine["features"]) or "none of those that matter"
    yield "memory", lambda: f"{machine['memory_mb']} MB"
    yield "project", _commit


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform()


def _commit() -> str:
    done = _say("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    return f"commit {done}" if done else f"version {cait.__version__}"


def _say(*words: str) -> str:
    """What a program prints; empty where there is none, or where it fails."""
    if not shutil.which(words[0]):
        return ""
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    return "" if done.returncode else done.stdout.strip()


def _paddle() -> Told:
    yield "version", lambda: f"{paddle.__version__}, commit {paddle.version.commit[:10]}"
    with_cuda = paddle.device.is_compiled_with_cuda()
    yield "built for", lambda: f"CUDA {paddle.version.cuda()}, cuDNN {paddle.version.cudnn()}" if with_cuda else "CPUs"
    if with_cuda:
        yield "code for compute capability", _architectures
        yield "cuDNN found", lambda: paddle.get_cudnn_version() or "none"
        yield "NCCL", lambda: paddle.version.nccl() if hasattr(paddle.version, "nccl") else _nccl()
    yield "device", device_words


def _architectures() -> str:
    if not hasattr(paddle.version, "cuda_archs"):  # before 3.0
        return "this PaddlePaddle does not say"
    return ", ".join(map(str, paddle.version.cuda_archs())) or "none"


def _nccl() -> str:
    return str(core.nccl_version()) if hasattr(core, "nccl_version") else "this PaddlePaddle does not say"


def _mixed(dtype: str) -> str:
    return why_not_mixed(dtype) or "yes"


def _codec(name: str) -> str:
    return features.version(name) or ("yes" if features.check(name) else "no")


def _gpus() -> Told:
    yield "driver", lambda: ask_nvidia("driver_version") or "nvidia-smi is not there or finds no GPU"
    if not has_gpu():
        yield "found by PaddlePaddle", lambda: "none"
        return
    for index in range(paddle.device.cuda.device_count()):
        yield f"gpu:{index}", functools.partial(_gpu, index)
        yield f"gpu:{index} computes", functools.partial(_computes, index)
    for dtype in ("float16", "bfloat16"):
        yield f"mixed precision in {dtype}", functools.partial(_mixed, dtype)


def _gpu(index: int) -> str:
    found = paddle.device.cuda.get_device_properties(index)
    return f"{found.name}, compute capability {found.major}.{found.minor}, {found.total_memory >> 20} MB"


def _computes(index: int) -> str:
    """Whether this PaddlePaddle has code for the GPU, which only trying tells for certain."""
    place = paddle.CUDAPlace(index)
    ones = paddle.to_tensor([[1.0, 1.0], [1.0, 1.0]], place=place)
    found = paddle.matmul(ones, ones).numpy().tolist()
    return "yes" if found == [[2.0, 2.0], [2.0, 2.0]] else f"wrongly: a product of ones gave {found}"


def _inference() -> Told:
    yield "TensorRT", lambda: why_no_tensorrt() or ".".join(map(str, inference.get_trt_runtime_version()))
    yield "ONNX Runtime", _onnxruntime


def _onnxruntime() -> str:
    try:
        import onnxruntime
    except ImportError:
        return "not installed"
    return f"{onnxruntime.__version__}, {', '.join(onnxruntime.get_available_providers())}"


def _compiled() -> Told:
    for name in COMPILERS:
        yield name, functools.partial(_compiler, name)
    yield "fused operators", _operators
    yield "image resizing", pixels.how


def _compiler(name: str) -> str:
    lines = [line for line in _say(name, "--version").splitlines() if re.search(r"\d\.\d", line)]
    return lines[0] if lines else "none"


def _operators() -> str:
    try:
        state = library.state()
        used = f", {library.register()} instructions" if state == "built" else ""
        return f"{state} in {library.folder()}{used}"
    except library.OperatorsUnavailable as reason:
        return f"not to be had: {reason}"


def _images() -> Told:
    yield "Pillow", lambda: PIL.__version__
    for codec in CODECS:
        yield codec, functools.partial(_codec, codec)
    yield "formats that are read", lambda: ", ".join(formats())


def _space() -> Told:
    yield SHARED_MEMORY, lambda: _free(SHARED_MEMORY)
    yield "disk of this folder", lambda: _free(os.getcwd())
    yield "disk of the cache", lambda: _free(_existing(user_cache()))


def _free(folder: str | os.PathLike) -> str:
    usage = shutil.disk_usage(folder)
    return f"{usage.free >> 20} of {usage.total >> 20} MB free"


def _existing(folder: pathlib.Path) -> pathlib.Path:
    return next(place for place in (folder, *folder.parents) if place.exists())
