"""Checks whether a device computes correctly: the alignment ladder, training steps, repeats, the memory options."""

import dataclasses
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from cait.bench.memory import OPTIONS
from cait.bench.step import StepSpec, difference_of, measure_step
from cait.doctor.report import DIFFERS, MISSING, OK, ROOT, Line, judged
from cait.doctor.settings import Settings
from cait.machine.device import select_device
from cait.precision import default_dtype

GOLDEN = ROOT / "tests" / "golden"
# How far the gradients of a step may be from those of float32 on the CPU, relative to the largest. Rounding alone makes
# 0.5e-6 of it in float32 (XXS24 and the CPU, against float64); in mixed precision 1.5e-3 with float16 and 2e-2 with
# bfloat16 (timm's XXS24 under PyTorch's autocast on the CPU). TF32 would make more than 1e-4.
ALLOWED = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1}
MIXED = [(dtype, level) for dtype in ("float16", "bfloat16") for level in ("O1", "O2")]
LARGEST = "the largest gradient"
REPEATED_STEPS = 3


def alignment(settings: Settings) -> Iterator[Line]:
    """The ladder of `check_alignment.py`, in float64 and float32."""
    from cait.align import ladder
    from cait.align.references import golden_references

    select_device(settings.device)
    if not GOLDEN.is_dir():
        yield Line(
            "alignment", "golden files", MISSING, "this is no checkout of the repository: tests/golden is missing"
        )
        return
    names = ["tiny"] + [settings.name] * (GOLDEN / f"forward_{settings.name}.npz").is_file()
    for dtype in ("float64", "float32"):
        with default_dtype(dtype):
            for reference in golden_references(names, GOLDEN):
                rows = ladder.climb(reference, list(reference.steps))
                yield _of_rows(f"{reference.name}, {dtype}", rows)


def _of_rows(name: str, rows: list) -> Line:
    """The worst of the ladder's rows, by what was allowed."""
    from cait.align.verdict import worst_of

    worst = worst_of(rows)
    words = f"that is {worst.name}, the worst of {len(rows)} arrays"
    line = judged("alignment", name, worst.max_diff, worst.threshold, more=words)
    return line._replace(verdict=OK if all(row.passed for row in rows) else DIFFERS)


def _step(settings: Settings, name: str, **options) -> StepSpec:
    """A step of the checks, whose gradients go to the file `name.npy`."""
    base: dict[str, Any] = {"device": settings.device, "batch_size": settings.batch_size, "golden": True, "steps": 1}
    return StepSpec(settings.model, gradients=settings.file(f"{name}.npy"), **(base | options))


def why_not_mixed_on(settings: Settings, dtype: str) -> str:
    """Why the device has no mixed precision with this type; empty if it has."""
    from cait.train.mixed_precision import why_not_mixed

    select_device(settings.device)
    return why_not_mixed(dtype)


def training_step(settings: Settings) -> Iterator[Line]:
    """A step in each precision, against the float32 step on the CPU."""
    check = "training step"
    plain = _step(settings, "plain", device="cpu")
    loss = measure_step(plain)["loss"]
    exact = _step(settings, "exact", device="cpu", dtype="float64")
    measure_step(exact)
    yield judged(
        check,
        "float32 on the CPU, against float64",
        difference_of(plain.gradients, exact.gradients),
        ALLOWED["float32"],
        of=LARGEST,
    )
    if settings.device == "gpu":
        yield _against(check, "float32 on the GPU", _step(settings, "device"), plain, loss)
    for dtype, level in MIXED:
        name = f"AMP {level} in {dtype}"
        if reason := why_not_mixed_on(settings, dtype):
            yield Line(check, name, MISSING, reason)
        else:
            yield _against(check, name, _step(settings, "mixed", dtype=dtype, level=level), plain, loss)


def _against(check: str, name: str, step: StepSpec, expected: StepSpec, loss: float) -> Line:
    found = measure_step(step)["loss"]
    words = f"loss {found:.5f}, on the CPU {loss:.5f}"
    return judged(
        check, name, difference_of(step.gradients, expected.gradients), ALLOWED[step.dtype], of=LARGEST, more=words
    )


def repeats(settings: Settings) -> Iterator[Line]:
    """Some steps, twice: gradients and weights are equal bit for bit."""
    for dtype in ("float32", *(["bfloat16"] if not why_not_mixed_on(settings, "bfloat16") else [])):
        files: list[dict[str, Any]] = []
        for number in range(2):
            names = {"gradients": f"gradients{number}.npy", "weights": f"weights{number}.npy"}
            files.append({kind: settings.file(name) for kind, name in names.items()})
            step = _step(settings, "", dtype=dtype, steps=REPEATED_STEPS)
            measure_step(dataclasses.replace(step, **files[-1]))
        same = {kind: np.array_equal(np.load(files[0][kind]), np.load(files[1][kind])) for kind in files[0]}
        other = " and ".join(kind for kind, equal in same.items() if not equal)
        detail = f"the {other} of two runs are not the same" if other else "two runs are equal bit for bit"
        yield Line("repeats", f"{1 + REPEATED_STEPS} steps in {dtype}", DIFFERS if other else OK, detail, same)


def memory(settings: Settings) -> Iterator[Line]:
    """Recomputation and attention in chunks, against the plain step in the same precision; and what they save."""
    kinds = [("float32", "O1"), *(kind for kind in MIXED if not why_not_mixed_on(settings, kind[0]))]
    for dtype, level in kinds:
        mixed = {"dtype": dtype, "level": level}
        plain = _step(settings, "plain", **mixed)
        peak = peak_of(measure_step(plain))
        for name, options in OPTIONS.items():
            if not options:
                continue
            step = _step(settings, "saving", **mixed, **cast(dict[str, Any], options))
            own = peak_of(measure_step(step))
            what = dtype if dtype == "float32" else f"AMP {level} in {dtype}"
            words = f"peak memory {own:.0f} MB, plain {peak:.0f} MB"
            allowed = ALLOWED[dtype] / 2  # S24 at 384 has 1.7e-5 on the CPU, most of it the plain step's
            yield judged(
                "memory options",
                f"{name}, {what}",
                difference_of(step.gradients, plain.gradients),
                allowed,
                of=LARGEST,
                more=words,
            )


def peak_of(found: dict) -> float:
    """MB: of the GPU, or of the process."""
    return found.get("gpu_peak_mb", found["peak_mb"])
