"""Builds the operators where a compiler is, once for each version of PaddlePaddle and of their source; loads them."""

import contextlib
import ctypes
import functools
import importlib.machinery
import importlib.util
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, ModuleType
from typing import TypeVar

import paddle

from cait.machine.compiled import CannotBuild, build_once, cache_folder, key_of, state_of

NAME = "cait_ops"
OPERATORS = ("cait_patches", "cait_blocks", "cait_class_blocks")
SOURCE_FOLDER = pathlib.Path(__file__).resolve().parent
COMPILER_FLAGS = ["-O3", "-std=c++17", "-fopenmp"]
# Paddle's own OpenMP, where it has one: with a second one in the process, the threads of both compete for the cores.
OPENMP = "libiomp5.so"
LINKER_FLAGS = [f"-l:{OPENMP}" if (pathlib.Path(paddle.__file__).parent / "libs" / OPENMP).is_file() else "-fopenmp"]
LIBRARY, WRAPPERS = f"{NAME}.so", f"{NAME}.py"
NOTICE = "building the fused operators, once: about half a minute"
Result = TypeVar("Result")


class OperatorsUnavailable(Exception):
    """Why the operators cannot be used on this machine, in a phrase."""


def _once(work: Callable[[], Result]) -> Callable[[], Result]:
    """As `functools.cache`, but threads that ask at the same time wait for the first one."""
    cached, lock = functools.cache(work), threading.Lock()

    @functools.wraps(work)
    def call() -> Result:
        with lock:
            return cached()

    return call


@functools.cache
def _key() -> str:
    """Of these versions of PaddlePaddle and Python, this source and this kind of processor."""
    sources = sorted(SOURCE_FOLDER.glob("*.cc")) + sorted(SOURCE_FOLDER.glob("*.h"))
    versions = (paddle.__version__, paddle.version.commit, sys.implementation.cache_tag, *COMPILER_FLAGS, *LINKER_FLAGS)
    return key_of([*versions, *(path.read_bytes() for path in sources)])


def folder() -> pathlib.Path:
    """Returns the folder of the library for these versions, this source and this kind of processor."""
    return cache_folder(NAME, _key())


def state() -> str:
    """Whether they are built already, in a few words; nothing is built.

    Raises:
        OperatorsUnavailable: there is no place for them.
    """
    try:
        return state_of(folder(), [WRAPPERS, LIBRARY])
    except CannotBuild as reason:
        raise OperatorsUnavailable(str(reason)) from reason


@_once
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
        raise OperatorsUnavailable(f"{library} cannot be loaded{_why_not(library)}") from error
    if not name:
        raise OperatorsUnavailable("CAIT_INSTRUCTIONS names what this processor does not have")
    return name


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keeps Paddle's warnings from stderr that it registers each operator twice, which it does by itself."""
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # it is closed, and shows nothing
        yield
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _why_not(library: pathlib.Path) -> str:
    """What the system says of a library that it cannot load, such as another one that is missing."""
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return f" ({error})"
    return ""


def instruction_set() -> str:
    """Returns the instruction set that the operators use, the best one or CAIT_INSTRUCTIONS; empty if it is missing."""
    function = ctypes.CDLL(str(folder() / LIBRARY)).cait_instruction_set
    function.restype = ctypes.c_char_p
    return function().decode()


@_once
def operators() -> ModuleType:
    """The module with the functions named in OPERATORS, for tensors and for tracing.

    Raises:
        OperatorsUnavailable: they cannot be built or loaded here.
    """
    register()
    path = str(_built() / WRAPPERS)
    loader = _SourceAlone(NAME, path)
    spec = importlib.util.spec_from_file_location(NAME, path, loader=loader)
    assert spec is not None  # which it is with a loader
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class _SourceAlone(importlib.machinery.SourceFileLoader):
    """Neither reads nor writes bytecode, which would lie beside the source and is not what was checked."""

    def get_code(self, name: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _built() -> pathlib.Path:
    """The folder with the library, built now if it was not there."""
    command = [sys.executable, "-m", "cait.ops.build", "{folder}"]
    try:
        target = folder()
        build_once(target, [WRAPPERS, LIBRARY], command, NOTICE)
    except CannotBuild as reason:
        raise OperatorsUnavailable(str(reason)) from reason
    return target
