"""Decides whether reading processes can work here, and how they send batches: through /dev/shm or pipes."""

import multiprocessing
import shutil
import sys
from typing import NamedTuple

FOLDER = "/dev/shm"
AHEAD = 2  # batches that Paddle has each process read ahead
ELSEWHERE = 4  # batches on their way to the model
SEMAPHORES = 1 << 20  # bytes, more than enough for all that processes have among themselves
OTHER_BYTES = 1 << 16  # of a batch: labels and places, in whole pages


class Sending(NamedTuple):
    """How batches are read: by so many processes (0: by a thread), through shared memory or pipes; and why, if told."""

    num_workers: int
    shared_memory: bool
    note: str = ""


def how_to_send(num_workers: int, batch_bytes: int, folder: str = FOLDER) -> Sending:
    """Decides how many reading processes can work here, and how they send batches.

    Args:
        num_workers: processes that are to read.
        batch_bytes: of the images of a batch.
        folder: where the system keeps shared memory.
    """
    if not num_workers or not sys.platform.startswith("linux"):
        return Sending(num_workers, num_workers > 0)
    try:
        multiprocessing.Lock()  # which processes need among themselves, and which lies in the same place on Linux
        free = shutil.disk_usage(folder).free
        missing = "" if free >= SEMAPHORES else f"{free / 1e6:.1f} MB are free"
    except (OSError, ImportError, NotImplementedError) as error:
        missing = getattr(error, "strerror", None) or str(error)
    if missing:
        return Sending(0, False, f"{folder} cannot be used ({missing}): images are read in this process, not by others")
    needed = (batch_bytes + OTHER_BYTES) * (AHEAD * num_workers + ELSEWHERE)
    if free >= needed:
        return Sending(num_workers, True)
    return Sending(
        num_workers,
        False,
        f"{folder} has {free / 1e6:.1f} MB free, and batches need {needed / 1e6:.1f} MB: they are sent through pipes, "
        "which takes longer; a container gets more with --shm-size",
    )
