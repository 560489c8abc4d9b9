"""The training job: a config becomes objects, their epochs run, and checkpoints and numbers are kept."""

import logging
import math
import pathlib
from typing import Any

from yacs.config import CfgNode

from cait.data.build import Loaders, build_loaders
from cait.data.check import before_training
from cait.distributed import collectives
from cait.errors import CaitError
from cait.model import CaiT
from cait.records.monitor import StepProfiler, check_profiler, check_visualdl, layer_scale, write_scalars
from cait.run_folder import BEST, BEST_EMA, LATEST, epoch_name
from cait.train.ema import ModelEma
from cait.train.evaluation import Classifier, evaluate
from cait.train.job_folder import held_folder, open_job
from cait.train.loop import EpochPlan, train_one_epoch
from cait.train.mixed_precision import build_precision
from cait.train.optim import build_optimizer, freeze
from cait.train.recipe import build_mix_and_criterion, check_recipe, epoch_learning_rate
from cait.train.resume import batch_plan, check_is_free, remove_replaced, starting_point
from cait.train.run import Run
from cait.train.schedule import learning_rate_text, scaled_learning_rate
from cait.train.step import TrainStep
from cait.weights.checkpoints import begin
from cait.zoo import prepare_model


def train(config: CfgNode) -> None:
    """Trains, validates and saves; log in `log_train.txt`, a line of numbers an epoch in `metrics.jsonl`.

    Checkpoints: `latest` after every epoch and every SAVE_STEPS steps, `best_model` with the best validation accuracy
    at 1, `epoch_N` every SAVE_FREQ epochs; with an average of the weights also `best_model_ema` and `epoch_N_ema`.

    Raises:
        CaitError: the output folder holds another run, or data or a checkpoint is wrong.
    """
    check_recipe(config)
    if config.VISUALDL:
        check_visualdl()
    if config.PROFILE_STEPS:
        check_profiler()
    with held_folder(config, "train") as (folder, note):
        check_is_free(config)
        _train_in(folder, note, config)


def _train_in(folder: pathlib.Path, note: str, config: CfgNode) -> None:
    """Trains in a folder that `held_folder` gave with this note."""
    profiler = StepProfiler(folder, config.PROFILE_STEPS)
    run, origin = _prepare(folder, note, config, profiler)
    base_lr = _log_head(run, origin)
    for epoch in range(run.progress["epoch"] + 1, config.TRAIN.NUM_EPOCHS + 1):
        _train_epoch(run, epoch, epoch_learning_rate(config, epoch, base_lr))
    profiler.stop()
    run.draw()


def _prepare(folder: pathlib.Path, note: str, config: CfgNode, profiler: StepProfiler) -> tuple[Run, str]:
    """Everything that is trained, put where training starts, and words on where that is."""
    loaders = build_loaders(config)
    precision, evaluation_precision = build_precision(config), build_precision(config, evaluation=True)
    mix, criterion = build_mix_and_criterion(config, loaders.classes)
    plan = batch_plan(config, loaders)
    model, normalize = prepare_model(config)
    model.save_memory(config.TRAIN.RECOMPUTE, config.TRAIN.QUERY_CHUNK)
    freeze(model, config.TRAIN.FREEZE)
    optimizer = build_optimizer(config, model)
    ema = None if config.TRAIN.EMA_DECAY is None else ModelEma(model, config.TRAIN.EMA_DECAY)
    progress, rows, origin = starting_point(config, plan, model, optimizer, ema, loaders.classes.is_other_head)
    _start_equal(config, progress, model, ema)
    remove_replaced(config, folder)
    log = open_job(config, folder, "train", note, loaders.classes.record())
    if collectives.rank() == 0:
        begin(folder)
    loaders.log_notes(log)
    _look_at_images(config, loaders, log)
    precision.load(progress.pop("loss_scale", {}))

    def after_step() -> None:
        if ema is not None:
            ema.update()
        profiler.step()

    options = {"grad_clip": config.TRAIN.GRAD_CLIP, "seed": config.SEED, "after_step": after_step}
    step = TrainStep(model, normalize, criterion, optimizer, mix, precision, **options)
    evaluated = Classifier(model, normalize, evaluation_precision)
    return Run(config, loaders, step, ema, evaluated, plan, progress, rows, folder, log), origin


def _train_epoch(run: Run, epoch: int, rate: float) -> None:
    """Trains an epoch at this learning rate, and does what follows it."""
    config, train, num_epochs = run.config, run.loaders.to_train(), run.config.TRAIN.NUM_EPOCHS
    run.step.optimizer.set_lr(rate)
    run.log.info("Now training epoch %d. LR=%s", epoch, learning_rate_text(rate))
    plan = EpochPlan(epoch, num_epochs, config.TRAIN.ACCUM_ITER, config.REPORT_FREQ, config.SAVE_STEPS)
    result = train_one_epoch(run.step, train, run.log, plan, run.taken_up(), run.save_in_epoch)
    head = f"----- {plan.head}"
    run.log.info(f"{head}, Train Loss: {result.loss:.4f}, Train Acc: {result.acc1:.4f}, time: {result.seconds:.2f}")
    skipped = [words for errors in collectives.gather(train.errors) for words in errors]
    if skipped:
        run.log.warning("%d images left out, the first: %s", len(skipped), skipped[0])
    run.progress |= {"epoch": epoch, "step": run.progress["step"] + result.num_steps}
    row = {"epoch": epoch, "step": run.progress["step"], "lr": rate, "train_loss": result.loss}
    row |= {"train_acc1": result.acc1, "ips": result.images_per_second, "skipped_images": len(skipped)}
    row |= {"grad_norm": result.grad_norm, **layer_scale(run.model)}
    _validate_and_save(run, row, head)


def _look_at_images(config: CfgNode, loaders: Loaders, log: logging.Logger) -> None:
    sets = {"validation": loaders.val, "training": loaders.train}
    strict = {}
    if config.EVALUATE.ON_BAD_IMAGE == "error":
        strict["validation"] = "EVALUATE.ON_BAD_IMAGE=wrong counts those of validation as wrong"
    if config.DATA.ON_BAD_IMAGE == "error":
        strict["training"] = "DATA.ON_BAD_IMAGE=skip leaves those of training out"
    found = {name: loader.dataset for name, loader in sets.items() if loader is not None}
    before_training(found, config.DATA.CHECK_SECONDS, strict, log)


def _validate_and_save(run: Run, row: dict[str, Any], head: str) -> None:
    """What follows an epoch, as far as it is due."""
    config = run.config
    epoch, last = row["epoch"], config.TRAIN.NUM_EPOCHS
    names, ema_names = [LATEST], []
    if _is_due(epoch, config.VALIDATE_FREQ, last):
        try:
            row |= _validate(run, head)
        except CaitError:  # an image that cannot be read shall not cost the epoch
            run.keep(row, names)
            raise
        names += [BEST] if run.progress["best_epoch"] == epoch else []
        ema_names += [BEST_EMA] if run.ema is not None and run.progress["best_ema_epoch"] == epoch else []
    if _is_due(epoch, config.SAVE_FREQ, last):
        names.append(epoch_name(epoch))
        ema_names += [epoch_name(epoch, True)] if run.ema is not None else []
    run.keep(row, names, ema_names)
    if config.VISUALDL and collectives.rank() == 0:
        write_scalars(run.folder / "visualdl", row)
    run.log.info("saved %s in %s", ", ".join(names + ema_names), run.folder)


def _log_head(run: Run, origin: str) -> float:
    """The first lines of the log; the peak learning rate, which is one of them."""
    config = run.config
    num_params = sum(parameter.size for parameter in run.model.parameters())
    trained = sum(parameter.size for parameter in run.model.parameters() if not parameter.stop_gradient)
    words = f"{num_params} parameters" + (f" ({trained} of them trained)" if trained != num_params else "")
    run.log.info("%d training images, %s, starting from %s", len(run.loaders.to_train().dataset), words, origin)
    factors = config.DATA.BATCH_SIZE, config.TRAIN.ACCUM_ITER, collectives.world_size()
    images_per_step, reference = math.prod(factors), config.TRAIN.LINEAR_SCALED_LR
    base_lr = scaled_learning_rate(config.TRAIN.BASE_LR, images_per_step, reference)
    scaling = f"TRAIN.BASE_LR {config.TRAIN.BASE_LR:.6g}" + (f" / {reference} * {images_per_step}" if reference else "")
    words = "batches of {}, {} for a step, in {} processes".format(*factors)
    run.log.info("%d images a step (%s), peak learning rate %.6g (%s)", images_per_step, words, base_lr, scaling)
    if config.TRAIN.WARMUP_EPOCHS >= config.TRAIN.NUM_EPOCHS:
        highest = learning_rate_text(epoch_learning_rate(config, config.TRAIN.NUM_EPOCHS, base_lr))
        words = "warning: the run of %d epochs ends within TRAIN.WARMUP_EPOCHS %d: its learning rate rises to %s alone"
        run.log.warning(words, config.TRAIN.NUM_EPOCHS, config.TRAIN.WARMUP_EPOCHS, highest)
    scale = dict(zip(("images a batch", "batches for a step", "processes"), factors))
    scale |= {"images a step": images_per_step, "peak learning rate": base_lr}
    before = run.progress.get("scale", scale)
    changes = [f"{name} {value:.6g}, not {before[name]:.6g}" for name, value in scale.items() if value != before[name]]
    if changes:
        run.log.info("other than before the checkpoint: %s", "; ".join(changes))
    run.progress["scale"] = scale
    if run.progress["epoch"] >= config.TRAIN.NUM_EPOCHS:
        run.log.info("nothing to train: %d of %d epochs are done", run.progress["epoch"], config.TRAIN.NUM_EPOCHS)
    return base_lr


def _start_equal(config: CfgNode, progress: dict[str, Any], model: CaiT, ema: ModelEma | None) -> None:
    """All processes begin with the weights of process 0, and say so if they read different files."""
    number = {"NUM_EPOCHS": config.TRAIN.NUM_EPOCHS, "MODEL": str(config.MODEL), "AUG": str(config.AUG)}
    collectives.check_same(number | {"epoch": progress["epoch"], "step": progress["step"]})
    collectives.broadcast(model.state_dict().values())
    collectives.broadcast(ema.averages.values() if ema is not None else ())


def _validate(run: Run, head: str) -> dict[str, float]:
    """Evaluates the weights, and their average where there is one; the columns for the metrics."""
    bad_is_wrong = run.config.EVALUATE.ON_BAD_IMAGE == "wrong"
    options = {"report_freq": run.config.REPORT_FREQ, "bad_is_wrong": bad_is_wrong}
    val = evaluate(run.evaluated, run.loaders.to_evaluate(), run.log, **options)
    run.log.info("%s, %s", head, val.words())
    row = {"val_loss": val.loss, "val_acc1": val.acc1, "val_acc5": val.acc5, "val_unreadable": val.num_unreadable}
    ema = None
    if run.ema is not None:
        with run.ema.applied():
            ema = evaluate(run.evaluated, run.loaders.to_evaluate(), run.log, head="EMA", **options)
        run.log.info("%s, %s", head, ema.words("EMA"))
        row |= {"val_ema_loss": ema.loss, "val_ema_acc1": ema.acc1, "val_ema_acc5": ema.acc5}
    epoch, progress = run.progress["epoch"], run.progress
    if val.acc1 > progress["best_acc1"]:
        progress |= {"best_acc1": val.acc1, "best_epoch": epoch}
    if ema is not None and ema.acc1 > progress["best_ema_acc1"]:
        progress |= {"best_ema_acc1": ema.acc1, "best_ema_epoch": epoch}
    return row


def _is_due(epoch: int, every: int, last: int) -> bool:
    return every > 0 and (epoch % every == 0 or epoch == last)
