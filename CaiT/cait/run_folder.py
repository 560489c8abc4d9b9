"""The names in the folder of a run: config, log, numbers, curves, checkpoints. All other modules take them from here.

The folder holds `config.yaml`, `log_train.txt`, `metrics.jsonl`, `learning_curves.png` and the checkpoints `latest`,
`best_model` and `epoch_N`, and with an average of the weights `best_model_ema` and `epoch_N_ema`. Evaluation and
prediction add `config_eval.yaml`, `log_eval.txt` and the like.
"""

import os
import pathlib
import re

CONFIG, METRICS, CURVES = "config.yaml", "metrics.jsonl", "learning_curves.png"
LATEST, BEST, EMA = "latest", "best_model", "_ema"
BEST_EMA = f"{BEST}{EMA}"
OWN_NAME = re.compile(rf"{LATEST}|({BEST}|epoch_[0-9]+)({EMA})?")
BEGINNING = ".before_first_checkpoint"  # is in the folder of a run until the first checkpoint is whole


def epoch_name(epoch: int, is_average: bool = False) -> str:
    """The name of the checkpoint of an epoch, or of that of the averaged weights."""
    return f"epoch_{epoch}{EMA if is_average else ''}"


def run_folder(checkpoint: str | os.PathLike) -> pathlib.Path:
    """The folder of the run that a checkpoint belongs to, named by file, by stem or by that folder itself."""
    path = pathlib.Path(checkpoint)
    return path if path.is_dir() else path.parent


def config_name(job: str) -> str:
    """The name of the config that a job saves: "train", "eval" or "pred"."""
    return CONFIG if job == "train" else f"config_{job}.yaml"
