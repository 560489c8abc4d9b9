"""Images as bytes to answers, for many callers at once, with one predictor. Knows no HTTP.

The callers' event loop asks processes to decode the images; a thread owns the predictor.
"""

import asyncio
import base64
import dataclasses
import time
from collections.abc import Coroutine
from typing import Any

import numpy as np

from cait.deploy.bundle_schema import CLASS_ATTENTION, LOGITS
from cait.deploy.classify import Reader, likeliest
from cait.deploy.predictor import Predictor, softmax
from cait.errors import CaitError
from cait.serve.batcher import Batcher, Job
from cait.serve.counters import ServiceMetrics
from cait.serve.decoder import DEFAULT_LIMITS, DecodeLimits
from cait.serve.decoders import CannotDecode, Decoders
from cait.serve.uploads import Request, Upload

ATTENTION_DECIMALS = 6
CLOSING_SECONDS = 4.0  # for the images that wait to be decoded when the service is about to end
FULL, ENDING = "the queue is full", "the service is about to end"


class Unavailable(Exception):
    """The service takes no images now; the message, FULL or ENDING, says why."""


@dataclasses.dataclass(frozen=True)
class _Work:
    """A decoded image, uint8 [height, width, channels], what is asked about it, and its PNG where that is asked for."""

    pixels: np.ndarray
    top_k: int
    attention: bool
    seen: bytes


class Service:
    """Classifies uploads in batches.

    Args:
        predictor: used by one thread only, once the service is started.
        read: what becomes of an image.
        metrics: counts what happens.
        max_batch, max_wait_seconds: see `Batcher`.
        max_queue: images that are decoded, wait or are computed at a time; at least those of one request.
        limits: of decoding an image.

    Attributes:
        description: of the bundle.
        images_inside: how many of the `max_queue` are taken.
        closing: set by whoever is about to stop the service.
    """

    def __init__(
        self,
        predictor: Predictor,
        read: Reader,
        metrics: ServiceMetrics,
        max_batch: int,
        max_wait_seconds: float,
        max_queue: int,
        limits: DecodeLimits = DEFAULT_LIMITS,
    ):
        self.description, self.max_queue, self.metrics = predictor.description, max_queue, metrics
        self.images_inside, self._closing = 0, False
        self._predictor, self._read, self._max_batch = predictor, read, max_batch
        self._batcher = Batcher(self._run, max_batch, max_wait_seconds)
        self._decoders = Decoders(read.pixels, limits)
        replaced = "Processes for decoding that were ended and replaced"
        metrics.watch("cait_decoders_replaced", replaced, lambda: self._decoders.replaced)

    @property
    def has_attention(self) -> bool:
        return CLASS_ATTENTION in self.description.outputs

    @property
    def closing(self) -> bool:
        return self._closing

    @closing.setter
    def closing(self, value: bool) -> None:
        self._closing = value
        if value:
            self._decoders.end_within(CLOSING_SECONDS)

    @property
    def healthy(self) -> bool:
        return self._batcher.alive and self._decoders.can_work

    @property
    def is_slow(self) -> bool:
        """Whether images wait because those in work take long to decode."""
        return self._decoders.is_slow

    @property
    def is_full(self) -> bool:
        return self.images_inside >= self.max_queue

    def warm_up(self) -> None:
        """Loads all that the first images would otherwise wait for.

        Raises:
            CaitError: there is not the memory for the largest batch, or no process can be started.
        """
        self._decoders.warm_up()
        image = self.description.self_test_input()
        for size in (1, self._max_batch):  # kernels are chosen by shape
            try:
                self._predictor.outputs(np.repeat(image, size, axis=0))
            except Exception as error:  # Paddle raises almost anything
                reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
                raise CaitError(
                    f"a batch of {size} images cannot be computed ({reason[0]}); lower --max-batch"
                ) from error

    def start(self) -> None:
        """Starts the thread, to which the predictor belongs from then on; to be called in the callers' event loop."""
        self._decoders.attach()
        self._batcher.start()

    def stop(self) -> None:
        """Ends thread and processes, once all is computed that was decoded."""
        self._decoders.stop()
        self._batcher.stop()

    async def answer(self, request: Request) -> list[dict[str, Any]]:
        """Answers each image in order, as `ImageAnswer` of `cait.serve.schema` describes.

        When the caller is cancelled, images that are not computed yet are passed over.

        Raises:
            Unavailable: there is no room for these images now, or no time is left for them.
        """
        if self.images_inside + len(request.images) > self.max_queue:
            raise Unavailable(FULL)
        each = [self._result(request, place) for place in range(len(request.images))]
        self.images_inside += len(each)
        try:
            results = await asyncio.gather(*each, return_exceptions=True) if len(each) > 1 else [await _outcome(*each)]
        finally:
            self.images_inside -= len(each)
        return [self._entry(upload, result) for upload, result in zip(request.images, results, strict=True)]

    async def _result(self, request: Request, place: int) -> dict[str, Any]:
        upload = request.images[place]
        pixels, seen = await self._decoders.decode(upload.name, upload.data, request.seen, place)
        future = asyncio.get_running_loop().create_future()
        self._batcher.put(Job(_Work(pixels, request.top_k, request.attention, seen), future))
        return await future

    def _run(self, batch: list[_Work]) -> list[dict[str, Any]]:
        names = [LOGITS, CLASS_ATTENTION] if any(work.attention for work in batch) else [LOGITS]
        started = time.perf_counter()
        images = self._read.normalised(np.stack([work.pixels for work in batch]))
        outputs = self._predictor.outputs(np.ascontiguousarray(images), names)
        self.metrics.batch(len(batch), time.perf_counter() - started)
        results = []
        for index, (work, probabilities) in enumerate(zip(batch, softmax(outputs[LOGITS]))):
            result: dict[str, Any] = {"classes": self._classes(probabilities, work.top_k)}
            if work.attention:
                result["attention"] = self._attention(outputs[CLASS_ATTENTION][index])
            if work.seen:
                result["seen"] = base64.b64encode(work.seen).decode()
            results.append(result)
        return results

    def _classes(self, probabilities: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        names = self.description.class_names
        return [
            {"class_id": index, "class_name": names[index], "prob": prob}
            for index, prob in likeliest(probabilities, top_k)
        ]

    def _attention(self, attention: np.ndarray) -> dict[str, Any]:
        """Of [blocks, heads, 1 + patches]."""
        rounded = np.round(attention.astype("float64"), ATTENTION_DECIMALS)
        maps = rounded[:, :, 1:].reshape(*rounded.shape[:2], *self.description.grid)
        return {"maps": maps.tolist(), "class_token": rounded[:, :, 0].tolist()}

    def _entry(self, upload: Upload, result: Any) -> dict[str, Any]:
        """Raises what is no fault of the image."""
        self.metrics.image(ok=not isinstance(result, BaseException))
        if isinstance(result, CannotDecode) and self.closing:
            raise Unavailable(ENDING)
        if isinstance(result, CaitError):
            return {"name": upload.name, "error": str(result)}
        if isinstance(result, BaseException):
            raise result
        return {"name": upload.name, **result}


async def _outcome(result: Coroutine[Any, Any, Any]) -> Any:
    """Of a single coroutine what `gather` gives for several, at less cost."""
    try:
        return await result
    except Exception as error:
        return error
