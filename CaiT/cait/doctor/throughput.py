"""Measures the images trained and answered per second, by batch size up to the limits of memory or time."""

import functools
import pathlib
from collections.abc import Callable, Iterator

from cait.bench.runtime_client import RuntimeProcess
from cait.bench.runtime_worker import Missing
from cait.bench.step import StepSpec, measure_step
from cait.doctor.deployment import bundle
from cait.doctor.numerics import peak_of, why_not_mixed_on
from cait.doctor.report import FAILED, MISSING, OK, Line
from cait.doctor.settings import Settings
from cait.errors import CaitError
from cait.machine.processor import processor_fields, usable_cores

FACTOR = 4  # from one batch size to the next
MEMORY_SHARE = 0.8  # of the free memory that a larger batch may take, by what this one took
NO_MEMORY = "there is not enough memory"  # how `cait.command.run` begins


def throughput(settings: Settings) -> Iterator[Line]:
    """Training steps in float32 and, where there is one, in mixed precision; then all engines of the device."""
    for dtype in ("float32", "bfloat16", "float16"):
        name = f"training in {dtype}"
        if dtype != "float32" and (reason := why_not_mixed_on(settings, dtype)):
            yield Line("throughput", name, MISSING, reason)
            continue
        yield _series(name, settings, functools.partial(_trained, settings, dtype))
    kinds = [("gpu", "fp32"), ("gpu", "bf16"), ("gpu", "fp16"), ("tensorrt", "fp16")]
    for kind, precision in (
        kinds if settings.device == "gpu" else [("fused", "fp32"), ("plain", "fp32"), ("fused", "bf16")]
    ):
        name = f"inference, {kind}, {precision}"
        yield _series(name, settings, functools.partial(_run, settings, kind, precision))


def _series(name: str, settings: Settings, measure: Callable[[int], tuple[float, float]]) -> Line:
    """A line of the images a second by batch size; `measure(size)` gives the seconds of a batch and its peak in MB."""
    found: dict[int, tuple[float, float]] = {}
    size, end = 1, ""
    while not end:
        try:
            found[size] = measure(size)
        except Missing as reason:
            return Line("throughput", name, MISSING, str(reason))
        except CaitError as error:
            if not found or NO_MEMORY not in str(error):
                return Line("throughput", name, FAILED, str(error))
            end = f"batch {size} does not fit into memory"
            continue
        seconds, peak = found[size]
        if seconds * FACTOR > settings.step_seconds:
            end = f"batch {size * FACTOR} would take more than {settings.step_seconds:g} s"
        elif settings.device == "cpu" and peak * FACTOR > MEMORY_SHARE * _free_mb():
            end = f"batch {size * FACTOR} might not fit into memory"
        size *= FACTOR
    words = [f"batch {size} {size / seconds:.3g} images/s, {peak:.0f} MB" for size, (seconds, peak) in found.items()]
    numbers = {
        "seconds": {size: pair[0] for size, pair in found.items()},
        "peak_mb": {s: p[1] for s, p in found.items()},
    }
    return Line("throughput", name, OK, f"{'; '.join(words)}; {end}", numbers)


def _free_mb() -> float:
    return int(processor_fields("/proc/meminfo").get("MemAvailable", "0 kB").split()[0]) / 1024 or float("inf")


def _trained(settings: Settings, dtype: str, size: int) -> tuple[float, float]:
    found = measure_step(StepSpec(settings.model, size, device=settings.device, dtype=dtype, steps=2))
    return min(found["seconds"]), peak_of(found)


def _run(settings: Settings, kind: str, precision: str, size: int) -> tuple[float, float]:
    from cait.deploy.engine import Engine
    from cait.deploy.engine_config import why_not

    on_gpu = settings.device == "gpu"
    if reason := why_not(Engine(use_gpu=on_gpu, precision=precision, tensorrt=kind == "tensorrt")):
        raise Missing(reason)
    folder = bundle(settings, precision if kind == "fused" else "fp32")
    with RuntimeProcess(kind, pathlib.Path(folder), size, precision, usable_cores()) as engine:
        if engine.missing:
            raise Missing(engine.missing)
        seconds = min(engine.seconds(3))
        return seconds, engine.gpu_peak_mb or engine.peak_mb
