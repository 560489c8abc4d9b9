"""Runs the job that a config asks for: training, evaluation or prediction."""

import json
import pathlib
from typing import Any

from yacs.config import CfgNode

from cait.command import stops
from cait.command.outputs import check_outputs
from cait.data.build import build_loaders
from cait.distributed import collectives
from cait.errors import CaitError
from cait.files import write_text
from cait.machine.device import select_device
from cait.records.predictions import result_line, write_results
from cait.train import evaluation
from cait.train.confusion import TABLES, ConfusionMatrix, write_confusion
from cait.train.job_folder import held_folder, open_job
from cait.train.mixed_precision import build_precision
from cait.train.training import train
from cait.weights.load import load_weights
from cait.zoo import prepare_model


def run(config: CfgNode) -> None:
    """Runs the job that the config asks for: prediction, evaluation or training; with several processes, in each."""
    tf32 = config.TRAIN.TF32 and not (config.EVAL or config.PRED)
    select_device(config.DEVICE, tf32, collectives.local_size())
    with collectives.joined():
        _run_alone(config)


def _run_alone(config: CfgNode) -> None:
    try:
        (predict if config.PRED else evaluate if config.EVAL else train)(config)
    except (SystemError, RuntimeError) as error:
        # Paddle raises the sudden end of a worker from a signal handler, anywhere in the code.
        if "DataLoader" not in str(error) and "Blocking queue" not in str(error):
            raise
        stops.wait_for_own()
        raise CaitError(
            "a process that reads images ended: it was killed, or memory or /dev/shm is full; "
            "-o DATA.NUM_WORKERS=0 does without"
        ) from error


def evaluate(config: CfgNode) -> evaluation.EvalResult:
    """Evaluates MODEL.PRETRAINED on the validation set; log in `log_eval.txt`, counts in `evaluation.json`.

    With EVALUATE.CONFUSION also `per_class.csv` and `confusion.csv`.
    """
    with held_folder(config, "eval") as (folder, note):
        return _evaluate_in(folder, note, config)


def _evaluate_in(folder: pathlib.Path, note: str, config: CfgNode) -> evaluation.EvalResult:
    check_outputs(folder, "evaluation.json", *(TABLES if config.EVALUATE.CONFUSION else ()))
    precision = build_precision(config, evaluation=True)
    loaders = build_loaders(config)
    classifier = evaluation.Classifier(*prepare_model(config), precision)
    notes = load_weights(classifier.model, config.MODEL.PRETRAINED)
    collectives.broadcast(classifier.model.state_dict().values())
    log = open_job(config, folder, "eval", note)
    log.info("; ".join(notes))
    loaders.log_notes(log)
    confusion = ConfusionMatrix(config.MODEL.NUM_CLASSES) if config.EVALUATE.CONFUSION else None
    options: dict[str, Any] = {"see": confusion.add} if confusion else {}
    bad_is_wrong = config.EVALUATE.ON_BAD_IMAGE == "wrong"
    options |= {"report_freq": config.REPORT_FREQ, "bad_is_wrong": bad_is_wrong}
    val = loaders.to_evaluate()
    result = evaluation.evaluate(classifier, val, log, **options)
    log.info(result.words())
    counts = unreadable = None
    if confusion is not None:
        confusion.add_unreadable(image.label for image in val.bad if bad_is_wrong)
        counts, unreadable = confusion.read(), confusion.read_unreadable()
    if collectives.rank() == 0:
        write_text(folder / "evaluation.json", json.dumps(result.counts(), indent=1) + "\n")
        if counts is not None:
            write_confusion(folder, counts, loaders.classes.names, unreadable)
    return result


def predict(config: CfgNode) -> None:
    """Classifies the test images with MODEL.PRETRAINED; log in `log_pred.txt`, results in `predictions.csv`.

    Process 0 does so; others wait for it, since the results are one list in the order of the images.

    Raises:
        CaitError: some images could not be read; the others are predicted all the same.
    """
    if collectives.rank() > 0:
        return
    with held_folder(config, "pred") as (folder, note):
        _predict_in(folder, note, config)


def _predict_in(folder: pathlib.Path, note: str, config: CfgNode) -> None:
    check_outputs(folder, "predictions.csv")
    precision = build_precision(config, evaluation=True)
    loaders = build_loaders(config)
    classifier = evaluation.Classifier(*prepare_model(config), precision)
    notes = load_weights(classifier.model, config.MODEL.PRETRAINED)
    log = open_job(config, folder, "pred", note)
    log.info("; ".join(notes))
    loaders.log_notes(log)
    failed = 0
    test = loaders.to_predict()
    results = evaluation.predict(classifier, test, log, top_k=config.PREDICT.TOP_K)
    with write_results(folder / "predictions.csv", loaders.classes.names) as write:
        for name, best, error in results:
            for class_id, prob in best:
                log.info(result_line(name, class_id, loaders.classes.names[class_id], prob))
            if error:
                log.error(error)
                failed += 1
            write(name, best, error)
    if failed:
        raise CaitError(f"{failed} of {len(test.dataset)} images could not be read")
