"""Runs a command: it ends with one sentence and an exit code, and with a traceback only for a bug."""

import os
import re
import sys
import warnings
from collections.abc import Callable

from cait.command import stops, streams
from cait.errors import CaitError, one_line

MEMORY_ADVICE = (
    "take smaller batches (-batch_size in training and evaluation, --batch-size in infer.py); in training, "
    "TRAIN.RECOMPUTE=true, TRAIN.QUERY_CHUNK=64 and on GPUs AMP=true take less too, and TRAIN.ACCUM_ITER keeps the step"
)

# Paddle says these at every import. That it finds no GPU is in the log, see `device.device_words`.
NO_NEWS = ("No ccache found", "You are using GPU version Paddle, but your CUDA device is not set properly")


def outcome(error: BaseException) -> tuple[str, int] | None:
    """The sentence and the exit code that a command ends with on this error; None: it is a bug, or no failure.

    Once a stop was asked for, every error is that stop: libraries turn the exception that it was into others.
    """
    if stops.asked():
        return stops.asked()
    if isinstance(error, CaitError):
        return str(error), error.exit_code
    if (where := _out_of_memory(error)) is not None:
        return f"there is not enough memory{where}; {MEMORY_ADVICE}", CaitError.exit_code
    if isinstance(error, OSError):  # such as a missing permission
        words = error.strerror or str(error)
        sentence = words if error.filename is None else f"{error.filename}: {words}"
        return one_line(sentence), CaitError.exit_code
    return ("interrupted", 130) if isinstance(error, KeyboardInterrupt) else None


def _out_of_memory(error: BaseException) -> str | None:
    """Where memory ran out, in words to be appended; None: it did not.

    PaddlePaddle raises MemoryError on CPUs and GPUs, and OSError or RuntimeError where NVIDIA's libraries say so.
    """
    words = str(error)
    on_gpu = re.search(r"memory error on (GPU \d+)", words)
    if on_gpu:
        return f" on {on_gpu[1]}"
    if isinstance(error, (OSError, RuntimeError)) and re.search(r"CUDA error.*out of memory|_ALLOC_FAILED", words):
        return " on the GPU"
    return "" if isinstance(error, MemoryError) else None


def run_command(main: Callable[[], None], leave_at_once: bool = False, has_log: bool = False) -> None:
    """Calls `main()` and ends the process with 0, 1 on failure, 2 on wrong usage, 130 on Ctrl-C or 143 on SIGTERM.

    What `main` imports beside the standard library it should import itself, so that Ctrl-C ends an import as well.

    Args:
        leave_at_once: for a command that leaves nothing to be done at exit: the system takes its memory back faster
            than Paddle takes its objects down, which costs a fifth of a second.
        has_log: what is printed is also in a file, so that a full disk below standard output is no failure.
    """
    for message in NO_NEWS:
        warnings.filterwarnings("ignore", message=message)
    streams.prepare()
    stops.install()
    errors = sys.stderr  # an exception at the wrong moment may leave it redirected
    message, exit_code = "", 0
    try:
        try:
            main()
        finally:
            stops.settle()
        message, exit_code = stops.asked() or ("", 0)
    except BaseException as error:
        known = outcome(error)
        if known is None:
            raise
        message, exit_code = known
    lost = streams.finish()
    if lost and not has_log and not exit_code:
        message, exit_code = f"standard output cannot be written ({lost.strerror})", 1
    if message and not (stops.asked() and stops.is_for_all()):
        print(f"error: {message}", file=errors, flush=True)
    if leave_at_once:
        os._exit(exit_code)
    sys.exit(exit_code)
