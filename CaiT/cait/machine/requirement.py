"""Says how to install PaddlePaddle where it is missing; pip cannot choose its build for the user."""

import importlib.util
import sys

CPU = "pip install 'paddlepaddle>=3.3.1'"
GPU = "pip install paddlepaddle-gpu==3.3.1 -i https://www.paddlepaddle.org.cn/packages/stable/cu126/"


class PaddleMissing(ImportError):
    """PaddlePaddle is not installed; the message says how to get it."""


def require_paddle() -> None:
    """Checks that PaddlePaddle is installed, without importing it, which takes seconds.

    Every script imports the package before it can catch an error. A program that does not catch this one therefore
    ends with its sentence in place of a traceback, and with Python's exit code for it, 1.

    Raises:
        PaddleMissing: it is not installed.
    """
    if importlib.util.find_spec("paddle") is not None:
        return
    show_others = sys.excepthook

    def show(kind, error, trace):
        if issubclass(kind, PaddleMissing):
            print(f"error: {error}", file=sys.stderr)
        else:
            show_others(kind, error, trace)

    sys.excepthook = show
    raise PaddleMissing(
        f"PaddlePaddle is not installed for {sys.executable}: `make install` followed by `source .venv/bin/activate` "
        f"sets up everything (README, section 3.1); for this Python, {CPU} installs the CPU build, and {GPU} a GPU "
        "build",
        name="paddle",
    )
