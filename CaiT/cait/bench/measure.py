"""Measuring things against each other: in turn, after a warm-up, with median and spread.

A machine is rarely at rest, and its clock changes. So the contestants take turns, and each ratio is the median of the
ratios within a round, in which both ran close to each other.
"""

import dataclasses
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from cait.command import stops
from cait.errors import CaitError

SCRIPTS = pathlib.Path(__file__).resolve().parents[2]  # the folder of the scripts, and of the package


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The values of one contestant, one a round.

    Attributes:
        name: of what was measured.
        unit: such as `s`, `ms`, `MB` or `images/s`; of a rate more is better, of all others less.
        values: in the order of the rounds.
    """

    name: str
    unit: str
    values: list[float]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper one; of a single value, that value."""
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        lower, _, upper = statistics.quantiles(self.values, method="inclusive")
        return lower, upper

    @property
    def is_rate(self) -> bool:
        """Whether more is better."""
        return self.unit.endswith("/s")

    def ratio_to(self, baseline: "Measurement") -> float:
        """This one over another that ran in the same rounds: the median of the ratios within a round."""
        return statistics.median(own / other for own, other in zip(self.values, baseline.values, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """Name, unit, median, spread and values, for JSON."""
        lower, upper = self.quartiles
        spread = {"minimum": min(self.values), "lower_quartile": lower, "upper_quartile": upper}
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            **spread,
            "maximum": max(self.values),
            "values": self.values,
        }


def power_of_growth(sizes: Sequence[float], found: Sequence[Measurement]) -> float:
    """With which power of the size the measurements grow, from the first one to the last."""
    return math.log(found[-1].median / found[0].median) / math.log(sizes[-1] / sizes[0])


def tell(words: str) -> None:
    """A line of progress to stderr, with the time of day."""
    tqdm.write(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr)


def measure_in_turn(
    title: str,
    contestants: Mapping[str, Callable[[], float]],
    unit: str,
    rounds: int,
    warm_up: int = 1,
    scale: float = 1.0,
) -> list[Measurement]:
    """Lets each contestant do its work once a round, in an order that turns by one each round.

    Args:
        title: for the progress, which is a bar on a terminal and a line a round elsewhere.
        contestants: by name; each does its work and returns the value measured (`seconds_of`, `rate_of`).
        unit: of `scale` times the values.
        rounds: that count.
        warm_up: rounds before them that do not.
        scale: from the contestants' unit to `unit`.
    """
    values: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    bar = tqdm(range(warm_up + rounds), desc=title, disable=None, leave=False)
    for number in bar:
        if bar.disable:
            tell(f"{title}: round {number + 1} of {bar.total}")
        for name in order[number % len(order) :] + order[: number % len(order)]:
            value = contestants[name]() * scale
            if number >= warm_up:
                values[name].append(value)
    return [Measurement(name, unit, found) for name, found in values.items()]


def seconds_of(work: Callable[[], Any], times: int = 1) -> Callable[[], float]:
    """A contestant: seconds of one call of `work`, from `times` calls in a row."""

    def measure() -> float:
        started = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - started) / times

    return measure


def rate_of(work: Callable[[], Any], amount: int, times: int = 1) -> Callable[[], float]:
    """A contestant: how much a second, where one call of `work` does `amount` of it."""
    seconds = seconds_of(work, times)
    return lambda: amount / seconds()


def environment_of_a_process() -> dict[str, str]:
    """That of this process, whose threads and device it shares; this package can be imported."""
    return os.environ | {"PYTHONPATH": str(SCRIPTS)}


def run_command_line(words: Sequence[str | os.PathLike]) -> str:
    """Runs `python *words` and returns what it printed.

    Raises:
        CaitError: it failed; the message holds its last line.
    """
    command = [sys.executable, *(os.fspath(word) for word in words)]
    result = subprocess.run(command, env=environment_of_a_process(), capture_output=True, text=True)
    check_process(command, result.returncode, result.stdout, result.stderr)
    return result.stdout


def seconds_to_first_line(words: Sequence[str | os.PathLike]) -> tuple[float, float]:
    """Seconds of `python *words` from the start of the process to the first line it prints, and to its end.

    Raises:
        CaitError: it failed; the message holds its last line.
    """
    command = [sys.executable, "-u", *(os.fspath(word) for word in words)]
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            answered = time.perf_counter() - started
            rest = process.stdout.read()
        ended = time.perf_counter() - started
        errors.seek(0)
        check_process(command, process.returncode, line + rest, errors.read())
    return answered, ended


def last_line(*texts: str) -> str:
    """The last line of the first of these texts, which a process printed, that is not empty."""
    return next((text.strip() for text in texts if text.strip()), "it printed nothing").splitlines()[-1]


def check_process(command: Sequence[str], returncode: int, output: str, errors: str) -> None:
    """Raises CaitError with the last line of what a process printed, if it failed."""
    if returncode:
        stops.wait_for_own(returncode)
        last = last_line(errors, output)
        shown = " ".join(pathlib.Path(word).name if os.sep in word else word for word in command[1:])
        raise CaitError(f"python {shown:.200}: failed with exit code {returncode} ({last})")
