"""Printing where nobody reads: closed streams, readers that went away, full disks, and streams of other programs."""

import fcntl
import io
import os
import subprocess
import sys

import pytest

from cait.command import streams
from cait.records import log
from project import ROOT

CODE = """
import os, sys
sys.path.insert(0, "CaiT")
from cait.command.run import run_command

def main():
    for number in range(int(sys.argv[2])):
        print("line", number)
    print("a note", file=sys.stderr)
    with open(sys.argv[1], "w") as file:
        file.write(f"written to {file.fileno()}\\n")
        file.flush()
        os.system("echo from another program; echo and its note >&2")

run_command(main, has_log="has_log" in sys.argv)
"""


def run(target, lines=3, shell="", *words, **options):
    """Runs the command above through a shell, which redirects its streams; returns the process."""
    command = f'"$0" -c "$1" "{target}" {lines} {" ".join(words)} {shell}'
    return subprocess.Popen(["bash", "-c", command, sys.executable, CODE], cwd=ROOT, text=True, **options)


@pytest.mark.any_paddle
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_closed_stream_takes_no_file_of_ours(tmp_path, closed):
    process = run(tmp_path / "a", 3, closed, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    shown, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    number = int((tmp_path / "a").read_text().removeprefix("written to "))
    assert number > 2
    lines = [] if ">&-" in closed.split() else ["from another program", "line 0", "line 1", "line 2"]
    assert sorted(shown.splitlines()) == lines
    assert errors == ("" if "2>&-" in closed else "a note\nand its note\n")


@pytest.mark.any_paddle
def test_a_reader_that_goes_away_costs_the_lines_alone(tmp_path):
    process = run(tmp_path / "a", 100_000, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), errors) == (0, "a note\nand its note\n")
    assert (tmp_path / "a").read_text().startswith("written to ")


@pytest.mark.any_paddle
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_full_disk_below_standard_output_is_said_at_the_end(tmp_path, lines):
    process = run(tmp_path / "a", lines, "> /dev/full", stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=60)
    last = errors.splitlines()[-1]
    assert (process.returncode, last) == (1, "error: standard output cannot be written (No space left on device)")
    assert "Traceback" not in errors and (tmp_path / "a").read_text().startswith("written to ")
    process = run(tmp_path / "a", lines, "> /dev/full 2> /dev/full", "has_log")
    assert process.wait(60) == 0


@pytest.mark.any_paddle
def test_a_slow_reader_gets_every_line(tmp_path):
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETFL, os.O_NONBLOCK)  # as some programs leave the terminal
    process = run(tmp_path / "a", 50_000, stdout=write, stderr=subprocess.DEVNULL)
    os.close(write)
    with open(read) as file:
        assert sum(line.startswith("line") for line in file) == 50_000
    assert process.wait(60) == 0


class Notebook:
    """A stream as notebooks and IDEs have it: neither a file nor a terminal."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass


@pytest.mark.parametrize("make", [Notebook, io.StringIO, lambda: None])
def test_streams_of_other_programs_can_be_printed_to(monkeypatch, tmp_path, make):
    for name in streams.NAMES:
        monkeypatch.setattr(sys, name, make())
    opened = log.open_log(tmp_path / "log.txt")  # as a library, before any command
    opened.info("first")
    streams.prepare()
    opened = log.open_log(tmp_path / "log.txt")
    for number in log.progress(range(2), opened, 2, "Train"):
        opened.info("line %d", number)
    print("shown")
    print("noted", file=sys.stderr)
    assert streams.finish() is None
    assert not streams.is_terminal(sys.stderr)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split(" ", 3)[-1] for line in lines] == ["first", "line 0", "line 1"]
    if isinstance(sys.stdout, Notebook):
        assert "line 1" in sys.stdout.text and "shown" in sys.stdout.text and "noted" in sys.stderr.text
    log.open_log(None)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_log_that_cannot_be_written_is_said_once(capsys):
    opened = log.open_log("/dev/full")
    for number in range(3):
        opened.info("line %d", number)
    shown = capsys.readouterr()
    assert [line.split(" ", 3)[-1] for line in shown.out.splitlines()] == ["line 0", "line 1", "line 2"]
    assert shown.err == ("warning: /dev/full: the log cannot be written (No space left on device); the run goes on\n")
    log.open_log(None)
