"""Errors a user can cause, and how a command ends on them: one sentence and an exit code, no traceback."""

import os
import signal
import sys
import warnings
from collections.abc import Callable


class CaitError(ValueError):
    """Something a user can mend: a broken file, a wrong checkpoint, a folder that cannot be written."""

    exit_code = 1


class UsageError(CaitError):
    """The command or its config is wrong: an unknown key, a bad value, flags that exclude each other."""

    exit_code = 2


class _Terminated(BaseException):
    """SIGTERM, as a batch system sends it."""


def _stop(signum, frame):
    # The signal may come while Paddle builds an object, whose half complains when it is taken down.
    sys.unraisablehook = lambda _: None
    raise _Terminated if signum == signal.SIGTERM else KeyboardInterrupt


def outcome(error: BaseException) -> tuple[str, int] | None:
    """The sentence and the exit code that a command ends with on this error; None: it is a bug, or no failure."""
    if isinstance(error, CaitError):
        return str(error), error.exit_code
    if isinstance(error, OSError):  # a full disk, a missing permission: the system's own words name the file
        return str(error), CaitError.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    return ("terminated", 143) if isinstance(error, _Terminated) else None


def run_command(main: Callable[[], None], leave_at_once: bool = False) -> None:
    """Calls `main()` and ends the process with 0, 1 on failure, 2 on wrong usage, 130 on Ctrl-C or 143 on SIGTERM.

    `leave_at_once` is for a command that leaves nothing to be done at exit: the system takes its memory back faster
    than Paddle takes its objects down, which costs a fifth of a second.
    """
    warnings.filterwarnings("ignore", message="No ccache found")  # Paddle says so at every import
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as in the background
        signal.signal(signal.SIGINT, _stop)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a file name need not be text in the terminal's encoding
    message, exit_code = None, 0
    try:
        main()
    except BaseException as error:
        known = outcome(error)
        if known is None:
            raise
        message, exit_code = known
    try:
        sys.stdout.flush()
    except OSError:  # the reader of a pipe is gone: let the interpreter flush to nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if message is not None:
        print(f"error: {message}", file=sys.stderr)
    if leave_at_once:
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)
