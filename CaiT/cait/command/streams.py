"""The standard streams of a command: whoever reads them may go away, and they may never have been there.

What cannot be shown costs the shown lines alone: the work goes on and its files are written.
"""

import errno
import io
import os
import select
import sys

NAMES = {"stdout": 1, "stderr": 2}


class _Descriptor(io.RawIOBase):
    """Writes to a descriptor until that fails, and from then on nowhere.

    Attributes:
        lost: why it failed; None: it did not.
    """

    def __init__(self, number: int):
        self._number = number
        self.lost: OSError | None = None
        self.name = f"<descriptor {number}>"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, data) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            try:
                left = left[os.write(self._number, left) :]
            except BlockingIOError:  # a pipe that someone made so
                select.select([], [self._number], [])
            except OSError as error:
                self.lost = self.lost or error
                _point_nowhere(self._number)
                break
        return size


def _point_nowhere(number: int) -> None:
    """So that what others write there, such as C code and child processes, goes nowhere too."""
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)
    os.set_inheritable(number, True)


def prepare() -> None:
    """Makes it safe to print, whatever the streams are: closed, gone, without an encoding, or a notebook's own."""
    for number in (0, *NAMES.values()):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would take the number, and get what is printed
            _point_nowhere(number)
    for name, number in NAMES.items():
        stream = getattr(sys, name)
        if stream is None:  # closed, or of a program without a console
            setattr(sys, name, _text(io.BufferedWriter(_Descriptor(number)), "utf-8", False))
        elif os.name == "posix" and isinstance(stream, io.TextIOWrapper) and _number(stream) == number:
            stream.flush()
            raw = _Descriptor(number)
            buffer = raw if stream.write_through else io.BufferedWriter(raw)
            setattr(sys, name, _text(buffer, stream.encoding, stream.line_buffering, stream.write_through))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _text(buffer, encoding: str, line_buffering: bool, write_through: bool = False) -> io.TextIOWrapper:
    how = "backslashreplace"  # a file name need not be text
    return io.TextIOWrapper(buffer, encoding, how, line_buffering=line_buffering, write_through=write_through)


def _number(stream) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # a stream that only looks like a file
        return None


def is_terminal(stream) -> bool:
    """Whether somebody looks at it; a stream that cannot say so is none."""
    ask = getattr(stream, "isatty", None)
    return bool(ask and ask())


def finish() -> OSError | None:
    """Prints what is left. Returns why standard output could not be written, unless its reader went away."""
    for name in NAMES:
        flush = getattr(getattr(sys, name), "flush", None)
        if flush:
            flush()
    raw = getattr(sys.stdout, "buffer", None)
    lost = getattr(getattr(raw, "raw", raw), "lost", None)
    return lost if lost is not None and lost.errno != errno.EPIPE else None
