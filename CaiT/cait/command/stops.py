"""SIGTERM and Ctrl-C: what a command does ends once, in order, and whatever it ends with then is that stop.

A batch system, a terminal and a launcher may all send the same stop, to the main process and to those that it started.
"""

import contextlib
import importlib.machinery
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator

STOPS: dict[int, tuple[str, int]] = {signal.SIGINT: ("interrupted", 130), signal.SIGTERM: ("terminated", 143)}
SAME_STOP_SECONDS = 2.0  # a signal within them means the same stop; a later one that the end takes too long
CHECK_SECONDS = 1.0
PARENT_CHECK_SECONDS = 2.0
GROUP_STOP_SECONDS = 5.0  # that a parent has to end its own, once all were told to stop
OWN_SIGNAL_SECONDS = 1.0


class Terminated(BaseException):
    """SIGTERM, as a batch system sends it."""


class Interrupted(KeyboardInterrupt):
    """SIGINT, as a terminal sends it on Ctrl-C."""


class _State:
    """Of this process: the signal that asked for a stop and when, and the exception that it became."""

    number: int | None = None
    since = 0.0
    raised: Callable[[], BaseException | None] = staticmethod(lambda: None)
    before: dict = {}


def asked() -> tuple[str, int] | None:
    """The word and the exit code of the stop that this process was asked for."""
    return None if _State.number is None else STOPS[_State.number]


def is_for_all() -> bool:
    """Whether the process that started this one says of the stop for both."""
    return "CAIT_STARTER" in os.environ


def install() -> None:
    """Makes a stop an exception in the main thread, as Ctrl-C is, until `settle`."""
    _State.number = None
    if threading.current_thread() is not threading.main_thread():
        return  # where Python takes no handlers
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background
        numbers.append(signal.SIGINT)
    _State.before = {number: signal.signal(number, _on_signal) for number in numbers}
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def settle() -> None:
    """The command is over: a signal now changes nothing of how the process ends."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
    is_interactive = hasattr(sys, "ps1")  # as in a notebook, whose process goes on
    for number, handler in _State.before.items():
        signal.signal(number, handler if is_interactive else signal.SIG_IGN)


def _on_signal(number: int, frame) -> None:
    if _State.number is not None:
        if time.monotonic() - _State.since > SAME_STOP_SECONDS:
            os._exit(STOPS[_State.number][1])
        return
    _State.number, _State.since = number, time.monotonic()
    # The signal may come while Paddle builds an object, whose half complains when it is taken down.
    sys.unraisablehook = lambda _: None
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _raise_again)
        signal.setitimer(signal.ITIMER_REAL, CHECK_SECONDS, CHECK_SECONDS)
    _raise()


def _raise() -> None:
    error = Terminated() if _State.number == signal.SIGTERM else Interrupted()
    _State.raised = weakref.ref(error)
    try:
        raise error
    finally:
        del error  # which would keep it alive through its own traceback


def _raise_again(number: int, frame) -> None:
    """Where nobody holds the exception any more, a bare `except` or a destructor has swallowed it."""
    if _State.raised() is None:
        _raise()


@contextlib.contextmanager
def held(*numbers: int) -> Iterator[None]:
    """Context in which these signals wait; in processes started within it, they wait for ever."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Finder:
    """Lets a stop wait while the libraries are imported that start threads, or take the signals for themselves.

    A thread that they start would take a signal that the main thread lets wait: it is made to let it wait as well.
    Broken off, they may say that they are not installed rightly; Paddle answers SIGTERM with a dump of its stacks.
    """

    def find_spec(self, name, path=None, target=None):
        """Like the method of `importlib.abc.MetaPathFinder`."""
        if name not in ("numpy", "paddle") or not (spec := importlib.machinery.PathFinder.find_spec(name, path)):
            return None
        execute = spec.loader.exec_module

        def exec_module(module) -> None:
            with held(*STOPS):
                execute(module)
                if name == "paddle":
                    handler = signal.getsignal(signal.SIGTERM)
                    module.disable_signal_handler()  # which resets the signal as well
                    signal.signal(signal.SIGTERM, handler)

        spec.loader.exec_module = exec_module
        return spec


def end_with_parent(parent: int) -> None:
    """Makes a process that works for its parent end when that says so or is gone, and not by a signal to them all.

    To be called in its main thread, before it starts others.

    Args:
        parent: its process id, as the parent itself knows it: it may be gone already.
    """
    waits = hasattr(signal, "sigtimedwait")
    if waits:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)

    def watch() -> None:
        deadline = float("inf")
        while os.getppid() == parent and time.monotonic() < deadline:
            if not waits:
                time.sleep(PARENT_CHECK_SECONDS)
                continue
            info = signal.sigtimedwait([signal.SIGTERM], PARENT_CHECK_SECONDS)
            if info and info.si_pid == parent:
                os._exit(0)
            if info:  # a second signal is lost where the first still waits: this one may be the parent's as well
                deadline = min(deadline, time.monotonic() + GROUP_STOP_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def wait_for_own(returncode: int = -signal.SIGTERM) -> None:
    """After a child ended: where a stop ended it, that for this process may be on its way, and is raised here.

    Args:
        returncode: of the child, negative for a signal.
    """
    codes = {code for _, code in STOPS.values()} | {-number for number in STOPS}
    if returncode in codes and threading.current_thread() is threading.main_thread():
        time.sleep(OWN_SIGNAL_SECONDS)
