"""The speed of an exported model, compared with the common alternatives; its exactness, operators and growth."""

import argparse
import collections
import contextlib
import json
import math
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from cait.bench.exported import timm_onnx, write_bundle
from cait.bench.measure import SCRIPTS, Measurement, measure_in_turn, power_of_growth, tell
from cait.bench.report import Report, Table
from cait.bench.runtime_client import RuntimeProcess
from cait.command.arguments import path, positive
from cait.errors import CaitError
from cait.machine.processor import usable_cores

ROOT = SCRIPTS.parent
VARIANT, PRECISIONS = "cait_xxs24_224", ("fp32", "bf16")
BASELINE, OURS = "openvino", "fused"
NAMES = {
    "fused": "this project",
    "plain": "plain Paddle Inference",
    "eager": "Paddle, eager",
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
    "timm": "timm, eager",
    "timm compiled": "timm, torch.compile",
}
# (variant, images a run): at least so many times OpenVINO's images a second, in fp32 and bf16.
GOALS = {
    ("cait_xxs24_224", 1): (1.2, 1.4),
    ("cait_xxs24_224", 16): (1.3, 1.7),
    ("cait_s24_224", 8): (1.3, 1.6),
    ("cait_xxs24_384", 8): (1.3, 1.6),
}
LARGEST_ERROR, CHANGED_PERCENT = 1e-4, 1.0
# An OpenMP thread of PaddlePaddle goes on spinning for a while after a run, on a core that the next runtime needs.
PAUSE_SECONDS = 0.3
ROUND_SECONDS, MOST_RUNS = 0.5, 10  # of one runtime in one round
GROWTH = {"resolution in pixels": ("image_size", [224, 288, 352, 448]), "depth": ("depth", [12, 24, 36])}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.set_defaults(rounds=10)
    parser.add_argument("--variants", nargs="+", help="models to measure; default: those with goals")
    parser.add_argument("--batch-sizes", type=positive, nargs="+", help="images per run; default: those of the goals")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--engines", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--threads", type=positive, default=usable_cores(), help="threads of each runtime")
    parser.add_argument("--demo", type=path, default=ROOT / "output" / "demo", help="folder of `make demo`")
    parser.add_argument("--only", choices=("speed", "exactness", "operators", "growth"), help="measure only this part")


def run(args: argparse.Namespace) -> Report:
    """Exports what is to be measured, and measures it."""
    cases = _cases(args.variants, args.batch_sizes)
    notes: list[str] = []
    tables: list[Table] = []
    with tempfile.TemporaryDirectory() as scratch:
        models = Models(pathlib.Path(scratch), notes)
        if args.only in (None, "exactness"):
            tables += exactness(sorted({variant for variant, _ in cases}), models, args.demo, notes)
        if args.only in (None, "speed"):
            for variant, batch_size in cases:
                for precision in args.precisions:
                    with models.runtimes(args.engines, variant, batch_size, precision, args.threads) as runtimes:
                        tables.append(speed(runtimes, args.rounds, variant, batch_size, precision))
        if args.only in (None, "operators"):
            tables += operators(models, *cases[-1 if args.variants else 1], args.threads)
        if args.only in (None, "growth"):
            for precision in args.precisions:
                for label, (name, values) in GROWTH.items():
                    tables += growth(models, label, name, values, precision, args.threads)
    settings = {"threads": args.threads, "precisions": list(args.precisions), "engines": list(args.engines)}
    return Report("model", args.command, tables, settings, list(dict.fromkeys(notes)))


def _cases(variants: list[str] | None, batch_sizes: list[int] | None) -> list[tuple[str, int]]:
    if not variants and not batch_sizes:
        return list(GOALS)
    variants = variants or list(dict.fromkeys(variant for variant, _ in GOALS))
    return [(variant, size) for variant in variants for size in batch_sizes or (1, 16)]


class Models:
    """Exports each model once, into a folder; `notes` gets a sentence for each runtime that is missing."""

    def __init__(self, folder: pathlib.Path, notes: list[str]):
        self.folder = folder
        self.notes = notes
        self._made: dict[str, pathlib.Path] = {}
        self._onnx: dict[str, pathlib.Path | None] = {}

    def bundle(self, variant: str, precision: str, **arguments: int) -> pathlib.Path:
        """The folder of a variant's bundle, with other arguments of the model where they are given."""
        name = "-".join([variant, precision, *(f"{key}{value}" for key, value in arguments.items())])
        if name not in self._made:
            self._made[name] = write_bundle(self.folder / name, variant, precision, None, False, **arguments)
        return self._made[name]

    def source(self, kind: str, variant: str, precision: str) -> pathlib.Path | str | None:
        """Returns what a contestant runs, see `Spec`; None if it cannot be made."""
        if kind in ("fused", "plain"):
            return self.bundle(variant, precision)
        if kind not in ("openvino", "onnxruntime"):
            return variant
        path = self.folder / f"{variant}.onnx"
        if variant not in self._onnx:
            try:
                self._onnx[variant] = timm_onnx(variant, path)
            except CaitError as error:
                self.notes.append(f"timm's model cannot be exported, so that its runtimes are missing ({error}).")
                self._onnx[variant] = None
        return self._onnx[variant]

    @contextlib.contextmanager
    def runtimes(
        self, kinds: list[str], variant: str, batch_size: int, precision: str, threads: int
    ) -> Iterator[dict[str, RuntimeProcess]]:
        """Context with those of these runtimes that this machine has, ready, by kind."""
        with contextlib.ExitStack() as stack:
            found = {}
            for kind in kinds:
                if source := self.source(kind, variant, precision):
                    runtime = stack.enter_context(RuntimeProcess(kind, source, batch_size, precision, threads))
                    if runtime.missing:
                        self.notes.append(f"{NAMES[kind]}, {precision}: missing ({runtime.missing}).")
                    else:
                        found[kind] = runtime
            yield found


def speed(runtimes: dict[str, RuntimeProcess], rounds: int, variant: str, batch_size: int, precision: str) -> Table:
    """Images a second and milliseconds a batch of each runtime; a round gives the median of some runs in a row."""

    def contestant(runtime: RuntimeProcess):
        first = statistics.median(runtime.seconds(2))
        runs = min(MOST_RUNS, math.ceil(ROUND_SECONDS / first))

        def measure() -> float:
            time.sleep(PAUSE_SECONDS)
            return batch_size / statistics.median(runtime.seconds(runs))

        return measure

    work = {NAMES[kind]: contestant(runtime) for kind, runtime in runtimes.items()}
    title = f"{variant}, {precision}, batch {batch_size}"
    measurements = measure_in_turn(title, work, "images/s", rounds)
    baseline = NAMES[BASELINE] if BASELINE in runtimes else ""
    goal = GOALS.get((variant, batch_size), (None, None))[PRECISIONS.index(precision)]
    goals = {NAMES[OURS]: goal} if goal and baseline and OURS in runtimes else {}
    return Table(title, measurements, baseline, goals, batch_size=batch_size)


def exactness(variants: list[str], models: Models, demo: pathlib.Path, notes: list[str]) -> list[Table]:
    """Largest difference of a fused fp32 logit from the model's, and images of the demo that bf16 sees otherwise."""
    from cait.bench.exported import reference_logits
    from cait.deploy.engine import Engine
    from cait.deploy.predictor import Predictor

    differences = []
    for variant in variants:
        tell(f"exactness: {variant}")
        predictor = Predictor(models.bundle(variant, "fp32"), Engine())
        size = predictor.description.image_size
        images = np.random.default_rng(1).standard_normal((4, 3, *size)).astype("float32")
        expected = reference_logits(variant, images)
        differences.append(Measurement(variant, "logit", [float(np.abs(predictor(images) - expected).max())]))
        notes.append(f"{variant}: {predictor.program}; the largest logit is {np.abs(expected).max():.1f}.")
    tables = [Table("difference from the model", differences, goals=dict.fromkeys(variants, LARGEST_ERROR))]
    report = demo / "report.json"
    if not report.is_file():
        notes.append(f"{report} is not there, so that bf16 was not compared on the demo's images: make demo.")
        return tables
    from cait.align.parity import deployment_rows

    run = ROOT / json.loads(report.read_text())["run"]
    bundle = write_bundle(models.folder / "demo-bf16", run / "config.yaml", "bf16", weights=run / "best_model")
    tell("exactness: bf16 on the demo's images")
    rows, _ = deployment_rows(bundle, run / "best_model", ROOT / "dataset" / "digits" / "val")
    changed = {row.name: 100 * row.max_diff for row in rows if "bf16" in row.name and "changed" in row.name}
    goals = dict.fromkeys(changed, CHANGED_PERCENT)
    return [
        *tables,
        Table("images of another class", [Measurement(n, "%", [v]) for n, v in changed.items()], "", goals),
    ]


def operators(models: Models, variant: str, batch_size: int, threads: int, times: int = 3) -> list[Table]:
    """Milliseconds a run of each kind of operator, of the plain and of the fused program."""
    from cait.machine.device import why_no_profiler

    if reason := why_no_profiler():
        models.notes.append(f"operators: missing ({reason}).")
        return []
    tables = []
    for kind in ("plain", "fused"):
        title = f"operators of the {kind} program, {variant}, batch {batch_size}"
        tell(title)
        with models.runtimes([kind], variant, batch_size, "fp32", threads) as runtimes:
            found = runtimes[kind].operators(times) if kind in runtimes else {}
        small = sum(value for value in found.values() if value < 0.01 * sum(found.values()))
        large = collections.Counter(
            {name: value for name, value in found.items() if value >= 0.01 * sum(found.values())}
        )
        shown = [*large.most_common(), *([("all others", small)] if small else [])]
        tables += [Table(title, [Measurement(name, "ms", [value]) for name, value in shown])] if shown else []
    return tables


def growth(models: Models, label: str, name: str, values: list[int], precision: str, threads: int) -> list[Table]:
    """Curves of the time of one image and of the memory that it takes, over one size."""
    seconds, memory = [], []
    for value in values:
        bundle = models.bundle(VARIANT, precision, **{name: value})
        tell(f"growth: {precision}, {name} {value}")
        with RuntimeProcess(OURS, bundle, 1, precision, threads) as runtime:
            if runtime.missing:
                models.notes.append(f"growth, {precision}: missing ({runtime.missing}).")
                return []
            found = [1000 * value for value in runtime.seconds(10)]
            seconds.append(Measurement(str(value), "ms", found))
            memory.append(Measurement(str(value), "MB", [runtime.peak_mb - runtime.start_mb]))
    title = f"{precision}: one image by {label} (grows with its power {power_of_growth(values, seconds):.1f})"
    return [
        Table(title, seconds, x_label=label, x=values),
        Table(f"{precision}: memory by {label}, weights included", memory, x_label=label, x=values),
    ]
