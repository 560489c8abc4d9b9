"""The steps of a mode, in their order."""

import itertools
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from cait.errors import UsageError
from harness import ROOT, TIPC
from harness.commands import eval_words, export_words, inference_commands, pred_words, train_words
from harness.data import data_folder, missing_for
from harness.devices import why_not_train
from harness.parameters import EXPORT_OF, TRAINERS, Parameters
from harness.rows import Row, rows
from harness.steps import ChainStep, evaluated, exported, inferred, predicted, trained

PUBLISHED_TOP1 = {"cait_xxs24_224": 0.7840}  # of the official weights on the validation set (timm's results)


def plan(parameters: Parameters, mode: str, output: pathlib.Path, benchmark: str = "") -> list[ChainStep]:
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
    steps: list[ChainStep] = []
    for row, name in itertools.product(rows(parameters), names):
        steps += _chain_steps(parameters, mode, output, missing, row, name)
    return steps


class _Run(NamedTuple):
    """Weights that are exported and inferred with.

    Attributes:
        name: of its files.
        save: folder of the bundle.
        weights: without suffix.
        device: for the model's own predictions.
        export: the command.
        images: to infer on.
        needs: the steps that make the weights and their accuracy; none if they are there.
        expected: words that say which accuracy inference must have; none if that is not known.
        start: weights that training started from.
        variables: of the environment.
    """

    name: str
    save: pathlib.Path
    weights: str
    device: str
    export: list[str]
    images: str
    needs: tuple[str, ...]
    expected: list[str]
    start: str
    variables: dict[str, str]


def _chain_steps(
    parameters: Parameters, mode: str, output: pathlib.Path, missing: dict[str, str], row: Row, trainer: str
) -> Iterator[ChainStep]:
    """Training and evaluation of one row, and all that follows."""
    name = f"{trainer}_gpus_{row.numbers}_autocast_{row.autocast}"
    save, line, checkpoint = output / name, TRAINERS[trainer], parameters.value(11)
    epochs, batch = parameters.value(7, mode), parameters.value(9, mode)
    weights, eval_log = f"{save}/{checkpoint}", output / f"{name}_eval.log"
    train, evaluate = f"train {name}", f"evaluate {name}"
    yield ChainStep(
        train,
        train_words(parameters, row, line, save, epochs, batch),
        output / f"{name}.log",
        skip=missing.get("train", "") or why_not_train(row),
        left_undone=trained(ROOT / save, checkpoint, int(epochs)),
        variables=row.variables,
    )
    yield ChainStep(
        evaluate,
        eval_words(parameters, row.device, weights),
        eval_log,
        needs=(train,),
        left_undone=evaluated(ROOT / eval_log),
        variables=row.variables,
    )
    same_images = mode != "lite_train_whole_infer"
    run = _Run(
        name,
        save,
        weights,
        row.device,
        export_words(parameters, EXPORT_OF[line], weights, save),
        parameters.value(12),
        needs=(train, evaluate),
        expected=[f"--evaluation={eval_log}"] if same_images else [],
        start=parameters.value(10),
        variables=row.variables,
    )
    yield from _inference_steps(parameters, output, run, missing)


def _released_steps(parameters: Parameters, output: pathlib.Path, missing: dict[str, str]) -> Iterator[ChainStep]:
    """Export of the published weights, and all that follows."""
    weights, save = parameters.value(37), output / "infer_model"
    if not weights or not parameters.words(38):
        raise UsageError(f"{parameters.path}: line {37 if not weights else 38}: null, but whole_infer needs it")
    top1 = PUBLISHED_TOP1.get(pathlib.Path(weights).name)
    run = _Run(
        "infer_model",
        save,
        weights,
        parameters.values(5)[0],
        export_words(parameters, 38, weights, save),
        parameters.value(48),
        needs=(),
        expected=[f"--expected={top1}"] if top1 else [],
        start="",
        variables={},
    )
    yield from _inference_steps(parameters, output, run, missing)


def _inference_steps(
    parameters: Parameters, output: pathlib.Path, run: _Run, missing: dict[str, str]
) -> Iterator[ChainStep]:
    """Export, the proof of the bundle's origin, the model's own predictions, and every configuration of inference."""
    python, absent = parameters.value(3), missing.get("infer", "")
    bundle = run.save / parameters.value(36) if parameters.value(36) else run.save  # that inference reads
    pred = run.save / "pred"
    table = pred / "predictions.csv"
    export, verify, predict = f"export {run.name}", f"verify {run.name}", f"predict {run.name}"
    yield ChainStep(
        export,
        run.export,
        output / f"{run.name}_export.log",
        needs=run.needs[:1],
        skip="" if run.needs else absent,
        left_undone=exported(ROOT / run.save),
    )
    words = [python, TIPC, "verify", f"--bundle={bundle}", f"--weights={run.weights}.pdparams"]
    words += [f"--start={run.start}.pdparams"] if run.start else []
    yield ChainStep(verify, words, output / f"{run.name}_verify.log", needs=(export,))
    yield ChainStep(
        predict,
        pred_words(parameters, run.device, run.weights, pred),
        output / f"{run.name}_pred.log",
        needs=run.needs[:1],
        skip=absent,
        left_undone=predicted(ROOT / table),
        variables=run.variables,
    )
    is_only_run = not run.needs or len(list(rows(parameters))) * len(parameters.values(15)) == 1
    folder = output if is_only_run else output / f"{run.name}_infer"  # logs have the names that parsers look for
    expected = run.expected
    for name, words, reason, precision in inference_commands(parameters, bundle, run.images):
        log, label = folder / f"{name}.log", name if is_only_run else f"{run.name} {name}"
        infer = f"infer {label}"
        parsed = inferred(ROOT / log, parameters.value(50) == "True")
        yield ChainStep(infer, words, log, needs=(verify,), skip=absent or reason, left_undone=parsed)
        words = [python, TIPC, "compare", f"--table={table}", f"--log={log}", f"--precision={precision}"]
        result = folder / f"{name}_compare.txt"
        yield ChainStep(f"compare {label}", words, result, needs=(infer, predict), proves=True)
        if expected and not reason:  # once: that the others answer the same is compared
            labels = data_folder(parameters) / "test_list.txt"
            words = [python, TIPC, "accuracy", f"--log={log}", f"--labels={labels}", f"--folder={labels.parent}"]
            result, skip = folder / f"{name}_accuracy.txt", missing.get("accuracy", "")
            yield ChainStep(f"accuracy {label}", words + expected, result, needs=(infer, *run.needs[1:]), skip=skip)
            expected = []


def _speed_steps(
    parameters: Parameters, output: pathlib.Path, missing: dict[str, str], wanted: str
) -> Iterator[ChainStep]:
    if not parameters.has_benchmark:
        raise UsageError(f"{parameters.path}: line 52: missing; benchmark_train needs lines 52 to 60")
    epochs, flags, name = parameters.value(56), parameters.value(58), parameters.value(59)
    row = next(rows(parameters))
    combinations = list(itertools.product(parameters.values(54), parameters.values(55)))
    if wanted:
        match = re.fullmatch(r"(?:dynamic_)?bs(\d+)_(fp32|fp16)_DP_N1C(\d+)", wanted)
        if match is None:
            raise UsageError(f"{wanted}: must be of the form dynamic_bs8_fp32_DP_N1C1 (one machine)")
        combinations = [(match[1], match[2])]
        if int(match[3]) > 1:
            row = row._replace(gpus=",".join(map(str, range(int(match[3])))), device="gpu")
    for batch, item in combinations:
        chosen = row._replace(autocast="null" if item == "fp32" else "True")
        cards = len(chosen.numbers.split(","))
        run = f"{parameters.value(2)}_bs{batch}_{item}_DP_N1C{cards}"
        save, log = output / run, output / f"{run}.log"
        words = train_words(parameters, chosen, TRAINERS[name], save, epochs, batch)
        if parameters.value(60):
            words += ["-o", f"DATA.NUM_WORKERS={parameters.value(60)}"]
        yield ChainStep(
            f"train {run}",
            words,
            log,
            skip=missing.get("train", "") or why_not_train(chosen),
            left_undone=trained(ROOT / save, parameters.value(11), int(epochs)),
            variables=chosen.variables | dict(flag.split("=", 1) for flag in flags.split(";") if flag),
        )
        words = [parameters.value(3), TIPC, "speed", f"--log={log}", f"--output={output}/{run}_speed.json"]
        words += [f"--model-name={parameters.value(2)}", f"--batch-size={batch}", f"--fp-item={item}"]
        words += [f"--device-num=N1C{cards}"]
        result, train = output / f"{run}_speed.txt", f"train {run}"
        yield ChainStep(f"speed {run}", words, result, needs=(train,), proves=True, timing_of=train)
