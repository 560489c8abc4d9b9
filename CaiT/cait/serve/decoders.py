"""Images as bytes to pixels, in processes that are ended and replaced when an image takes too much time or memory.

All of it runs in the event loop of the service, which is the only one that calls it. The processes start when there is
work for them, or all at once in `warm_up`.
"""

import asyncio
import heapq
import itertools
import logging
import math
import subprocess
import time
from typing import Any

import numpy as np

from cait.data.decoding import UnreadableImage
from cait.deploy.pixel_reader import PixelReader
from cait.errors import CaitError
from cait.serve.decoder import START_SECONDS, DecodeLimits, Decoder, EncodedImage
from cait.serve.decoder_process import PIXELS, READY

PROCESSES = 2
TICK_SECONDS = 0.05  # between looks at the time
SLOW_SECONDS = 1.0
RETRY_SECONDS = 1.0  # after a process that could not start


class CannotDecode(Exception):
    """No process can be started, which is no fault of the image; or the service ends before its turn."""


class Decoders:
    """Decodes images in a few processes, one image each at a time.

    Of several requests each gets its turn, however many images it has.

    Args:
        reader: what the processes do with an image.
        limits: of each image.

    Attributes:
        replaced: how many processes were ended and replaced.
    """

    def __init__(self, reader: PixelReader, limits: DecodeLimits):
        self._reader, self.limits, self.replaced = reader, limits, 0
        self._decoders: list[Decoder] = []
        self._ended: list[subprocess.Popen] = []
        self._waiting: list[tuple[tuple[int, int], EncodedImage]] = []
        self._turn, self._count = 0, itertools.count()
        self._stopped, self._deadline = False, math.inf
        self._watch: asyncio.TimerHandle | None = None
        self._loop: Any = None  # the event loop, once `attach` was called
        self._retry_at = 0.0

    @property
    def can_work(self) -> bool:
        """Whether a process runs, or nothing has kept one from starting so far."""
        return bool(not self._retry_at or any(decoder.ready for decoder in self._decoders))

    @property
    def is_slow(self) -> bool:
        """Whether every process has been at its image for more than a second."""
        before = time.monotonic() - SLOW_SECONDS
        busy = [decoder for decoder in self._decoders if not decoder.idle and decoder.since < before]
        return len(busy) == PROCESSES

    def attach(self) -> None:
        """Goes on in the running event loop; to be called before the first image."""
        self._loop = asyncio.get_running_loop()
        for decoder in self._decoders:
            self._listen(decoder)

    def warm_up(self) -> None:
        """Starts all processes and waits until they are ready.

        Raises:
            CaitError: one cannot start.
        """
        while len(self._decoders) < PROCESSES:
            self._decoders.append(Decoder(self._reader, self.limits))
        for decoder in self._decoders:
            try:
                decoder.socket.settimeout(START_SECONDS)
                while not decoder.ready:
                    decoder.ready = bool(decoder.replies())
                decoder.socket.setblocking(False)
            except OSError as error:
                self.stop()
                raise CaitError("the processes that decode images cannot start; what they said stands above") from error

    async def decode(self, name: str, data: bytes, as_png: bool = False, place: int = 0) -> tuple[np.ndarray, bytes]:
        """Decodes an image to what the model sees, uint8 [height, width, channels], and to a PNG if that is wanted.

        Cancelled, it frees its process.

        Args:
            name: by which errors call the image.
            data: the file.
            as_png: whether the PNG is wanted.
            place: of the image in its request, from 0: where many wait, the first images of all requests come first.

        Raises:
            UnreadableImage: it cannot be decoded, or not within the limits.
            CannotDecode: see there.
        """
        if self._stopped:
            raise CannotDecode("the service has ended")
        image = EncodedImage((self._turn + place, next(self._count)), name, data, as_png, self._loop.create_future())
        heapq.heappush(self._waiting, (image.order, image))
        self._go_on()
        try:
            return await image.future
        finally:
            image.data = b""
            for decoder in self._decoders:
                decoder.leave(image)

    def end_within(self, seconds: float) -> None:
        """Limits the seconds that all images together may take from now on."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def stop(self) -> None:
        """Ends the processes, whatever they do."""
        self._stopped = True
        if self._watch:
            self._watch.cancel()
        for decoder in list(self._decoders):
            self._end(decoder)
            for image in decoder.line:
                self._settle(image, CannotDecode("the service has ended"))
        self._fail(CannotDecode("the service has ended"))
        for process in self._ended:
            process.wait()

    def _go_on(self) -> None:
        """Gives images to processes, and starts processes where images would wait."""
        while self._waiting:
            (turn, _), image = self._waiting[0]
            room = [decoder for decoder in self._decoders if decoder.has_room(image)]
            if not room and not image.future.done():
                break
            heapq.heappop(self._waiting)
            if image.future.done():  # nobody waits any more
                continue
            self._turn = turn
            decoder = max(room, key=lambda each: len(each.line))  # the fewer processes are awake, the better
            decoder.give(image)
            self._send(decoder)
        starting = sum(not decoder.ready for decoder in self._decoders)
        if len(self._decoders) < PROCESSES and (len(self._waiting) > starting or not self.can_work):
            self._start()
        if self._watch is None and (self._waiting or not self.can_work or not all(d.idle for d in self._decoders)):
            self._watch = self._loop.call_later(TICK_SECONDS, self._tick)

    def _start(self) -> None:
        if self._stopped or time.monotonic() < self._retry_at:
            return
        self._ended = [process for process in self._ended if process.poll() is None]
        try:
            decoder = Decoder(self._reader, self.limits)
        except OSError as error:
            self._cannot_start(str(error))
            return
        self._decoders.append(decoder)
        self._listen(decoder)

    def _cannot_start(self, reason: str) -> None:
        logging.error("a process that decodes images cannot start (%s)", reason)
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if not self.can_work:
            self._fail(CannotDecode(f"no process that decodes images can start ({reason})"))

    def _fail(self, error: Exception) -> None:
        """Tells all who wait."""
        waiting, self._waiting = self._waiting, []
        for _, image in waiting:
            self._settle(image, error)

    def _settle(self, image: EncodedImage | None, result) -> None:
        if image is None or image.future.done() or self._loop.is_closed():
            return
        if isinstance(result, Exception):
            image.future.set_exception(result)
        else:
            image.future.set_result(result)

    def _listen(self, decoder: Decoder) -> None:
        decoder.socket.setblocking(False)
        self._loop.add_reader(decoder.socket, self._read, decoder)

    def _send(self, decoder: Decoder) -> None:
        try:
            if not decoder.send():
                self._loop.add_writer(decoder.socket, self._send_rest, decoder)
        except OSError:
            self._replace(decoder, "")

    def _send_rest(self, decoder: Decoder) -> None:
        self._loop.remove_writer(decoder.socket)
        self._send(decoder)

    def _read(self, decoder: Decoder) -> None:
        try:
            replies = decoder.replies()
        except BlockingIOError:
            return
        except OSError:
            self._replace(decoder, "")
            return
        for kind, payload in replies:
            if kind == READY:
                decoder.ready, self._retry_at = True, 0.0
            elif kind == PIXELS and len(payload) >= (size := math.prod(self._reader.shape)):
                pixels = np.frombuffer(payload, "uint8", size).reshape(self._reader.shape)
                self._settle(decoder.finish(), (pixels, payload[size:]))
            else:
                self._settle(decoder.finish(), UnreadableImage(str(payload, "utf-8", "replace")))
        self._go_on()

    def _tick(self) -> None:
        self._watch = None
        now = time.monotonic()
        for decoder in list(self._decoders):
            if not decoder.ready:
                if now >= decoder.deadline:
                    self._replace(decoder, f"it is not ready after {START_SECONDS:g} seconds")
            elif decoder.line and now >= min(decoder.deadline, self._deadline):
                self._replace(decoder, f"decoding it takes longer than {self.limits.seconds:g} seconds")
            elif decoder.is_held_up:
                self._put_back(decoder)
        if now >= self._deadline:
            self._fail(CannotDecode("the service ends"))
        self._go_on()

    def _replace(self, decoder: Decoder, reason: str) -> None:
        """Ends a process; the reason is why its image has no result, if the process has not ended by itself."""
        self._end(decoder)
        if not reason:
            reason = f"its decoder ended with {_how(decoder.process.wait())}"
        self._put_back(decoder)
        if decoder.ready:
            self.replaced += 1
            if decoder.line and (image := decoder.line[0]):
                late = time.monotonic() >= self._deadline
                words = f"{image.name}: the image cannot be read ({reason})"
                self._settle(image, CannotDecode("the service ends") if late else UnreadableImage(words))
            self._start()
        else:
            self._cannot_start(reason)
        self._go_on()

    def _put_back(self, decoder: Decoder) -> None:
        for image in decoder.take_back():
            heapq.heappush(self._waiting, (image.order, image))

    def _end(self, decoder: Decoder) -> None:
        self._decoders.remove(decoder)
        if self._loop and not self._loop.is_closed():
            self._loop.remove_reader(decoder.socket)
            self._loop.remove_writer(decoder.socket)
        decoder.end()
        self._ended.append(decoder.process)


def _how(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
