"""A process that decodes images for the service, one after the other, within bounds of memory and time.

It imports no Paddle, so that it is small and starts fast. `cait.serve.decoders` starts, watches and replaces it.
"""

import contextlib
import ctypes
import io
import json
import os
import resource
import signal
import socket
import struct
import sys

import numpy as np
from PIL import Image

from cait.data.decoding import formats, reading
from cait.data.pixels import loops_or_reason
from cait.deploy.pixel_reader import PixelReader
from cait.errors import CaitError

REQUEST = struct.Struct(
    "<?III"
)  # whether the PNG is wanted, seconds, bytes of the name, bytes of the file; these follow
REPLY = struct.Struct("<BI")  # the kind, and how many bytes follow
READY, PIXELS, ERROR = range(3)  # nothing follows; the pixels and then their PNG; a sentence
NAMES = {"encoding": "utf-8", "errors": "surrogatepass"}
MAX_ERROR_BYTES = 4096
MB = 1_000_000
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answers on the socket that is its standard input, until that is closed.

    The argument is JSON: the fields of a `PixelReader`, the megabytes that decoding may take, and the parent's id.
    """
    settings = json.loads(sys.argv[1])
    _end_with(settings["parent"])
    fields = settings["reader"]
    read = PixelReader(**fields | {"image_size": tuple(fields["image_size"])})
    formats()  # Pillow's readers
    loops_or_reason()  # the loops that resize may have to be compiled
    connection = socket.socket(fileno=os.dup(0))
    _bound_memory(settings["megabytes"] * MB)
    connection.sendall(REPLY.pack(READY, 0))
    with open(os.devnull, "r+") as nothing:  # from here on, libraries would write what a file makes them write
        for stream in (0, 1, 2):
            os.dup2(nothing.fileno(), stream)
    with connection, connection.makefile("rb", 1 << 16) as requests:
        while head := requests.read(REQUEST.size):
            as_png, seconds, name_bytes, file_bytes = REQUEST.unpack(head)
            name, data = str(requests.read(name_bytes), **NAMES), requests.read(file_bytes)
            # By the system, should the parent be stopped or gone: in a decoder, Python gets no turn.
            signal.alarm(seconds)
            kind, parts = decode(read, name, data, as_png)
            signal.alarm(0)
            connection.sendall(b"".join([REPLY.pack(kind, sum(map(len, parts))), *parts]))
            del data, parts


def decode(read: PixelReader, name: str, data: bytes, as_png: bool) -> tuple[int, list[bytes]]:
    """The kind of the reply on an image file, and what follows."""
    try:
        with reading(name):
            pixels = read(io.BytesIO(data), name)
            return PIXELS, [pixels.tobytes(), png(pixels) if as_png else b""]
    except CaitError as error:
        return ERROR, [bytes(str(error), **NAMES)[:MAX_ERROR_BYTES]]


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of exactly these pixels, uint8 [height, width, 1 or 3 channels]."""
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def _end_with(parent: int) -> None:
    """Only the parent ends this process: it finishes the images that it has accepted when all are told to stop."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before
        os._exit(1)


def _bound_memory(more: int) -> None:
    """Lets this process take so many bytes more than it has, and leave no picture of its memory behind."""
    with contextlib.suppress(ValueError, OSError):  # a lower limit holds already
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not sys.platform.startswith("linux"):  # where the system enforces none
        return
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[5]) * resource.getpagesize()
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (held + more, held + more))


if __name__ == "__main__":
    main()
