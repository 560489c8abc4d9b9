"""Builds the operators where a compiler is, once for each version of PaddlePaddle and of their source, and loads them.

The library is kept in `$XDG_CACHE_HOME/cait` (`~/.cache/cait`), in a folder named after what it was built from.
"""

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import importlib.util
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType

import paddle

from cait.files import replacing, write_text

NAME = "cait_ops"
SOURCE_FOLDER = pathlib.Path(__file__).resolve().parent
COMPILER_FLAGS = ["-O3", "-std=c++17", "-fopenmp"]
# Paddle's own OpenMP: with a second one in the process, the threads of both compete for the cores.
LINKER_FLAGS = ["-l:libiomp5.so"]
LIBRARY, WRAPPERS, FAILURE = f"{NAME}.so", f"{NAME}.py", "build.log"


class OperatorsUnavailable(Exception):
    """Why the operators cannot be used on this machine, in a phrase."""


@functools.cache
def _key() -> str:
    """Of this version of PaddlePaddle, this source and this kind of processor."""
    key = hashlib.sha256()
    for text in (paddle.__version__, paddle.version.commit, platform.machine(), *COMPILER_FLAGS, *LINKER_FLAGS):
        key.update(text.encode())
    for path in sorted(SOURCE_FOLDER.glob("*.cc")) + sorted(SOURCE_FOLDER.glob("*.h")):
        key.update(path.read_bytes())
    return key.hexdigest()[:16]


def folder() -> pathlib.Path:
    """Where the library for this version of PaddlePaddle, this source and this kind of processor is kept."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return cache / "cait" / f"{NAME}-{_key()}"


@functools.cache
def register() -> str:
    """Makes the operators known to this process, building them where that was never done.

    Returns:
        The instruction set that they use on this processor.

    Raises:
        OperatorsUnavailable: they cannot be built or loaded here.
    """
    library = _built() / LIBRARY
    try:
        with _silenced():
            paddle.utils.cpp_extension.load_op_meta_info_and_register_op(str(library))
        name = instruction_set()
    except (RuntimeError, OSError, AttributeError) as error:
        raise OperatorsUnavailable(f"{library} cannot be loaded") from error
    if not name:
        raise OperatorsUnavailable("CAIT_INSTRUCTIONS names what this processor does not have")
    return name


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keeps Paddle's warnings from stderr that it registers each operator twice, which it does by itself."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def instruction_set() -> str:
    """What the operators use on this processor now: the best it has or CAIT_INSTRUCTIONS; empty if it has not that."""
    function = ctypes.CDLL(str(folder() / LIBRARY)).cait_instruction_set
    function.restype = ctypes.c_char_p
    return function().decode()


@functools.cache
def operators() -> ModuleType:
    """The module with `cait_patches`, `cait_blocks` and `cait_class_blocks`, for tensors and for tracing.

    Raises:
        OperatorsUnavailable: they cannot be built or loaded here.
    """
    register()
    spec = importlib.util.spec_from_file_location(NAME, folder() / WRAPPERS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _built() -> pathlib.Path:
    """The folder with the library, built now if it was not there."""
    target = folder()
    if _whole(target):
        return target
    if platform.system() != "Linux":
        raise OperatorsUnavailable("they are built on Linux only")
    if not shutil.which("g++"):
        raise OperatorsUnavailable("there is no compiler (g++)")
    try:
        target.mkdir(parents=True, exist_ok=True)
        lock = os.open(target / "lock", os.O_CREAT | os.O_WRONLY)
    except OSError as error:
        raise OperatorsUnavailable(f"{target} cannot be written ({error.strerror})") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be building the same
        if not _whole(target):
            _build(target)
    finally:
        os.close(lock)
    return target


def _whole(target: pathlib.Path) -> bool:
    return (target / LIBRARY).is_file() and (target / WRAPPERS).is_file()


def _build(target: pathlib.Path) -> None:
    failure = target / FAILURE
    if failure.is_file():
        raise OperatorsUnavailable(f"building them failed before; {failure} says why, remove it to try again")
    print("building the fused operators, once: about half a minute", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        environment = os.environ | {"PYTHONPATH": str(SOURCE_FOLDER.parent.parent)}
        command = [sys.executable, "-m", "cait.ops.build", scratch]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            write_text(failure, done.stdout)
            raise OperatorsUnavailable(f"building them failed; {failure} says why")
        for name in (WRAPPERS, LIBRARY):
            with replacing(target / name) as temporary:
                shutil.copyfile(pathlib.Path(scratch) / name, temporary)
