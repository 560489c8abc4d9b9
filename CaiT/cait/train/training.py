"""The training job: a config becomes objects, the engine runs its epochs, and checkpoints and numbers are kept."""

import dataclasses
import logging
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import paddle
from yacs.config import CfgNode

from cait.data.build import Loaders, build_loaders
from cait.data.check import before_training
from cait.data.class_names import Classes, compare_with_teacher
from cait.data.normalize import Normalize
from cait.distributed import collectives
from cait.errors import CaitError, UsageError
from cait.model import CaiT
from cait.precision import Precision, build_precision
from cait.records.metrics import plot_learning_curves, write_metrics
from cait.records.monitor import StepProfiler, check_profiler, check_visualdl, layer_scale, write_scalars
from cait.train import loop
from cait.train.ema import ModelEma
from cait.train.evaluation import evaluate
from cait.train.losses import distillation, label_smoothing_cross_entropy, soft_target_cross_entropy
from cait.train.mixup import Mixup, plain_labels
from cait.train.optim import build_optimizer, freeze, learning_rate, learning_rate_text, scaled_learning_rate
from cait.train.resume import CURVES, batch_plan, check_is_free, remove_replaced, starting_point
from cait.train.start import held_folder, open_job, prepare_model
from cait.train.teacher import build_teacher, build_teacher_names, with_teacher
from cait.weights.files import BEST, LATEST, METRICS, begin, has_begun
from cait.weights.load import save_checkpoint

BEST_EMA = f"{BEST}_ema"


@dataclasses.dataclass
class _Run:
    """What a run works with: the data, what training changes, and where that is saved.

    `evaluation` is the precision of evaluations. `progress` holds plain values: epochs and steps done, the best
    accuracies, `scale`, which is what a step was, and `in_epoch` in a checkpoint that was saved within one.
    """

    config: CfgNode
    loaders: Loaders
    normalize: Normalize
    model: CaiT
    optimizer: paddle.optimizer.Optimizer
    ema: ModelEma | None
    precision: Precision
    evaluation: Precision
    progress: dict[str, Any]
    rows: list[dict]
    folder: pathlib.Path
    log: logging.Logger

    def save(self, names: list[str], ema_names: Sequence[str] = (), **more: Any) -> None:
        """Saves under these names, with `more` beside the progress; process 0 writes, and all wait for it."""
        if collectives.rank() == 0:
            progress = self.progress | {"loss_scale": self.precision.state(), "classes": self.loaders.classes.record()}
            progress |= more
            save_checkpoint(self.folder, names, self.model, self.optimizer, progress, self.ema, ema_names)
            has_begun(self.folder)
        collectives.wait_for_all()


def train(config: CfgNode) -> None:
    """Trains, validates and saves; log in `log_train.txt`, a line of numbers an epoch in `metrics.jsonl`.

    Checkpoints: `latest` after every epoch and every SAVE_STEPS steps, `best_model` with the best validation accuracy
    at 1, `epoch_N` every SAVE_FREQ epochs; with an average of the weights also `best_model_ema` and `epoch_N_ema`.

    Raises:
        CaitError: the output folder holds another run, or data or a checkpoint is wrong.
    """
    _check_recipe(config)
    if config.VISUALDL:
        check_visualdl()
    if config.PROFILE_STEPS:
        check_profiler()
    with held_folder(config, "train") as (folder, note):
        check_is_free(config)
        _train_in(folder, note, config)


def _train_in(folder: pathlib.Path, note: str, config: CfgNode) -> None:
    """Trains in a folder that `held_folder` gave with this note."""
    loaders = build_loaders(config)
    precision, mix, criterion = build_precision(config), *_mix_and_criterion(config, loaders.classes)
    evaluation = build_precision(config, evaluation=True)
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
    run = _Run(config, loaders, normalize, model, optimizer, ema, precision, evaluation, progress, rows, folder, log)
    base_lr = _log_head(run, origin)
    profiler = StepProfiler(folder, config.PROFILE_STEPS)

    def after_step() -> None:
        if ema is not None:
            ema.update()
        profiler.step()

    steps = {"mix": mix, "after_step": after_step, "save": _saver_in_epoch(run, plan)}
    for epoch in range(progress["epoch"] + 1, config.TRAIN.NUM_EPOCHS + 1):
        _train_epoch(run, epoch, _epoch_learning_rate(config, epoch, base_lr), criterion, **steps)
    profiler.stop()
    if collectives.rank() == 0:
        _draw(run)


def _train_epoch(run: _Run, epoch: int, rate: float, criterion: Callable, **steps: Callable) -> None:
    """Trains an epoch at this learning rate, and does what follows it; `steps` are arguments of the engine."""
    config, train, num_epochs = run.config, run.loaders.train, run.config.TRAIN.NUM_EPOCHS
    run.optimizer.set_lr(rate)
    run.log.info("Now training epoch %d. LR=%s", epoch, learning_rate_text(rate))
    start = run.progress.pop("in_epoch", {}).get("states", [()] * collectives.world_size())[collectives.rank()]
    start = loop.EpochState(*start)
    run.progress["step"] -= start.num_steps  # to be counted with those of the whole epoch
    result = loop.train_one_epoch(
        run.model,
        train,
        run.normalize,
        criterion,
        run.optimizer,
        run.log,
        epoch=epoch,
        num_epochs=num_epochs,
        accum_iter=config.TRAIN.ACCUM_ITER,
        grad_clip=config.TRAIN.GRAD_CLIP,
        report_freq=config.REPORT_FREQ,
        seed=config.SEED,
        start=start,
        save_steps=config.SAVE_STEPS,
        precision=run.precision,
        **steps,
    )
    head = f"----- Epoch[{epoch:03d}/{num_epochs:03d}]"
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


def _draw(run: _Run) -> None:
    try:
        plot_learning_curves({run.folder.name: run.rows}, run.folder / CURVES, run.folder.name)
    except CaitError as error:  # the picture is an extra
        run.log.info("no %s: %s", CURVES, error)


def _validate_and_save(run: _Run, row: dict[str, Any], head: str) -> None:
    """What follows an epoch, as far as it is due."""
    config = run.config
    epoch, last = row["epoch"], config.TRAIN.NUM_EPOCHS
    names, ema_names = [LATEST], []
    if _is_due(epoch, config.VALIDATE_FREQ, last):
        try:
            row |= _validate(run, head)
        except CaitError:  # an image that cannot be read shall not cost the epoch
            _keep(run, row, names)
            raise
        names += [BEST] if run.progress["best_epoch"] == epoch else []
        ema_names += [BEST_EMA] if run.ema is not None and run.progress["best_ema_epoch"] == epoch else []
    if _is_due(epoch, config.SAVE_FREQ, last):
        names.append(f"epoch_{epoch}")
        ema_names += [f"epoch_{epoch}_ema"] if run.ema is not None else []
    _keep(run, row, names, ema_names)
    if config.VISUALDL and collectives.rank() == 0:
        write_scalars(run.folder / "visualdl", row)
    run.log.info("saved %s in %s", ", ".join(names + ema_names), run.folder)


def _keep(run: _Run, row: dict[str, Any], names: list[str], ema_names: Sequence[str] = ()) -> None:
    run.rows.append(row)
    if collectives.rank() == 0:
        write_metrics(run.folder / METRICS, run.rows)  # before the checkpoint: resuming drops rows, but makes none up
    run.save(names, ema_names)


def _log_head(run: _Run, origin: str) -> float:
    """The first lines of the log; the peak learning rate, which is one of them."""
    config = run.config
    num_params = sum(parameter.size for parameter in run.model.parameters())
    trained = sum(parameter.size for parameter in run.model.parameters() if not parameter.stop_gradient)
    words = f"{num_params} parameters" + (f" ({trained} of them trained)" if trained != num_params else "")
    run.log.info("%d training images, %s, starting from %s", len(run.loaders.train.dataset), words, origin)
    factors = config.DATA.BATCH_SIZE, config.TRAIN.ACCUM_ITER, collectives.world_size()
    images_per_step, reference = math.prod(factors), config.TRAIN.LINEAR_SCALED_LR
    base_lr = scaled_learning_rate(config.TRAIN.BASE_LR, images_per_step, reference)
    scaling = f"TRAIN.BASE_LR {config.TRAIN.BASE_LR:.6g}" + (f" / {reference} * {images_per_step}" if reference else "")
    words = "batches of {}, {} for a step, in {} processes".format(*factors)
    run.log.info("%d images a step (%s), peak learning rate %.6g (%s)", images_per_step, words, base_lr, scaling)
    if config.TRAIN.WARMUP_EPOCHS >= config.TRAIN.NUM_EPOCHS:
        highest = learning_rate_text(_epoch_learning_rate(config, config.TRAIN.NUM_EPOCHS, base_lr))
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


def _mix_and_criterion(config: CfgNode, classes: Classes) -> tuple[Callable, Callable]:
    """What becomes of a batch, and the loss of what it gives."""
    aug, distill, smoothing = config.AUG, config.DISTILL, config.TRAIN.SMOOTHING
    mix, criterion = plain_labels, label_smoothing_cross_entropy(smoothing)
    if aug.MIXUP or aug.CUTMIX:
        mix = Mixup(config.MODEL.NUM_CLASSES, aug.MIXUP, aug.CUTMIX, aug.MIX_PROB, aug.SWITCH_PROB, smoothing)
        criterion = soft_target_cross_entropy
    if distill.TYPE != "none":
        mix = with_teacher(mix, build_teacher(config))
        if names := build_teacher_names(config):
            compare_with_teacher(classes, config.DISTILL.TEACHER, names)
        criterion = distillation(criterion, distill.TYPE, distill.ALPHA, distill.TAU)
    return mix, criterion


def _saver_in_epoch(run: _Run, plan: dict[str, Any]) -> Callable[[loop.EpochState], None]:
    """Saves `latest` within an epoch."""

    def save(state: loop.EpochState) -> None:
        step = run.progress["step"] + state.num_steps
        run.save([LATEST], step=step, in_epoch={"states": collectives.gather(tuple(state)), "plan": plan})

    return save


def _validate(run: _Run, head: str) -> dict[str, float]:
    """Evaluates the weights, and their average where there is one; the columns for the metrics."""
    options = {"report_freq": run.config.REPORT_FREQ, "precision": run.evaluation}
    options["bad_is_wrong"] = run.config.EVALUATE.ON_BAD_IMAGE == "wrong"
    val = evaluate(run.model, run.loaders.val, run.normalize, run.log, **options)
    run.log.info("%s, %s", head, val.words())
    row = {"val_loss": val.loss, "val_acc1": val.acc1, "val_acc5": val.acc5, "val_unreadable": val.num_unreadable}
    ema = None
    if run.ema is not None:
        with run.ema.applied():
            ema = evaluate(run.model, run.loaders.val, run.normalize, run.log, head="EMA", **options)
        run.log.info("%s, %s", head, ema.words("EMA"))
        row |= {"val_ema_loss": ema.loss, "val_ema_acc1": ema.acc1, "val_ema_acc5": ema.acc5}
    epoch, progress = run.progress["epoch"], run.progress
    if val.acc1 > progress["best_acc1"]:
        progress |= {"best_acc1": val.acc1, "best_epoch": epoch}
    if ema is not None and ema.acc1 > progress["best_ema_acc1"]:
        progress |= {"best_ema_acc1": ema.acc1, "best_ema_epoch": epoch}
    return row


def _check_recipe(config: CfgNode) -> None:
    if config.TRAIN.FREEZE != "none" and not config.MODEL.PRETRAINED and not config.TRAIN.RESUME:
        raise UsageError(f"TRAIN.FREEZE={config.TRAIN.FREEZE} would freeze random weights; it needs -pretrained")
    if (config.AUG.MIXUP or config.AUG.CUTMIX) and config.DATA.BATCH_SIZE == 1:
        raise UsageError("AUG.MIXUP and AUG.CUTMIX mix the images of a batch: DATA.BATCH_SIZE must be above 1")


def _epoch_learning_rate(config: CfgNode, epoch: int, base_lr: float) -> float:
    """Start and end are those of the config, as in DeiT, but never above a peak that a small batch made lower.

    DeiT's `main.py` steps its schedule after an epoch by the number of that epoch, from 0: the second epoch has the
    rate of the first one again.
    """
    train = config.TRAIN
    start, end = min(train.WARMUP_START_LR, base_lr), min(train.END_LR, base_lr)
    place = max(0, epoch - 2) if train.LR_EPOCH_LATER else epoch - 1
    return learning_rate(place, train.NUM_EPOCHS, base_lr, start, end, train.WARMUP_EPOCHS)


def _is_due(epoch: int, every: int, last: int) -> bool:
    return every > 0 and (epoch % every == 0 or epoch == last)
