"""Checks whether others than this user and root can change files, as ssh does before it uses a key."""

import os
import pathlib
import stat
from collections.abc import Iterable

OTHERS = stat.S_IWGRP | stat.S_IWOTH


def why_not_ours(paths: Iterable[str | os.PathLike]) -> str:
    """Why somebody else could have changed one of these files and folders, in a phrase; empty if nobody could.

    What is not there is passed over: whoever can make it can write the folder above, which is to be named too.
    """
    for path in map(pathlib.Path, paths):
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return f"{path} cannot be looked at ({error.strerror})"
        if status.st_uid not in (0, os.geteuid()):
            return f"{path} belongs to another user (number {status.st_uid})"
        if status.st_mode & OTHERS:
            return f"{path} can be written by other users (mode {stat.S_IMODE(status.st_mode):o})"
    return ""
