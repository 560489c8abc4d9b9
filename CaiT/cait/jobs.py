"""The three jobs: a config becomes objects, and the engine runs them."""

import logging
import pathlib
import platform
import signal
import time
from typing import Any

import numpy as np
import paddle
import PIL
from yacs.config import CfgNode

from cait import dist, engine
from cait.checkpoint import LATEST, STATES, WEIGHTS, find_states, load_checkpoint, load_weights, save_checkpoint
from cait.config import run_folder, save_config
from cait.data.build import build_loaders
from cait.data.transforms import Normalize
from cait.device import has_gpu
from cait.errors import CaitError, UsageError
from cait.files import writable_folder
from cait.log import open_log
from cait.losses import label_smoothing_cross_entropy
from cait.metrics import read_metrics, write_metrics
from cait.model import CaiT, build_model
from cait.optim import build_optimizer, learning_rate, scaled_learning_rate
from cait.results import result_line, write_results

METRICS = "metrics.jsonl"


def run(config: CfgNode) -> None:
    """Runs the job that the config asks for: prediction, evaluation or training."""
    select_device(config)
    try:
        (predict if config.PRED else evaluate if config.EVAL else train)(config)
    except (SystemError, RuntimeError) as error:
        # Paddle raises the sudden end of a worker from a signal handler, anywhere in the code.
        if "DataLoader" not in str(error) and "Blocking queue" not in str(error):
            raise
        raise CaitError(
            "a process that reads images ended: it was killed, or memory or /dev/shm is full; "
            "-o DATA.NUM_WORKERS=0 does without"
        ) from error


def select_device(config: CfgNode) -> None:
    """Chooses the device for all that follows.

    Raises:
        UsageError: a GPU was asked for and there is none, or more than this version can use.
    """
    on_sigterm = signal.getsignal(signal.SIGTERM)
    paddle.disable_signal_handler()  # which answers SIGTERM with a dump of stacks; this resets the signals as well
    signal.signal(signal.SIGTERM, on_sigterm)
    if config.NGPUS > 1 or dist.world_size() > 1:
        raise UsageError("this version trains on one device: leave out -ngpus and the launcher")
    if config.AMP:
        raise UsageError("this version trains in float32: leave out -amp")
    if config.DEVICE == "gpu" and not has_gpu():
        raise UsageError("DEVICE=gpu: there is no GPU, or this PaddlePaddle is the CPU build")
    device = "gpu" if has_gpu() and config.DEVICE != "cpu" else "cpu"
    paddle.device.set_device(device)
    if device == "cpu":
        # Transposes as views make the backward pass copy element by element: 168 ms a step of the demo, 94 without
        # (PaddlePaddle 3.3.1, one core of a 2-core Xeon).
        paddle.set_flags({"FLAGS_use_stride_kernel": False})


def _output_folder(config: CfgNode, job: str) -> pathlib.Path:
    """OUTPUT_DIR, or a new folder under `output/`."""
    if config.OUTPUT_DIR:
        return writable_folder(config.OUTPUT_DIR)
    stem = f"output/{job}-{time.strftime('%Y%m%d-%H%M%S')}"
    writable_folder("output")
    for name in (stem, *(f"{stem}-{number}" for number in range(2, 100))):
        try:
            pathlib.Path(name).mkdir()
            return pathlib.Path(name)
        except FileExistsError:  # another run of this second
            continue
    raise CaitError(f"{stem}: too many runs in one second")


def _open_job(config: CfgNode, folder: pathlib.Path, job: str) -> logging.Logger:
    """The job's log, its head, and the config beside it."""
    log = open_log(folder / f"log_{job}.txt")
    save_config(config, folder / ("config.yaml" if job == "train" else f"config_{job}.yaml"))
    log.info("%s with %s, output in %s", job, config.MODEL.NAME, folder)
    versions = {"paddle": paddle, "numpy": np, "pillow": PIL}
    words = [f"{name} {module.__version__}" for name, module in versions.items()]
    words += [f"python {platform.python_version()}", f"device {paddle.device.get_device()}", f"seed {config.SEED}"]
    log.info(", ".join(words))
    return log


def _prepare(config: CfgNode) -> tuple[CaiT, Normalize]:
    paddle.seed(config.SEED)
    return build_model(config), Normalize(config.DATA.MEAN, config.DATA.STD)


def evaluate(config: CfgNode) -> engine.EvalResult:
    """Evaluates MODEL.PRETRAINED on the validation set; log in `log_eval.txt`."""
    loaders = build_loaders(config)
    model, normalize = _prepare(config)
    notes = load_weights(model, config.MODEL.PRETRAINED)
    log = _open_job(config, _output_folder(config, "eval"), "eval")
    log.info("; ".join(notes))
    result = engine.evaluate(model, loaders.val, normalize, log, report_freq=config.REPORT_FREQ)
    log.info(_validation_words(result))
    return result


def _validation_words(result: engine.EvalResult) -> str:
    return (
        f"Validation Loss: {result.loss:.4f}, Validation Acc@1: {result.acc1:.4f}, "
        f"Validation Acc@5: {result.acc5:.4f}, time: {result.seconds:.2f}"
    )


def predict(config: CfgNode) -> None:
    """Classifies the test images with MODEL.PRETRAINED; log in `log_pred.txt`, results in `predictions.csv`.

    Raises:
        CaitError: some images could not be read; the others are predicted all the same.
    """
    loaders = build_loaders(config)
    model, normalize = _prepare(config)
    notes = load_weights(model, config.MODEL.PRETRAINED)
    folder = _output_folder(config, "pred")
    log = _open_job(config, folder, "pred")
    log.info("; ".join(notes))
    results = engine.predict(model, loaders.test, normalize, log, top_k=config.PREDICT.TOP_K)
    with write_results(folder / "predictions.csv", loaders.class_names) as write:
        for name, best in results:
            for class_id, prob in best:
                log.info(result_line(name, class_id, loaders.class_names[class_id], prob))
            write(name, best)
    for error in loaders.test.errors:
        log.error(error)
    if loaders.test.errors:
        raise CaitError(f"{len(loaders.test.errors)} of {len(loaders.test.dataset)} images could not be read")


def train(config: CfgNode) -> None:
    """Trains, validates and saves; log in `log_train.txt`, a line of numbers an epoch in `metrics.jsonl`.

    Checkpoints: `latest` after every epoch, `best_model` with the best validation accuracy at 1, `epoch_N` every
    SAVE_FREQ epochs.

    Raises:
        CaitError: the output folder holds another run, or data or a checkpoint is wrong.
    """
    _check_is_free(config)
    loaders = build_loaders(config)
    model, normalize = _prepare(config)
    optimizer = build_optimizer(config, model)
    progress, rows, origin = _starting_point(config, model, optimizer)
    folder = _output_folder(config, "train")
    log = _open_job(config, folder, "train")
    num_params = sum(parameter.size for parameter in model.parameters())
    log.info("%d training images, %d parameters, starting from %s", len(loaders.train.dataset), num_params, origin)
    images_per_step = config.DATA.BATCH_SIZE * config.TRAIN.ACCUM_ITER * dist.world_size()
    base_lr = scaled_learning_rate(config.TRAIN.BASE_LR, images_per_step, config.TRAIN.LINEAR_SCALED_LR)
    log.info("%d images a step, peak learning rate %.6g", images_per_step, base_lr)
    if progress["epoch"] >= config.TRAIN.NUM_EPOCHS:
        log.info("nothing to train: %d of %d epochs are done", progress["epoch"], config.TRAIN.NUM_EPOCHS)
    criterion = label_smoothing_cross_entropy(config.TRAIN.SMOOTHING)
    for epoch in range(progress["epoch"] + 1, config.TRAIN.NUM_EPOCHS + 1):
        rate = _epoch_learning_rate(config, epoch, base_lr)
        optimizer.set_lr(rate)
        log.info("Now training epoch %d. LR=%.6f", epoch, rate)
        result = engine.train_one_epoch(
            model,
            loaders.train,
            normalize,
            criterion,
            optimizer,
            log,
            epoch=epoch,
            num_epochs=config.TRAIN.NUM_EPOCHS,
            accum_iter=config.TRAIN.ACCUM_ITER,
            grad_clip=config.TRAIN.GRAD_CLIP,
            report_freq=config.REPORT_FREQ,
            seed=config.SEED,
        )
        head = f"----- Epoch[{epoch:03d}/{config.TRAIN.NUM_EPOCHS:03d}]"
        log.info(f"{head}, Train Loss: {result.loss:.4f}, Train Acc: {result.acc1:.4f}, time: {result.seconds:.2f}")
        skipped = loaders.train.errors
        if skipped:
            log.warning("%d images left out, the first: %s", len(skipped), skipped[0])
        progress |= {"epoch": epoch, "step": progress["step"] + result.num_steps}
        row = {"epoch": epoch, "step": progress["step"], "lr": rate, "train_loss": result.loss}
        row |= {"train_acc1": result.acc1, "ips": result.images_per_second, "skipped_images": len(skipped)}
        names = [LATEST]
        if _is_due(epoch, config.VALIDATE_FREQ, config.TRAIN.NUM_EPOCHS):
            try:
                val = engine.evaluate(model, loaders.val, normalize, log, report_freq=config.REPORT_FREQ)
            except CaitError:  # an image that cannot be read shall not cost the epoch
                save_checkpoint(folder, names, model, optimizer, progress)
                raise
            log.info("%s, %s", head, _validation_words(val))
            row |= {"val_loss": val.loss, "val_acc1": val.acc1, "val_acc5": val.acc5}
            if val.acc1 > progress["best_acc1"]:
                progress |= {"best_acc1": val.acc1, "best_epoch": epoch}
                names.append("best_model")
        if _is_due(epoch, config.SAVE_FREQ, config.TRAIN.NUM_EPOCHS):
            names.append(f"epoch_{epoch}")
        rows.append(row)
        write_metrics(folder / METRICS, rows)  # before the checkpoint: resuming can drop rows, but not make them up
        save_checkpoint(folder, names, model, optimizer, progress)
        log.info("saved %s in %s", ", ".join(names), folder)


def _check_is_free(config: CfgNode) -> None:
    """No run is ever written over another one, nor over what it did after the checkpoint it is resumed from."""
    folder = pathlib.Path(config.OUTPUT_DIR)
    if not config.OUTPUT_DIR or not any(any(folder.glob(name)) for name in (f"*{STATES}", f"*{WEIGHTS}", METRICS)):
        return
    if config.TRAIN.RESUME and find_states(config.TRAIN.RESUME)[0].resolve() == (folder / LATEST).resolve():
        return
    raise UsageError(f"{folder}: holds a run; give a new -output_dir, or go on with it by -resume={folder}")


def _starting_point(config: CfgNode, model: CaiT, optimizer) -> tuple[dict[str, Any], list[dict], str]:
    """Puts model and optimizer where training starts: progress, metrics of the epochs done, and words for the log."""
    progress = {"epoch": 0, "step": 0, "best_acc1": -1.0, "best_epoch": 0}
    resume = config.TRAIN.RESUME
    began = resume and not find_states(resume)[1].is_file() and (pathlib.Path(resume) / "config.yaml").is_file()
    if not resume or began:  # a run that was stopped in its first epoch begins again
        if not config.MODEL.PRETRAINED:
            return progress, [], "random weights"
        return progress, [], "; ".join(load_weights(model, config.MODEL.PRETRAINED, config.MODEL.RESET_HEAD))
    saved = load_checkpoint(model, optimizer, resume)
    if saved is None:
        if config.TRAIN.LAST_EPOCH is None:
            raise UsageError(
                f"{resume}: holds weights without a training state; -last_epoch=N says how many epochs they had, "
                "or -pretrained starts a new run from them"
            )
        return progress | {"epoch": config.TRAIN.LAST_EPOCH}, [], f"the weights {resume}"
    metrics = run_folder(resume) / METRICS
    rows = [row for row in read_metrics(metrics) if row["epoch"] <= saved["epoch"]] if metrics.is_file() else []
    if not config.OUTPUT_DIR or run_folder(resume).resolve() != pathlib.Path(config.OUTPUT_DIR).resolve():
        saved |= {"best_acc1": -1.0, "best_epoch": 0}  # the best model so far stays in the other folder
    return saved, rows, f"{resume}, epoch {saved['epoch']}, step {saved['step']}"


def _epoch_learning_rate(config: CfgNode, epoch: int, base_lr: float) -> float:
    """Start and end are those of the config, as in DeiT, but never above a peak that a small batch made lower."""
    train = config.TRAIN
    start, end = min(train.WARMUP_START_LR, base_lr), min(train.END_LR, base_lr)
    return learning_rate(epoch - 1, train.NUM_EPOCHS, base_lr, start, end, train.WARMUP_EPOCHS)


def _is_due(epoch: int, every: int, last: int) -> bool:
    return every > 0 and (epoch % every == 0 or epoch == last)
