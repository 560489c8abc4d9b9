"""Errors a user can cause, and how a command ends on them: one sentence and an exit code, no traceback."""

import os
import sys
import warnings


class CaitError(ValueError):
    """Something a user can mend: a broken file, a wrong checkpoint, a folder that cannot be written."""

    exit_code = 1


class UsageError(CaitError):
    """The command or its config is wrong: an unknown key, a bad value, flags that exclude each other."""

    exit_code = 2


def run_command(main) -> None:
    """Calls `main()` and ends the process: 0 on success, 1 on failure, 2 on wrong usage, 130 on Ctrl-C."""
    warnings.filterwarnings("ignore", message="No ccache found")  # Paddle says so at every import
    try:
        main()
    except CaitError as error:
        _end(str(error), error.exit_code)
    except OSError as error:  # a full disk, a missing permission: the system's own words name the file
        _end(str(error), CaitError.exit_code)
    except KeyboardInterrupt:
        _end("interrupted", 130)


def _end(message: str, exit_code: int) -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe is gone; keep the interpreter from failing on it again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)
