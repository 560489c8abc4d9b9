"""Opens the folder of a job: locked, with a log and the config in it."""

import contextlib
import logging
import os
import pathlib
import platform
import time
from collections.abc import Iterator

import numpy as np
import paddle
import PIL
from yacs.config import CfgNode

from cait.config.saved import check_replaceable, save_config
from cait.data import pixels
from cait.distributed import collectives
from cait.files import new_folder, writable_folder
from cait.files.folder_lock import held
from cait.machine.device import device_words
from cait.records.log import open_log
from cait.run_folder import config_name, run_folder


@contextlib.contextmanager
def held_folder(config: CfgNode, job: str) -> Iterator[tuple[pathlib.Path, str]]:
    """OUTPUT_DIR, or a new folder under `output/`, in which nobody else does this job meanwhile.

    Process 0 alone writes: it makes the folder and holds it. When it is refused, the others end with it. A new folder
    in which nothing was written is taken away again.

    Yields:
        The folder, and a sentence for `open_job` if it cannot be locked.

    Raises:
        CaitError: another process does this job there, or the folder cannot be made or written.
        UsageError: the config that the job would save has the name of a file of the user's.
    """
    if collectives.rank() > 0:
        yield pathlib.Path(config.OUTPUT_DIR), ""
        return
    is_new = not (config.OUTPUT_DIR and os.path.exists(config.OUTPUT_DIR))
    stem = f"output/{job}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = writable_folder(config.OUTPUT_DIR) if config.OUTPUT_DIR else new_folder(stem)
    try:
        with held(folder, job) as note:
            if not _goes_on_in(folder, config):
                check_replaceable(folder / config_name(job))
            yield folder, note
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it is not empty, as a rule
                folder.rmdir()


def _goes_on_in(folder: pathlib.Path, config: CfgNode) -> bool:
    """Whether the job resumes the run of this folder, whose config it then takes over and saves again."""
    resume = config.TRAIN.RESUME
    return bool(resume) and run_folder(resume).resolve() == folder.resolve()


def log_name(config: CfgNode, job: str) -> str:
    """Name of the job's log in its folder."""
    return config.LOG_NAME or f"log_{job}.txt"


def open_job(
    config: CfgNode, folder: pathlib.Path, job: str, note: str = "", classes: dict[str, list[str]] | None = None
) -> logging.Logger:
    """The job's log, its head, and the config beside it; in other processes than the first a log that says nothing.

    Args:
        folder, note: what `held_folder` gave.
        classes: the record of a training, see `Classes.record`.
    """
    if collectives.rank() > 0:
        return open_log(None)
    log = open_log(folder / log_name(config, job))
    save_config(config, folder / config_name(job), classes)
    log.info("%s with %s, output in %s", job, config.MODEL.NAME, folder)
    versions = {"paddle": paddle, "numpy": np, "pillow": PIL}
    words = [f"{name} {module.__version__}" for name, module in versions.items()]
    words += [
        f"python {platform.python_version()}",
        pixels.how(),
        f"device {device_words()}",
        f"seed {config.SEED}",
    ]
    words += [f"{collectives.world_size()} processes"] if collectives.world_size() > 1 else []
    log.info(", ".join(words))
    if note:
        log.warning(note)
    return log
