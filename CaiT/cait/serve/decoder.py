"""The service's side of one decoding process: how it is started, its queue, and its socket."""

import asyncio
import collections
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import socket
import subprocess
import sys
import time

from cait.deploy.pixel_reader import PixelReader
from cait.serve.decoder_process import NAMES, REPLY, REQUEST

SECONDS, MEGABYTES = 10.0, 2000  # default limits for an image
START_SECONDS = 120.0  # the loops that resize may have to be compiled
LEFT_SECONDS = 0.5  # for an image that nobody waits for any more: to replace a process takes about as long
SMALL_BYTES, MOST_IN_LINE, HELD_UP_SECONDS = 8192, 8, 0.1
CHUNK = 1 << 18
MORE_BYTES = 1 << 16
PACKAGE = pathlib.Path(__file__).resolve().parents[2]
# What lies in the working directory is not imported.
START = (
    "import sys; sys.path = [sys.argv.pop(1), *filter(None, sys.path)]; "
    "from cait.serve.decoder_process import main; main()"
)
# Threads of libraries, and what malloc sets aside for them, would count as memory of the image.
ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


@dataclasses.dataclass(frozen=True)
class DecodeLimits:
    """What an image may take: seconds to decode and resize it, and megabytes of memory (where Linux runs)."""

    seconds: float = SECONDS
    megabytes: int = MEGABYTES


DEFAULT_LIMITS = DecodeLimits()


@dataclasses.dataclass(eq=False)
class EncodedImage:
    """An encoded image that waits for a decoder, or is in one.

    Attributes:
        order: its place among those that wait.
        name, data, as_png, future: see `Decoders.decode`.
    """

    order: tuple[int, int]
    name: str
    data: bytes
    as_png: bool
    future: asyncio.Future

    @property
    def is_small(self) -> bool:
        return len(self.data) <= SMALL_BYTES


class Decoder:
    """A process, what it works at, and until when it may.

    Small images line up in it, for to wake a process takes as long as to decode one of them.

    Attributes:
        line: the images that it has; it works at the first. None: somebody else has it by now.
        since, deadline: of the first image, or of the start, by time.monotonic.
        ready: whether it has started.
    """

    def __init__(self, reader: PixelReader, limits: DecodeLimits):
        settings = {"reader": dataclasses.asdict(reader), "megabytes": limits.megabytes, "parent": os.getpid()}
        self.socket, other = socket.socketpair()
        words = [sys.executable, "-c", START, str(PACKAGE), json.dumps(settings)]
        with other:  # a session of its own: a terminal's Ctrl-C is for the service
            self.process = subprocess.Popen(
                words, stdin=other.fileno(), stdout=2, env=os.environ | ALONE, start_new_session=True
            )
        self.line: collections.deque[EncodedImage | None] = collections.deque()
        self.ready, self.since = False, time.monotonic()
        self.deadline = self.since + START_SECONDS
        self._seconds = limits.seconds
        self._received, self._unsent = bytearray(), bytearray()
        self._most = 2 * math.prod(reader.shape) + MORE_BYTES  # of a reply: a PNG may be larger than its pixels

    @property
    def idle(self) -> bool:
        """Whether it has started and has no image."""
        return self.ready and not self.line

    @property
    def is_held_up(self) -> bool:
        """Whether others should not wait in its line."""
        return time.monotonic() - self.since > HELD_UP_SECONDS

    def has_room(self, image: EncodedImage) -> bool:
        """Whether the image would be in the line soon enough."""
        if not self.line:
            return self.ready
        last = self.line[-1]
        if last is None or not (image.is_small and last.is_small and len(self.line) < MOST_IN_LINE):
            return False
        return not self.is_held_up

    def give(self, image: EncodedImage) -> None:
        """Puts an image in the line; to be sent."""
        name = bytes(image.name, **NAMES)
        self._unsent += REQUEST.pack(image.as_png, math.ceil(self._seconds) + 1, len(name), len(image.data))
        self._unsent += name
        self._unsent += image.data
        self.line.append(image)
        if len(self.line) == 1:
            self._begin()

    def finish(self) -> EncodedImage | None:
        """Takes the first image out of the line."""
        image = self.line.popleft()
        if self.line:
            self._begin()
        return image

    def _begin(self) -> None:
        image, self.since = self.line[0], time.monotonic()
        is_wanted = image is not None and not image.future.done()
        self.deadline = self.since + (self._seconds if is_wanted else LEFT_SECONDS)

    def leave(self, image: EncodedImage) -> None:
        """Nobody waits for the image any more."""
        if self.line and self.line[0] is image:
            self.deadline = min(self.deadline, time.monotonic() + LEFT_SECONDS)

    def take_back(self) -> list[EncodedImage]:
        """The images behind the first, which go elsewhere; their results do not count."""
        behind = [image for image in list(self.line)[1:] if image is not None]
        for place in range(1, len(self.line)):
            self.line[place] = None
        return behind

    def send(self) -> bool:
        """Sends what can be sent without waiting; whether that was all."""
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                del self._unsent[: self.socket.send(self._unsent)]
        return not self._unsent

    def replies(self) -> list[tuple[int, bytes]]:
        """The kinds of the replies that have come, and what follows in each.

        Raises:
            OSError: the process has ended, or writes what it should not.
        """
        if not (chunk := self.socket.recv(CHUNK)):
            raise ConnectionResetError
        self._received += chunk
        found: list = []
        while len(self._received) >= REPLY.size:
            kind, length = REPLY.unpack_from(self._received)
            if length > self._most or len(found) > len(self.line):
                raise ConnectionAbortedError
            if len(self._received) < REPLY.size + length:
                break
            found.append((kind, bytes(memoryview(self._received)[REPLY.size : REPLY.size + length])))
            del self._received[: REPLY.size + length]
        return found

    def end(self) -> None:
        """Ends the process at once; to be waited for."""
        self.socket.close()
        self.process.kill()
