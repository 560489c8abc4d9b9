"""Libraries that are compiled on the user's machine, once for each version of what they are made of.

They are kept in `$XDG_CACHE_HOME/cait` (`~/.cache/cait`), in a folder named after what it was built from.
"""

import fcntl
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence

from cait.errors import CaitError
from cait.files import replacing, user_cache, write_text

FAILURE = "build.log"


class CannotBuild(Exception):
    """Why libraries cannot be built on this machine, in a phrase."""


def key_of(parts: Iterable[str | bytes]) -> str:
    """A short key of all that a library is made of, and of this kind of processor."""
    digest = hashlib.sha256()
    for part in (platform.machine(), *parts):
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:16]


def cache_folder(name: str, key: str) -> pathlib.Path:
    """Where a library of this name and key is kept.

    Raises:
        CannotBuild: there is no such place.
    """
    try:
        return user_cache() / f"{name}-{key}"
    except CaitError as error:
        raise CannotBuild(str(error)) from error


def build_once(target: pathlib.Path, files: Sequence[str], command: Sequence[str], notice: str) -> None:
    """Leaves the files in the folder, unless they are there; of several processes one builds and the others wait.

    Args:
        target: the folder, made where needed.
        files: names of what is built.
        command: builds them in a scratch folder, whose path takes the place of "{folder}"; it can import this package.
        notice: for stderr, where it is run.

    Raises:
        CannotBuild: there is no compiler, the folder cannot be written, or the command fails or did so before.
    """
    if _whole(target, files):
        return
    if platform.system() != "Linux":
        raise CannotBuild("they are built on Linux only")
    if not shutil.which("g++"):
        raise CannotBuild("there is no compiler (g++)")
    try:
        target.mkdir(parents=True, exist_ok=True)
        with (target / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be building the same
            if not _whole(target, files):
                _build(target, files, command, notice)
    except OSError as error:
        raise CannotBuild(f"{target} cannot be written ({error.strerror or error})") from error


def _whole(target: pathlib.Path, files: Sequence[str]) -> bool:
    return all((target / name).is_file() for name in files)


def _build(target: pathlib.Path, files: Sequence[str], command: Sequence[str], notice: str) -> None:
    failure = target / FAILURE
    if failure.is_file():
        raise CannotBuild(f"building them failed before; {failure} says why, remove it to try again")
    print(notice, file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).resolve().parent.parent)}
        words = [word.replace("{folder}", scratch) for word in command]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
        done = subprocess.run(words, env=environment, **streams)
        if done.returncode:
            write_text(failure, done.stdout)
            raise CannotBuild(f"building them failed; {failure} says why")
        for name in files:
            with replacing(target / name) as temporary:
                shutil.copyfile(pathlib.Path(scratch) / name, temporary)
