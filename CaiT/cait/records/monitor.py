"""Training monitors: LayerScale by depth, VisualDL, and profiles of single operations."""

import contextlib
import io
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import paddle
from paddle import profiler

from cait.errors import UsageError
from cait.files import naming_what_fails
from cait.machine.device import why_no_profiler
from cait.model import CaiT

RECORDS = "vdlrecords.run.log"  # VisualDL goes by the first word
WARM_UP_STEPS = 2


def layer_scale(model: CaiT) -> dict[str, list[float]]:
    """Mean |gamma| of every self-attention block, from the first to the last, of both its branches (paper, fig. 2)."""
    return {
        name: paddle.stack([getattr(block, name).abs().mean() for block in model.blocks]).tolist()
        for name in ("gamma_1", "gamma_2")
    }


def check_visualdl() -> None:
    """Raises UsageError if VisualDL is not installed."""
    try:
        import visualdl  # noqa: F401
    except ImportError as error:
        raise UsageError("VISUALDL needs visualdl, which is not installed: pip install visualdl") from error


def check_profiler() -> None:
    """Raises UsageError if Paddle's profiler does not work here."""
    if reason := why_no_profiler():
        raise UsageError(f"PROFILE_STEPS: {reason}; leave it out, or install the PaddlePaddle for CPUs")


def write_scalars(folder: str | os.PathLike, row: Mapping[str, Any]) -> None:
    """Adds the numbers of an epoch to a folder that `visualdl --logdir` shows; a list gets a curve for each entry."""
    with naming_what_fails(folder):
        _write_scalars(folder, row)


def _write_scalars(folder: str | os.PathLike, row: Mapping[str, Any]) -> None:
    from visualdl import LogWriter

    with contextlib.redirect_stdout(io.StringIO()):  # it says that the file is there already
        writer = LogWriter(logdir=str(folder), file_name=RECORDS)
    for name, value in row.items():
        entries = {f"{name}/{index:02d}": entry for index, entry in enumerate(value)} if isinstance(value, list) else {}
        for tag, number in (entries or {name: value}).items():
            writer.add_scalar(tag=tag, value=number, step=row["epoch"])
    writer.close()


class StepProfiler:
    """Records some training steps with Paddle's profiler, after two steps of warming up.

    The trace goes to `<folder>/profile`, for chrome://tracing; its name holds the process and the time.

    Args:
        folder: of the run.
        num_steps: to record; 0 records nothing.
    """

    def __init__(self, folder: pathlib.Path, num_steps: int):
        self._left = WARM_UP_STEPS + num_steps if num_steps else 0
        if not num_steps:
            return
        targets = [profiler.ProfilerTarget.CPU]
        targets += [profiler.ProfilerTarget.GPU] if "gpu" in paddle.device.get_device() else []
        self._profiler = profiler.Profiler(
            targets=targets,
            scheduler=(WARM_UP_STEPS, self._left),
            on_trace_ready=profiler.export_chrome_tracing(str(folder / "profile")),
        )
        self._profiler.start()

    def step(self) -> None:
        """To be called after every optimizer step."""
        if self._left:
            self._left -= 1
            self._profiler.step()
            if not self._left:
                self._profiler.stop()

    def stop(self) -> None:
        """Ends the recording where training was shorter."""
        if self._left:
            self._left = 0
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns where it ends before it recorded anything
                self._profiler.stop()
