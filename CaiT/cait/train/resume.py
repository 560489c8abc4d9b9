"""Decides where a run starts: from fresh or given weights, or where it stopped; never in another run's folder."""

import pathlib
from typing import Any

import paddle
from yacs.config import CfgNode

from cait.config.read import read_yaml
from cait.config.saved import changes_since
from cait.data.build import Loaders
from cait.distributed import collectives
from cait.errors import UsageError
from cait.model import CaiT
from cait.records.metrics import read_metrics
from cait.run_folder import CONFIG, CURVES, LATEST, METRICS, run_folder
from cait.train.checkpoint import load_checkpoint
from cait.train.ema import ModelEma
from cait.train.job_folder import log_name
from cait.weights.checkpoints import begins_again, check_can_resume, find_states, newest_whole, own_checkpoint_files
from cait.weights.find import STATES, WEIGHTS
from cait.weights.load import load_weights


def check_is_free(config: CfgNode) -> None:
    """No run is ever written over another one, nor over what it did after the checkpoint it is resumed from.

    The exception is a run that was started with ON_USED_FOLDER=replace: another such run may take its place.

    Raises:
        UsageError: OUTPUT_DIR holds another run.
        CaitError: see `check_can_resume`.
    """
    folder = pathlib.Path(config.OUTPUT_DIR)
    if config.TRAIN.RESUME:
        check_can_resume(config.TRAIN.RESUME)
    if not config.OUTPUT_DIR or not any(any(folder.glob(name)) for name in (f"*{STATES}", f"*{WEIGHTS}", METRICS)):
        return
    if config.TRAIN.RESUME and _goes_on_in(folder, config.TRAIN.RESUME):
        return
    if _replaces(config):
        if _is_replaceable(folder):
            return
        raise UsageError(
            f"{folder}: holds a run that was not started with ON_USED_FOLDER=replace, so it is not replaced; "
            "remove the folder, or give a new -output_dir"
        )
    raise UsageError(f"{folder}: holds a run; give a new -output_dir, or go on with it by -resume={folder}")


def _goes_on_in(folder: pathlib.Path, resume: str) -> bool:
    """Whether a checkpoint is the end of the run in a folder: `latest`, or the newest one where that is damaged."""
    stem, states = find_states(resume)
    if stem.parent.resolve() != folder.resolve():
        return False
    if stem.name == LATEST:
        return states.is_file() or begins_again(resume)
    newest = newest_whole(folder)
    if newest is None or newest.name == LATEST or not states.is_file():
        return False
    return states.samefile(f"{newest}{STATES}")


def remove_replaced(config: CfgNode, folder: pathlib.Path) -> None:
    """Removes what the run left that this one replaces: checkpoints, numbers, curves and log, but nothing else.

    Process 0 does so, once every process has called `check_is_free`.
    """
    if collectives.rank() > 0 or not _replaces(config) or not _is_replaceable(folder):
        return
    others = [folder / name for name in (METRICS, CURVES, log_name(config, "train"))]
    for path in (*own_checkpoint_files(folder), *others):
        path.unlink(missing_ok=True)


def _replaces(config: CfgNode) -> bool:
    return config.ON_USED_FOLDER == "replace" and not config.TRAIN.RESUME


def _is_replaceable(folder: pathlib.Path) -> bool:
    """Whether the run in a folder was started with ON_USED_FOLDER=replace."""
    saved = folder / CONFIG
    return saved.is_file() and read_yaml(saved).get("ON_USED_FOLDER") == "replace"


def batch_plan(config: CfgNode, loaders: Loaders) -> dict[str, Any]:
    """Returns the values that decide which images make which step: an epoch can only continue with the same ones."""
    return {
        "DATA.BATCH_SIZE": config.DATA.BATCH_SIZE,
        "TRAIN.ACCUM_ITER": config.TRAIN.ACCUM_ITER,
        "AUG.REPEATED_AUG": config.AUG.REPEATED_AUG,
        "SEED": config.SEED,
        "number of training images": len(loaders.to_train().dataset),
        "number of processes": collectives.world_size(),
    }


def starting_point(
    config: CfgNode,
    plan: dict[str, Any],
    model: CaiT,
    optimizer: paddle.optimizer.Optimizer,
    ema: ModelEma | None,
    is_other_head: bool,
) -> tuple[dict[str, Any], list[dict], str]:
    """Puts what is trained where training starts.

    Args:
        plan: `batch_plan` of this run.
        is_other_head: see `Classes`.

    Returns:
        Progress, metrics of the epochs done, and words for the log.

    Raises:
        CaitError: the checkpoint is missing, damaged, of another model, or was saved within an epoch of another plan.
    """
    best = {"best_acc1": -1.0, "best_epoch": 0}
    if ema is not None:
        best |= {"best_ema_acc1": -1.0, "best_ema_epoch": 0}
    progress = {"epoch": 0, "step": 0} | best
    resume = config.TRAIN.RESUME
    if not resume or begins_again(resume):
        words = "random weights"
        if config.MODEL.PRETRAINED:
            words = "; ".join(load_weights(model, config.MODEL.PRETRAINED, config.MODEL.RESET_HEAD, is_other_head))
        if ema is not None:
            ema.restart()
        return progress, [], words
    notes: list[str] = []
    saved = load_checkpoint(model, optimizer, resume, ema, notes.append)
    if saved is None:
        if config.TRAIN.LAST_EPOCH is None:
            raise UsageError(
                f"{resume}: holds weights without a training state; -last_epoch=N says how many epochs they had, "
                "or -pretrained starts a new run from them"
            )
        return progress | {"epoch": config.TRAIN.LAST_EPOCH}, [], "; ".join([f"the weights {resume}", *notes])
    words = f"{resume}, epoch {saved['epoch']}, step {saved['step']}"
    if "in_epoch" in saved:
        _check_plan(resume, saved, plan)
        words += f", within epoch {saved['epoch'] + 1}"
    config_before = run_folder(resume) / CONFIG
    changes = changes_since(config, config_before) if config_before.is_file() else []
    words += f"; changed since its last start: {'; '.join(changes)}" if changes else ""
    if ema is not None and "best_ema_acc1" not in saved:
        words += "; it holds no average of the weights: that starts from these weights"
    metrics = run_folder(resume) / METRICS
    rows = [row for row in read_metrics(metrics) if row["epoch"] <= saved["epoch"]] if metrics.is_file() else []
    if not config.OUTPUT_DIR or run_folder(resume).resolve() != pathlib.Path(config.OUTPUT_DIR).resolve():
        saved |= best  # the best model so far stays in the other folder
    return best | saved, rows, words


def _check_plan(resume: str, saved: dict[str, Any], plan: dict[str, Any]) -> None:
    for name, value in saved["in_epoch"]["plan"].items():
        if plan.get(name) != value:
            raise UsageError(
                f"{resume}: was saved within epoch {saved['epoch'] + 1}, which can only go on with {name} {value}, not "
                f"{plan.get(name)}; leave it, or resume from a checkpoint of a whole epoch"
            )
