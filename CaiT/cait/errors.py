"""Errors a user can cause, and how a command ends on them: one sentence and an exit code, no traceback."""

import argparse
import os
import pathlib
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


class ArgumentParser(argparse.ArgumentParser):
    """argparse whose complaints are usage errors. It shows a description as it stands, and takes no shortened flags."""

    def __init__(self, **settings):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def error(self, message):
        raise UsageError(f"{message}; -h lists the flags")


def boolean(text: str) -> bool:
    """An argument that is True or False."""
    words = {"true": True, "false": False, "1": True, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text!r} must be True or False")
    return words[text.lower()]


def positive(text: str) -> int:
    """An argument that is a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)


def results_file(text: str) -> pathlib.Path:
    """An argument that is the name of a `.csv` or `.jsonl` file."""
    if not text.endswith((".csv", ".jsonl")):
        raise argparse.ArgumentTypeError(f"{text!r} must end in .csv or .jsonl")
    return pathlib.Path(text)


def port(text: str) -> int:
    """An argument that is a port of TCP; 0 is any free one."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} must be a port from 0 to 65535")
    return int(text)


def seconds(text: str) -> float:
    """An argument that is a time from 0 to an hour."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} must be seconds, from 0 to 3600")
    return value


def token(text: str) -> str:
    """An argument that is a secret word, fit to stand in a header of HTTP."""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError("must be printable ASCII without blanks, and not empty")
    return text


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
