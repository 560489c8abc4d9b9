"""The machine and the software that a measurement was made with."""

import importlib.metadata
import os
import pathlib
import platform
from typing import Any

from cait.machine.processor import processor_fields, usable_cores

# What the processor may have that decides how fast it computes, by the kernel's names.
FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")
PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "numpy", "pillow", "pillow-simd")
PEERS = ("torch", "torchvision", "timm", "openvino", "onnxruntime", "simplejpeg")


def describe_machine(cpuinfo: str = "/proc/cpuinfo", meminfo: str = "/proc/meminfo") -> dict[str, Any]:
    """Processor, its cores and features, memory in MB, system, and the versions of Python and of what is installed."""
    processor = processor_fields(cpuinfo)
    flags = set(processor.get("flags", "").split())
    return {
        "processor": processor.get("model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "features": [name for name in FEATURES if name in flags],
        "memory_mb": int(processor_fields(meminfo).get("MemTotal", "0 kB").split()[0]) // 1024,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in (*PACKAGES, *PEERS) if (version := _version(name))},
        "environment": {name: value for name, value in sorted(_environment().items()) if _matters(name)},
    }


def _environment() -> dict[str, str]:
    """The environment that this process was started in: importing PaddlePaddle and this package adds to it."""
    try:
        entries = pathlib.Path("/proc/self/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # not Linux
        return dict(os.environ)
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _matters(name: str) -> bool:
    beginnings = ("FLAGS_", "OMP_", "MKL_", "KMP_", "DNNL_", "ONEDNN_", "CUDA_", "NVIDIA_TF32", "NCCL_", "GLOO_")
    return name.startswith(beginnings) or name == "CAIT_INSTRUCTIONS"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def in_words(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    features = f" ({', '.join(machine['features'])})" if machine["features"] else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores{features}, {machine['memory_mb']} MB; "
        f"Python {machine['python']}, {versions}"
    )
