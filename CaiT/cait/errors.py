"""Errors a user can cause; `cait.command` ends a command on them with one sentence and their exit code."""


class CaitError(ValueError):
    """Something a user can mend: a broken file, a wrong checkpoint, a folder that cannot be written."""

    exit_code = 1


class UsageError(CaitError):
    """The command or its config is wrong: an unknown key, a bad value, flags that exclude each other."""

    exit_code = 2
