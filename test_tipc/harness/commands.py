"""The steps of a mode, composed from the lines of the parameter file.

With SAVE = `<output>/<trainer>_gpus_<g>_autocast_<a>`, and numbers for lines:

    training            16 + 5 + 8=SAVE + 7 + 10 + 6 + 9 + 13
    evaluation          24 + 10=SAVE/11 + 5
    export              30 + 29=SAVE/11 + 28=SAVE
    inference, CPU      40 + 41 + 42 + 43 + 47 + 44 + 46 + 48 + 50
    inference, GPU      40 + 41 + 45 + 46 + 47 + 44 + 48 + 50

The model's own predictions, which inference is compared with, come from the evaluation command with `-pred` for `-eval`
and 8=SAVE/pred behind it.
"""

import itertools
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from cait.errors import UsageError
from harness import ROOT
from harness.data import data_folder, missing_for
from harness.devices import is_amp, why_not_infer, why_not_train
from harness.parameters import EXPORT_OF, TRAINERS, Parameters
from harness.steps import Step, evaluated, exported, inferred, predicted, trained

TIPC = "test_tipc/tipc.py"
PUBLISHED_TOP1 = {"cait_xxs24_224": 0.7840}  # of the official weights on the validation set (timm's results)


class Row(NamedTuple):
    """One of the alternatives of lines 4 and 5, with one of line 6."""

    gpus: str
    device: str
    autocast: str

    @property
    def numbers(self) -> str:
        """GPU numbers without the hosts."""
        return self.gpus.rpartition(";")[2]

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment: a single process shall see its own GPU alone."""
        return {} if self.gpus == "-1" else {"CUDA_VISIBLE_DEVICES": self.numbers}


def rows(parameters: Parameters) -> Iterator[Row]:
    """All rows of a file."""
    for gpus, device in zip(parameters.values(4), parameters.values(5)):
        for autocast in parameters.values(6):
            yield Row(gpus, device, autocast or "null")


def train_words(parameters: Parameters, row: Row, line: int, save: pathlib.Path, epochs: str, batch: str) -> list[str]:
    """The training command."""
    words = [parameters.value(3)]
    hosts, _, numbers = row.gpus.rpartition(";")
    if "," in numbers or hosts:
        words += ["-m", "paddle.distributed.launch", *([f"--ips={hosts}"] if hosts else []), f"--gpus={numbers}"]
    words += parameters.words(line)
    words += parameters.pair(5, row.device) + parameters.pair(8, save) + parameters.pair(7, epochs)
    return words + parameters.pair(10) + parameters.pair(6, row.autocast) + parameters.pair(9, batch)


def eval_words(parameters: Parameters, device: str, weights: str) -> list[str]:
    """The evaluation command."""
    return [parameters.value(3), *parameters.words(24), *parameters.pair(10, weights), *parameters.pair(5, device)]


def pred_words(parameters: Parameters, device: str, weights: str, folder: pathlib.Path) -> list[str]:
    """The command for the model's own predictions."""
    words = ["-pred" if word == "-eval" else word for word in eval_words(parameters, device, weights)]
    return words + parameters.pair(8, folder)


def export_words(parameters: Parameters, line: int, weights: str, folder: pathlib.Path) -> list[str]:
    """The export command."""
    return [parameters.value(3), *parameters.words(line), *parameters.pair(29, weights), *parameters.pair(28, folder)]


def plan(parameters: Parameters, mode: str, output: pathlib.Path, benchmark: str = "") -> list[Step]:
    """The steps of a mode.

    Args:
        output: folder of the logs, absolute or relative to the project.
        benchmark: such as `dynamic_bs8_fp32_DP_N1C1`: this combination alone instead of those of lines 54 and 55.

    Raises:
        UsageError: the file lacks what the mode needs, or the data was not prepared.
    """
    missing = missing_for(parameters, mode)
    if mode == "benchmark_train":
        return list(_speed_steps(parameters, output, missing, benchmark))
    if mode == "whole_infer":
        return list(_released_steps(parameters, output, missing))
    names = [name for name in parameters.values(15) if parameters.words(TRAINERS[name])]
    steps = []
    for row, name in itertools.product(rows(parameters), names):
        steps += _chain_steps(parameters, mode, output, missing, row, name)
    return steps


def _chain_steps(
    parameters: Parameters, mode: str, output: pathlib.Path, missing: dict[str, str], row: Row, name: str
) -> Iterator[Step]:
    run = f"{name}_gpus_{row.numbers}_autocast_{row.autocast}"
    save, line, checkpoint = output / run, TRAINERS[name], parameters.value(11)
    weights, pred = f"{save}/{checkpoint}", save / "pred"
    epochs, batch = parameters.value(7, mode), parameters.value(9, mode)
    reason = missing.get("train", "") or why_not_train(*row)
    yield Step(
        f"train {run}",
        train_words(parameters, row, line, save, epochs, batch),
        output / f"{run}.log",
        skip=reason,
        left_undone=trained(ROOT / save, checkpoint, int(epochs)),
        variables=row.variables,
    )
    eval_log = output / f"{run}_eval.log"
    yield Step(
        f"evaluate {run}",
        eval_words(parameters, row.device, weights),
        eval_log,
        needs=(f"train {run}",),
        left_undone=evaluated(ROOT / eval_log),
        variables=row.variables,
    )
    evaluation = eval_log if mode != "lite_train_whole_infer" else None  # there, other images are inferred
    yield from _inference_steps(
        parameters,
        output,
        run,
        (f"train {run}", f"evaluate {run}"),
        missing,
        row.device,
        weights,
        export_words(parameters, EXPORT_OF[line], weights, save),
        save,
        pred,
        parameters.value(12),
        expected=[f"--evaluation={evaluation}"] if evaluation else [],
        start=parameters.value(10),
        variables=row.variables,
    )


def _released_steps(parameters: Parameters, output: pathlib.Path, missing: dict[str, str]) -> Iterator[Step]:
    weights, save = parameters.value(37), output / "infer_model"
    if not weights or not parameters.words(38):
        raise UsageError(f"{parameters.path}: line {37 if not weights else 38}: null, but whole_infer needs it")
    top1 = PUBLISHED_TOP1.get(pathlib.Path(weights).name)
    yield from _inference_steps(
        parameters,
        output,
        "infer_model",
        (),
        missing,
        parameters.values(5)[0],
        weights,
        export_words(parameters, 38, weights, save),
        save,
        save / "pred",
        parameters.value(48),
        expected=[f"--expected={top1}"] if top1 else [],
    )


def _inference_steps(
    parameters: Parameters,
    output: pathlib.Path,
    run: str,
    needs: tuple[str, ...],
    missing: dict[str, str],
    device: str,
    weights: str,
    export: list[str],
    save: pathlib.Path,
    pred: pathlib.Path,
    images: str,
    expected: list[str],
    start: str = "",
    variables: dict[str, str] | None = None,
) -> Iterator[Step]:
    """Export, the proof of the bundle's origin, the model's own predictions, and every configuration of inference."""
    python, variables, absent = parameters.value(3), variables or {}, missing.get("infer", "")
    table = pred / "predictions.csv"
    yield Step(
        f"export {run}",
        export,
        output / f"{run}_export.log",
        needs=needs[:1],
        skip="" if needs else absent,
        left_undone=exported(ROOT / save),
    )
    words = [python, TIPC, "verify", f"--bundle={save}", f"--weights={weights}.pdparams"]
    words += [f"--start={start}.pdparams"] if start else []
    yield Step(f"verify {run}", words, output / f"{run}_verify.log", needs=(f"export {run}",))
    yield Step(
        f"predict {run}",
        pred_words(parameters, device, weights, pred),
        output / f"{run}_pred.log",
        needs=needs[:1],
        skip=absent,
        left_undone=predicted(ROOT / table),
        variables=variables,
    )
    bundle = save / parameters.value(36) if parameters.value(36) else save
    is_only_run = len(list(rows(parameters))) * len(parameters.values(15)) == 1 or needs == ()
    folder = output if is_only_run else output / f"{run}_infer"  # so that logs have the names that parsers look for
    first = True
    for name, words, reason, precision in inference_commands(parameters, bundle, images):
        log, label = folder / f"{name}.log", name if is_only_run else f"{run} {name}"
        yield Step(
            f"infer {label}",
            words,
            log,
            needs=(f"verify {run}",),
            skip=absent or reason,
            left_undone=inferred(ROOT / log, parameters.value(50) == "True"),
        )
        words = [python, TIPC, "compare", f"--table={table}", f"--log={log}", f"--precision={precision}"]
        needed = (f"infer {label}", f"predict {run}")
        yield Step(f"compare {label}", words, folder / f"{name}_compare.txt", needs=needed, proves=True)
        if first and expected and not reason:
            labels = data_folder(parameters) / "test_list.txt"
            words = [python, TIPC, "accuracy", f"--log={log}", f"--labels={labels}", f"--folder={labels.parent}"]
            needed = (f"infer {label}", *needs[1:])
            yield Step(
                f"accuracy {label}",
                words + expected,
                folder / f"{name}_accuracy.txt",
                needs=needed,
                skip=missing.get("accuracy", ""),
            )
            first = False


def inference_commands(
    parameters: Parameters, bundle: pathlib.Path, images: str
) -> Iterator[tuple[str, list[str], str, str]]:
    """Every configuration of lines 41 to 46: name of its log, command, why it cannot run here, precision."""
    head = [parameters.value(3), *parameters.words(40)]
    for use_gpu in parameters.values(41):
        # Of the lines that a device does not use, only the first value counts.
        on_gpu = use_gpu == "True"
        of_cpu = slice(1) if on_gpu else slice(None)
        mkldnns, threads = parameters.values(42)[of_cpu], parameters.values(43)[of_cpu]
        tensorrts = parameters.values(45) if on_gpu else parameters.values(45)[:1]
        for mkldnn, number, tensorrt, batch, precision in itertools.product(
            mkldnns, threads, tensorrts, parameters.values(44), parameters.values(46)
        ):
            if on_gpu:
                name = f"python_infer_gpu_usetrt_{tensorrt}_precision_{precision}_batchsize_{batch}"
                middle = parameters.pair(45, tensorrt) + parameters.pair(46, precision)
                end = parameters.pair(44, batch)
            else:
                name = f"python_infer_cpu_usemkldnn_{mkldnn}_threads_{number}_precision_{precision}_batchsize_{batch}"
                middle = parameters.pair(42, mkldnn) + parameters.pair(43, number)
                end = parameters.pair(44, batch) + parameters.pair(46, precision)
            words = head + parameters.pair(41, use_gpu) + middle + parameters.pair(47, bundle) + end
            words += parameters.pair(48, images) + parameters.pair(50)
            reason = why_not_infer(on_gpu, mkldnn == "True", precision, on_gpu and tensorrt == "True")
            yield name, words, reason, precision


def _speed_steps(parameters: Parameters, output: pathlib.Path, missing: dict[str, str], wanted: str) -> Iterator[Step]:
    if not parameters.has_benchmark:
        raise UsageError(f"{parameters.path}: line 52: missing; benchmark_train needs lines 52 to 60")
    epochs, name, flags = parameters.value(56), parameters.value(57), parameters.value(60)
    if not parameters.words(TRAINERS.get(name, 17)):
        raise UsageError(f"{parameters.path}: line 57: model_type must be a trainer of lines 16 to 20, not {name!r}")
    row = next(rows(parameters))
    combinations = list(itertools.product(parameters.values(54), parameters.values(55)))
    if wanted:
        match = re.fullmatch(r"(?:dynamic_)?bs(\d+)_(fp32|fp16)_DP_N1C(\d+)", wanted)
        if match is None:
            raise UsageError(f"{wanted}: must be of the form dynamic_bs8_fp32_DP_N1C1 (one machine)")
        combinations = [match.groups()[:2]]
        if int(match[3]) > 1:
            row = row._replace(gpus=",".join(map(str, range(int(match[3])))), device="gpu")
    for batch, item in combinations:
        chosen = row._replace(autocast="null" if item == "fp32" else "True")
        if is_amp(chosen.autocast) and parameters.key(6) == "null":
            raise UsageError(f"{parameters.path}: line 6: null, but fp_items on line 55 has {item}")
        cards = len(chosen.numbers.split(","))
        run = f"{parameters.value(2)}_bs{batch}_{item}_DP_N1C{cards}"
        save, log = output / run, output / f"{run}.log"
        words = train_words(parameters, chosen, TRAINERS[name], save, epochs, batch)
        if parameters.value(58):
            words += ["-o", f"DATA.NUM_WORKERS={parameters.value(58)}"]
        yield Step(
            f"train {run}",
            words,
            log,
            skip=missing.get("train", "") or why_not_train(*chosen),
            left_undone=trained(ROOT / save, parameters.value(11), int(epochs)),
            variables=chosen.variables | dict(flag.split("=", 1) for flag in flags.split(";") if flag),
        )
        words = [parameters.value(3), TIPC, "speed", f"--log={log}", f"--output={output}/{run}_speed.json"]
        words += [f"--model-name={parameters.value(2)}", f"--batch-size={batch}", f"--fp-item={item}"]
        words += [f"--device-num=N1C{cards}"]
        yield Step(f"speed {run}", words, output / f"{run}_speed.txt", needs=(f"train {run}",), proves=True)
