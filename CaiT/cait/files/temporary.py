"""Names for what is being written: no two processes use the same one, and what a killed process left is removed."""

import contextlib
import functools
import hashlib
import os
import pathlib
import re
import secrets
import shutil
import socket
from collections.abc import Iterator

NAME_LENGTH = 48  # characters that are kept of the final name: a file system takes 255 bytes
_own: set[str] = set()  # the names that this process is using


@contextlib.contextmanager
def temporary_beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a hidden name beside `path` that nobody else uses; a file or folder that has it at the end is removed.

    It also removes what other processes left there that were killed while they wrote `path`: those of this machine, of
    which it is known that they are gone.
    """
    beginning = f".{path.name[:NAME_LENGTH]}."
    _remove_leftovers(path.parent, beginning)
    temporary = path.with_name(f"{beginning}{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    _own.add(temporary.name)
    try:
        yield temporary
    finally:
        _remove(temporary)
        _own.discard(temporary.name)


def _remove_leftovers(folder: pathlib.Path, beginning: str) -> None:
    pattern = re.compile(rf"{re.escape(beginning)}{_machine()}-([0-9]+)-[0-9a-f]{{8}}\.tmp")
    with contextlib.suppress(OSError):  # whoever writes there says what is wrong with the folder
        for name in os.listdir(folder):
            match = pattern.fullmatch(name)
            if match and name not in _own and not _is_alive(int(match[1])):
                _remove(folder / name)


def _is_alive(process: int) -> bool:
    """Whether another process of this machine has the number, or may have it."""
    if process == os.getpid():
        return False
    if os.name == "nt":  # os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's
        return True
    return True


@functools.cache
def _machine() -> str:
    """Tells apart the machines, and the containers of one, whose processes may have the same numbers."""
    try:
        numbers = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # no Linux
        numbers = 0
    return hashlib.sha256(f"{socket.gethostname()} {numbers}".encode()).hexdigest()[:8]


def _remove(temporary: pathlib.Path) -> None:
    with contextlib.suppress(OSError):  # it is no file of the user's, and the next write of its name tries again
        if temporary.is_dir() and not temporary.is_symlink():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink()
