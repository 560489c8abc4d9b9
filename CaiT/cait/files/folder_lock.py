"""One job of a kind in a folder at a time: a lock that ends with the process that holds it, however that ends.

It is a POSIX record lock, which belongs to a process: the processes that read images inherit the open file but not
the lock, so a run that was killed can be resumed at once, while they still live. On a shared disk it also holds
between machines. The lock's file is there as long as the job; after a kill it stays, and means nothing.
"""

import contextlib
import errno
import os
import pathlib
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator

from cait.errors import CaitError

try:
    import fcntl
except ImportError:  # a platform without record locks
    fcntl = None  # type: ignore[assignment]

NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}  # what a file system may answer
HELD_ELSEWHERE = {errno.EACCES, errno.EAGAIN}
POLL_SECONDS = 0.05
_held_here: set[pathlib.Path] = set()  # the system would give this process the same lock again
_one_thread = threading.Lock()


class FolderInUse(CaitError):
    """Another process, or another part of this one, does the same job in the folder."""


def lock_file(folder: pathlib.Path, job: str) -> pathlib.Path:
    """The file in a folder whose lock the job holds."""
    return folder / f".{job}.lock"


@contextlib.contextmanager
def held(folder: pathlib.Path, job: str, wait: bool = False) -> Iterator[str]:
    """Context in which nobody else does this job in the folder.

    Args:
        folder: exists.
        job: what is done there, such as "train"; jobs of different kinds do not get in each other's way.
        wait: until the job is done there, instead of raising.

    Yields:
        "", or a sentence for the log: there is no lock, and why.

    Raises:
        FolderInUse: the job is being done there; the message names the process and its machine.
        CaitError: the lock's file cannot be opened or locked.
    """
    path, owner = lock_file(folder.resolve(), job), os.getpid()
    while True:
        try:
            with _one_thread:
                descriptor, note = _try_to_lock(path, folder, job)
            break
        except FolderInUse:
            if not wait:
                raise
            time.sleep(POLL_SECONDS)
    if descriptor is None:
        yield note
        return
    try:
        yield ""
    finally:
        if os.getpid() == owner:  # a child that was forked meanwhile holds nothing
            _held_here.discard(path)
            with contextlib.suppress(OSError):  # the folder may be gone
                path.unlink()  # before the lock is given up, so that whoever waits to lock this file notices
            os.close(descriptor)


def _try_to_lock(path: pathlib.Path, folder: pathlib.Path, job: str) -> tuple[int | None, str]:
    """The descriptor of the locked file, or None and why there are no locks.

    Nothing in this process may open the file another time: closing it would give the lock up.
    """
    if fcntl is None:
        return None, _no_lock(folder, f"{sys.platform} has no record locks")
    if path in _held_here:
        raise FolderInUse(_refusal(folder, job, "this process"))
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise CaitError(f"{path}: cannot be opened ({error.strerror})") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = re.match(rb"process \d+ on [\w.-]+", os.read(descriptor, 300))
        os.close(descriptor)
        if error.errno in HELD_ELSEWHERE:
            raise FolderInUse(_refusal(folder, job, holder[0].decode() if holder else "another process")) from error
        if error.errno not in NO_LOCKS:
            raise CaitError(f"{path}: cannot be locked ({error.strerror})") from error
        path.unlink(missing_ok=True)
        return None, _no_lock(folder, f"its file system answers: {error.strerror}")
    if not _is_at(path, descriptor):  # it was removed between opening and locking
        os.close(descriptor)
        return _try_to_lock(path, folder, job)
    _held_here.add(path)
    with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor, ""


def _is_at(path: pathlib.Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _refusal(folder: pathlib.Path, job: str, holder: str) -> str:
    return (
        f"{folder}: {holder} is doing the same job ({job}) in this folder; "
        "wait until it ends, stop it, or choose another folder"
    )


def _no_lock(folder: pathlib.Path, reason: str) -> str:
    return f"{folder} is not locked ({reason}): a second run in this folder would not be noticed"
