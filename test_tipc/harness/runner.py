"""Runs steps one after the other, keeps the log of commands, and ends in a table."""

import os
import pathlib
import shutil
import subprocess
import sys
import time

from cait.command import stops
from cait.errors import CaitError, UsageError
from cait.files import writable_folder, write_text
from harness import ROOT
from harness.steps import ChainStep

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
# Parsers look for the first two.
PHRASES = {PASSED: "Run successfully with command", FAILED: "Run failed with command", SKIPPED: "Not run: command"}
COLOURS = {PASSED: "32", FAILED: "31", SKIPPED: "33"}
EXIT_SKIPPED = 77  # as automake and meson have it: neither passed nor failed
TAIL_LINES = 15


def fresh_folder(folder: pathlib.Path, log_name: str) -> None:
    """Makes an empty output folder; what an earlier run left there is removed, so that nothing of it can count.

    Raises:
        UsageError: the folder holds something that is no earlier run.
    """
    if folder.is_symlink() or (folder.exists() and any(folder.iterdir()) and not (folder / log_name).is_file()):
        raise UsageError(f"{folder}: holds something else than an earlier run; remove it, or set TIPC_OUTPUT")
    if folder.exists():
        shutil.rmtree(folder)
    write_text(writable_folder(folder) / log_name, "")


class Runner:
    """Runs steps and remembers what came of them.

    Args:
        output: folder of the logs, made fresh.
        log_name: of the log with a line for each command.
    """

    def __init__(self, output: pathlib.Path, log_name: str):
        self.output = output
        self.log = output / log_name
        self.results: list[tuple[ChainStep, float, str, str]] = []  # step, seconds, result, note
        fresh_folder(output, log_name)

    def run(self, steps: list[ChainStep]) -> int:
        """Runs the steps whose needs have passed; returns the exit code."""
        done: dict[str, str] = {}
        causes: dict[str, str] = {}  # of what was not run: the step at fault, or what this machine lacks
        for number, step in enumerate(steps, 1):
            print(f"[{number}/{len(steps)}] {step.name}\n    {step.command}", flush=True)
            seconds, result, note = 0.0, SKIPPED, step.skip
            unmet = next((need for need in step.needs if done[need] != PASSED), None)
            if unmet is not None:
                note = f"{unmet} failed" if done[unmet] == FAILED else causes[unmet]
            elif not step.skip:
                seconds, result, note = self._run_one(step)
            done[step.name], causes[step.name] = result, note
            self.results.append((step, seconds, result, note))
            print(f"    {_coloured(result)} {f'after {seconds:.1f} s' if seconds else ''} {note}".rstrip(), flush=True)
            write_text(self.log, "".join(self._line(*row) for row in self.results))
        return self._end()

    def _run_one(self, step: ChainStep) -> tuple[float, str, str]:
        """Seconds, result, and why it failed or what it said. Neither an older log nor older files count."""
        log = ROOT / step.log
        log.parent.mkdir(parents=True, exist_ok=True)
        variables = os.environ | step.variables
        if step.timing_of:
            variables["model_run_time"] = next(
                str(round(seconds)) for earlier, seconds, *_ in self.results if earlier.name == step.timing_of
            )
        started = time.monotonic()
        with open(log, "wb") as file:  # of a process that runs for long: to be read while it grows
            try:
                code = subprocess.run(
                    step.words, cwd=ROOT, env=variables, stdout=file, stderr=subprocess.STDOUT
                ).returncode
            except OSError as error:
                return 0.0, FAILED, f"{step.words[0]}: cannot be started ({error.strerror})"
        stops.wait_for_own(code)
        seconds = time.monotonic() - started
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        note = f"exit code {code}" if code else step.left_undone()
        if not note:
            return seconds, PASSED, lines[-1] if len(lines) == 1 else ""
        for line in lines[-TAIL_LINES:]:
            print(f"    | {line}")
        return seconds, FAILED, f"{note}; {lines[-1]}" if code and lines else note

    def _line(self, step: ChainStep, seconds: float, result: str, note: str) -> str:
        return f"{PHRASES[result]} - {step.command}!{f' ({note})' if result == SKIPPED else ''}\n"

    def _end(self) -> int:
        table = self.table()
        write_text(self.output / "summary.txt", table)
        print(f"\n{table}", end="")
        results = [result for _, _, result, _ in self.results]
        if FAILED in results:
            return CaitError.exit_code
        has_proof = any(step.proves and result == PASSED for step, _, result, _ in self.results)
        return 0 if has_proof else EXIT_SKIPPED

    def table(self) -> str:
        """Steps with seconds and result, then the count and the verdict."""
        width = max((len(step.name) for step, *_ in self.results), default=4)
        lines = [f"{'command':{width}}  seconds  result"]
        for step, seconds, result, note in self.results:
            shown = f"  {note}" if note and result != PASSED else ""
            lines.append(f"{step.name:{width}}  {seconds:7.1f}  {result}{shown}")
        results = [result for _, _, result, _ in self.results]
        lines.append(", ".join(f"{results.count(word)} {word}" for word in (PASSED, FAILED, SKIPPED)))
        has_proof = any(step.proves and result == PASSED for step, _, result, _ in self.results)
        first = next((step.name for step, _, result, _ in self.results if result == FAILED), None)
        if first is not None:
            lines.append(f"FAILED: {first}")
        elif has_proof:
            lines.append("PASSED")
        else:
            lines.append("SKIPPED: what this mode is to show was not run, so it counts neither as passed nor as failed")
        return "\n".join(lines) + "\n"


def _coloured(result: str) -> str:
    return f"\033[{COLOURS[result]}m{result}\033[0m" if sys.stdout.isatty() else result
