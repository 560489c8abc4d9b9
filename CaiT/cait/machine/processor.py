"""The features of the processor, and the one setting that Paddle's libraries need for it."""

import os
import pathlib
from collections.abc import MutableMapping

CPUINFO = "/proc/cpuinfo"
AVX512 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}  # what MKL's AVX-512 kernels use


def processor_fields(cpuinfo: str | os.PathLike = CPUINFO) -> dict[str, str]:
    """The `name : value` lines of the first processor; empty where the system does not tell."""
    path = pathlib.Path(cpuinfo)
    if not path.is_file():
        return {}
    fields: dict[str, str] = {}
    with path.open(errors="replace") as file:
        for line in file:
            name, colon, value = line.partition(":")
            if fields and not colon:
                break
            fields[name.strip()] = value.strip()
    return fields


def usable_cores() -> int:
    """Cores that this process may run on, which `taskset` or a container can make fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_mb(status: str | os.PathLike = "/proc/self/status") -> float | None:
    """The largest resident memory of this process so far; None where the system does not tell.

    `getrusage` counts what the parent of this process had before the fork.
    """
    value = processor_fields(status).get("VmHWM")
    return int(value.split()[0]) / 1024 if value else None


def use_avx512_on_amd(environment: MutableMapping[str, str] = os.environ, cpuinfo: str | os.PathLike = CPUINFO) -> None:
    """Lets the MKL in PaddlePaddle use AVX-512 on an AMD processor that has it; to be called before Paddle is imported.

    MKL checks the vendor string and uses AVX2 on AMD, which more than doubles the time of a training step. A value in
    the environment stays: MKL_DEBUG_CPU_TYPE=5 is AVX2. On a processor without AVX-512 the value set here would end
    the process.
    """
    fields = processor_fields(cpuinfo)
    if fields.get("vendor_id") == "AuthenticAMD" and set(fields.get("flags", "").split()) >= AVX512:
        environment.setdefault("MKL_DEBUG_CPU_TYPE", "7")
