"""The rows that a parameter file is made of, and those that no machine can run.

A row of training is one of the alternatives of lines 4 and 5, with one of line 6. A row of inference is one of each of
lines 41 to 46, as far as its device uses them.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from cait.deploy.engine import Engine, why_never


class Lines(Protocol):
    """A parameter file, as far as rows need it."""

    def values(self, number: int) -> list[str]:
        """The alternatives of a line."""


class Row(NamedTuple):
    """A row of training."""

    gpus: str
    device: str
    autocast: str

    @property
    def numbers(self) -> str:
        """GPU numbers without the hosts."""
        return self.gpus.rpartition(";")[2]

    @property
    def is_on_cpu(self) -> bool:
        """Whether it stays on the CPU, whatever the machine has."""
        return self.device == "cpu"

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment: a single process shall see its own GPU alone."""
        return {} if self.gpus == "-1" else {"CUDA_VISIBLE_DEVICES": self.numbers}


class InferenceRow(NamedTuple):
    """A row of inference: the values of lines 41 to 46."""

    use_gpu: str
    mkldnn: str
    threads: str
    batch_size: str
    tensorrt: str
    precision: str

    @property
    def on_gpu(self) -> bool:
        """Whether it is for a GPU."""
        return self.use_gpu == "True"

    @property
    def engine(self) -> Engine:
        """What it asks Paddle Inference for."""
        tensorrt = self.on_gpu and self.tensorrt == "True"
        return Engine(self.on_gpu, self.mkldnn == "True", precision=self.precision, tensorrt=tensorrt)


def rows(file: Lines) -> Iterator[Row]:
    """All rows of training. One device on line 5 holds for all of line 4."""
    gpu_lists, devices = file.values(4), file.values(5)
    for gpus, device in zip(gpu_lists, devices * len(gpu_lists) if len(devices) == 1 else devices):
        for autocast in file.values(6):
            yield Row(gpus, device, autocast or "null")


def inference_rows(file: Lines) -> Iterator[InferenceRow]:
    """All rows of inference. Of a line that a device does not use, only the first value counts."""
    for use_gpu in file.values(41):
        of_cpu, of_gpu = (slice(1), slice(None)) if use_gpu == "True" else (slice(None), slice(1))
        mkldnns, threads, tensorrts = file.values(42)[of_cpu], file.values(43)[of_cpu], file.values(45)[of_gpu]
        for mkldnn, number, tensorrt, batch, precision in itertools.product(
            mkldnns, threads, tensorrts, file.values(44), file.values(46)
        ):
            yield InferenceRow(use_gpu, mkldnn, number, batch, tensorrt, precision)


def is_amp(autocast: str) -> bool:
    """Whether a value of line 6 or 55 asks for mixed precision."""
    return autocast not in ("null", "", "False", "fp32")


def impossible_rows(file: Lines, fp_items: Sequence[str]) -> Iterator[tuple[int, str]]:
    """(line, reason) for every row that fails on every machine.

    Args:
        fp_items: of the benchmark, which runs the first row of training in each.
    """
    for row in rows(file):
        if row.is_on_cpu and is_amp(row.autocast):
            yield 6, f"{row.autocast} is mixed precision, which needs a GPU, and {row.gpus} of line 4 is run on the CPU"
    for item in fp_items:
        if is_amp(item) and next(rows(file)).is_on_cpu:
            yield 55, f"{item} is mixed precision, which needs a GPU, and the first row of line 4 is run on the CPU"
    for tried in inference_rows(file):
        if reason := why_never(tried.engine):
            where = f"--use_gpu={tried.use_gpu} on line 41, --enable_mkldnn={tried.mkldnn} on line 42"
            yield 46, f"{tried.precision} with {where} can run on no machine: {reason}"
