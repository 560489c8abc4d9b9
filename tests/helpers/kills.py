"""Processes that die in the middle of changing files."""

import os

STEPS = ("replace", "link", "unlink", "rmdir")  # of `os`: all that changes a folder


def kill_at(step, work):
    """Does the work in a child that dies at this step of it, as by SIGKILL; whether it came so far."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = step

    def dying(function):
        def call(*args, **options):
            nonlocal left
            left -= 1
            if not left:
                os._exit(9)
            return function(*args, **options)

        return call

    for name in STEPS:
        setattr(os, name, dying(getattr(os, name)))
    try:
        work()
    finally:
        os._exit(0)
