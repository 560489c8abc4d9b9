"""The log and the progress bar."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

from project import ROOT, run_python

CODE = """
import pathlib, sys, time
sys.path.insert(0, "CaiT")
from cait.records.log import open_log, progress
log = open_log(pathlib.Path(sys.argv[1]))
for item in progress(range(5), log, 5, "Pred"):
    log.info("item %d", item)
    time.sleep(0.11)
"""
LINE = r"\d{4} \d\d:\d\d:\d\d [AP]M item \d"


def test_lines_go_to_the_console_and_are_appended_to_the_file(tmp_path):
    for _ in range(2):
        result = run_python("-c", CODE, tmp_path / "log.txt")
        assert result.returncode == 0 and result.stderr == ""
        assert re.fullmatch(rf"({LINE}\n){{5}}", result.stdout)
    assert re.fullmatch(rf"({LINE}\n){{10}}", (tmp_path / "log.txt").read_text())


def test_a_terminal_gets_a_bar_below_the_lines(tmp_path):
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    words = [sys.executable, "-c", CODE, str(tmp_path / "log.txt")]
    process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:  # how Linux reports the other end's closing
            break
        if not part:
            break
        shown += part
    os.close(main)
    assert process.wait() == 0
    text = shown.decode()
    assert "Pred:" in text and "4/5" in text
    assert len(re.findall(rf"\r{LINE}", text)) == 5
    assert "%|" not in (tmp_path / "log.txt").read_text()
