"""Libraries that are compiled on the user's machine, once for each version of what they are made of.

They are kept in `$XDG_CACHE_HOME/cait` (`~/.cache/cait`), in a folder named after what it was built from; where other
users can write there, in a folder of this user's own below that of temporary files. What lies there is code: it is used
only if nobody but this user and root can have put it there, and if it is what was built, byte for byte (CHECKSUMS).

A build that fails is remembered there too, for the compiler and the command that failed; where memory, space or time
was short, the next start tries again.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

from cait.errors import CaitError
from cait.files import read_text, replacing, user_cache, write_text
from cait.files.digest import sha256_of
from cait.files.folder_lock import held
from cait.files.ownership import why_not_ours

SECONDS = 900.0  # for a build; the operators take half a minute
SCRATCH = "scratch-"
CHECKSUMS = "SHA256SUMS"
MODE = 0o644  # of what is built, whatever this user lets others do with other files
# Words by which a compiler, a linker or Python says that the machine had not enough of something at that moment.
PASSING = re.compile(
    r"no space left|quota exceeded|\bkilled\b|signal terminated|out of memory|memory exhausted|cannot allocate memory"
    r"|bad_alloc|MemoryError|temporarily unavailable|too many open files|input/output error|read-only file system"
    r"|stale file handle|exit (code|status) -\d",
    re.IGNORECASE,
)


class CannotBuild(Exception):
    """Why libraries cannot be built on this machine, in a phrase."""


def key_of(parts: Iterable[str | bytes]) -> str:
    """A short key of all that a library is made of, and of this kind of processor."""
    digest = hashlib.sha256()
    for part in (platform.machine(), *parts):
        digest.update(part.encode(errors="surrogateescape") if isinstance(part, str) else part)
    return digest.hexdigest()[:16]


def cache_folder(name: str, key: str) -> pathlib.Path:
    """Returns the folder of a library with this name and key, in which other users cannot write.

    Raises:
        CannotBuild: there is no such place.
    """
    try:
        cache = user_cache()
    except CaitError as error:
        raise CannotBuild(str(error)) from error
    if platform.system() != "Linux":  # nothing is built there
        return cache / f"{name}-{key}"
    reasons: list[str] = []
    for root in (cache, pathlib.Path(tempfile.gettempdir()) / f"cait-{os.geteuid()}"):
        target = root / f"{name}-{key}"
        reason = why_not_ours([root, target])
        if not reason:
            if reasons:
                _say_once(f"{reasons[0]}: compiled libraries are kept in {root} instead")
            return target
        reasons.append(reason)
    raise CannotBuild(f"{' and '.join(reasons)}; XDG_CACHE_HOME can name another folder")


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def build_once(target: pathlib.Path, files: Sequence[str], command: Sequence[str], notice: str) -> None:
    """Leaves the files in the folder, unless they are there; of several processes one builds and the others wait.

    Args:
        target: the folder, made where needed.
        files: names of what is built.
        command: builds them in a scratch folder, whose path takes the place of "{folder}"; it can import this package.
        notice: for stderr, where it is run.

    Raises:
        CannotBuild: there is no compiler, the folder cannot be written or can be written by others, the command fails,
            or it failed before with the same compiler.
    """
    if _whole(target, files):
        return
    if platform.system() != "Linux":
        raise CannotBuild("they are built on Linux only")
    if not shutil.which("g++"):
        raise CannotBuild("there is no compiler (g++)")
    try:
        target.parent.parent.mkdir(parents=True, exist_ok=True)
        for folder in (target.parent, target):
            folder.mkdir(mode=0o755, exist_ok=True)
        if reason := why_not_ours([target.parent, target]):
            raise CannotBuild(reason)
        with held(target, "build", wait=True):  # another process may be building the same
            if not _whole(target, files):
                _build(target, files, command, notice)
    except (OSError, CaitError) as error:
        reason = (
            str(error) if isinstance(error, CaitError) else f"{target} cannot be written ({error.strerror or error})"
        )
        raise CannotBuild(f"{reason}; XDG_CACHE_HOME can name another folder") from error


def state_of(target: pathlib.Path, files: Sequence[str]) -> str:
    """Whether the files are in the folder, in a few words; nothing is built."""
    if _whole(target, files):
        return "built"
    if any(target.glob("build-*.log")):
        return "building failed"
    return "not built yet"


def _whole(target: pathlib.Path, files: Sequence[str]) -> bool:
    """Whether the files are there as they were built, and nobody else can have changed them."""
    paths = [target / name for name in (CHECKSUMS, *files)]
    if not all(path.is_file() for path in paths) or why_not_ours([target.parent, target, *paths]):
        return False
    try:
        return read_text(paths[0]) == _checksums(target, files)
    except (OSError, CaitError):  # such as one that cannot be read: it is built anew
        return False


def _checksums(folder: pathlib.Path, files: Sequence[str]) -> str:
    return "".join(f"{sha256_of(folder / name)}  {name}\n" for name in files)


def _build(target: pathlib.Path, files: Sequence[str], command: Sequence[str], notice: str) -> None:
    failure = target / f"build-{key_of([_compiler(), *command])}.log"
    if failure.is_file():
        raise CannotBuild(f"building them failed before; {failure} says why, remove it to try again")
    print(notice, file=sys.stderr, flush=True)
    for left in target.glob(f"{SCRATCH}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=SCRATCH, ignore_cleanup_errors=True) as scratch:
        exit_code, output = _run([word.replace("{folder}", scratch) for word in command], scratch)
        if exit_code:
            line = next((line.strip() for line in output.splitlines() if PASSING.search(line)), None)
            if line is None and exit_code < 0:
                line = f"signal {-exit_code}"
            if line is not None:
                raise CannotBuild(f"building them was broken off ({line[:200]}); the next start tries again")
            write_text(failure, output)
            raise CannotBuild(f"building them failed; {failure} says why")
        checksums = _checksums(pathlib.Path(scratch), files)
        for name in files:
            with replacing(target / name) as temporary:
                shutil.copyfile(pathlib.Path(scratch) / name, temporary)
                temporary.chmod(MODE)
        with replacing(target / CHECKSUMS) as temporary, open(temporary, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), MODE)
            file.write(checksums)


def _compiler() -> str:
    """What the compiler says of its version: with another one, what failed is tried again."""
    try:
        done = subprocess.run(["g++", "--version"], capture_output=True, text=True, errors="replace", timeout=60)
    except subprocess.TimeoutExpired as error:
        raise CannotBuild("the compiler (g++) does not answer") from error
    return done.stdout


def _run(words: list[str], scratch: str) -> tuple[int, str]:
    """Runs the command, which may write in the scratch folder only; its exit code and all that it said.

    Raises:
        CannotBuild: it takes too long.
    """
    package = str(pathlib.Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": paths, "TMPDIR": scratch, "LC_ALL": "C"}  # `PASSING` is in English
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    options: dict[str, Any] = {"text": True, "encoding": "utf-8", "errors": "replace", "start_new_session": True}
    with subprocess.Popen(words, env=environment, **streams, **options) as process:
        try:
            output, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise CannotBuild(
                f"the compiler did not end within {SECONDS / 60:g} minutes; the next start tries again"
            ) from error
        finally:  # with all that it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output
