"""Errors a user can cause; `cait.command` ends a command on them with one sentence and their exit code."""

from cait.lines import one_line


class CaitError(ValueError):
    """Something a user can mend: a broken file, a wrong checkpoint, a folder that cannot be written.

    Its words are one line that may be printed, whatever the names of files in it are.
    """

    exit_code = 1

    def __str__(self):
        return one_line(super().__str__())


class UsageError(CaitError):
    """The command or its config is wrong: an unknown key, a bad value, flags that exclude each other."""

    exit_code = 2
