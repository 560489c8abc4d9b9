"""Builds the operators where a compiler is, once for each version of PaddlePaddle and of their source; loads them."""

import contextlib
import ctypes
import functools
import importlib.util
import os
import pathlib
import sys
from collections.abc import Iterator
from types import ModuleType

import paddle

from cait.compiled import CannotBuild, build_once, cache_folder, key_of

NAME = "cait_ops"
SOURCE_FOLDER = pathlib.Path(__file__).resolve().parent
COMPILER_FLAGS = ["-O3", "-std=c++17", "-fopenmp"]
# Paddle's own OpenMP: with a second one in the process, the threads of both compete for the cores.
LINKER_FLAGS = ["-l:libiomp5.so"]
LIBRARY, WRAPPERS = f"{NAME}.so", f"{NAME}.py"
NOTICE = "building the fused operators, once: about half a minute"


class OperatorsUnavailable(Exception):
    """Why the operators cannot be used on this machine, in a phrase."""


@functools.cache
def _key() -> str:
    """Of this version of PaddlePaddle, this source and this kind of processor."""
    sources = sorted(SOURCE_FOLDER.glob("*.cc")) + sorted(SOURCE_FOLDER.glob("*.h"))
    versions = (paddle.__version__, paddle.version.commit, *COMPILER_FLAGS, *LINKER_FLAGS)
    return key_of([*versions, *(path.read_bytes() for path in sources)])


def folder() -> pathlib.Path:
    """Where the library for this version of PaddlePaddle, this source and this kind of processor is kept."""
    return cache_folder(NAME, _key())


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
    command = [sys.executable, "-m", "cait.ops.build", "{folder}"]
    try:
        build_once(target, [WRAPPERS, LIBRARY], command, NOTICE)
    except CannotBuild as reason:
        raise OperatorsUnavailable(str(reason)) from reason
    return target
