"""Images as bytes to answers, for many callers at once, with one predictor. Knows no HTTP.

Threads: the callers' event loop; two that decode images; one that owns the predictor.
"""

import asyncio
import base64
import concurrent.futures
import dataclasses
import io
import time
from typing import Any

import numpy as np
from PIL import Image

from cait.data.decoding import formats
from cait.deploy.batcher import Batcher, Job, deliver
from cait.deploy.bundle import CLASS_ATTENTION, LOGITS
from cait.deploy.classify import READERS, Reader, likeliest
from cait.deploy.predictor import Predictor, softmax
from cait.deploy.service_metrics import ServiceMetrics
from cait.deploy.uploads import Request, Upload
from cait.errors import CaitError

ATTENTION_DECIMALS = 6


class QueueFull(Exception):
    """There are as many images in the service as it takes."""


@dataclasses.dataclass(frozen=True)
class _Work:
    """A decoded image [channels, height, width], what is asked about it, and the PNG of it where that is asked for."""

    image: np.ndarray
    top_k: int
    attention: bool
    seen: bytes | None


class Service:
    """Classifies uploads in batches.

    Args:
        predictor: used by one thread only, once the service is started.
        read: the decoder of images.
        metrics: counts what happens.
        max_batch, max_wait_seconds: see `Batcher`.
        max_queue: images that are decoded, wait or are computed at a time; at least those of one request.

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
    ):
        self.description, self.max_queue, self.metrics = predictor.description, max_queue, metrics
        self.images_inside, self.closing = 0, False
        self._predictor, self._read, self._max_batch = predictor, read, max_batch
        self._batcher = Batcher(self._run, max_batch, max_wait_seconds)
        self._readers = concurrent.futures.ThreadPoolExecutor(READERS, "reader")

    @property
    def has_attention(self) -> bool:
        return CLASS_ATTENTION in self.description.outputs

    @property
    def healthy(self) -> bool:
        return self._batcher.alive

    @property
    def is_full(self) -> bool:
        return self.images_inside >= self.max_queue

    def warm_up(self) -> None:
        """Loads all that the first images would otherwise wait for.

        Raises:
            CaitError: there is not the memory for the largest batch.
        """
        formats()  # Pillow's readers
        self._read.transform(Image.new(self._read.mode, self.description.image_size[::-1]))  # may have to be compiled
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
        """Starts the threads; from then on the predictor is theirs."""
        self._batcher.start()

    def stop(self) -> None:
        """Ends the threads once everything that was taken in is done."""
        self._readers.shutdown()
        self._batcher.stop()

    async def answer(self, request: Request) -> list[dict[str, Any]]:
        """What `ImageAnswer` of `cait.deploy.server_schema` describes, for each image in order.

        When the caller is cancelled, images that are not computed yet are passed over.

        Raises:
            QueueFull: there is no room for these images now.
        """
        if self.images_inside + len(request.images) > self.max_queue:
            raise QueueFull
        loop = asyncio.get_running_loop()
        futures = []
        for upload in request.images:
            future = loop.create_future()
            self.images_inside += 1
            future.add_done_callback(self._leave)
            self._readers.submit(self._decode, upload, request, future)
            futures.append(future)
        results = (
            await asyncio.gather(*futures, return_exceptions=True) if len(futures) > 1 else [await _outcome(*futures)]
        )
        return [self._entry(upload, result) for upload, result in zip(request.images, results, strict=True)]

    def _leave(self, _) -> None:
        self.images_inside -= 1

    def _decode(self, upload: Upload, request: Request, future: asyncio.Future) -> None:
        if future.cancelled():
            return
        try:
            pixels = self._read.pixels(io.BytesIO(upload.data), upload.name)
            seen = png(pixels) if request.seen else None
            work = _Work(self._read.normalised(pixels), request.top_k, request.attention, seen)
        except Exception as error:
            deliver([Job(None, future)], [error])
        else:
            self._batcher.put(Job(work, future))

    def _run(self, batch: list[_Work]) -> list[dict[str, Any]]:
        names = [LOGITS, CLASS_ATTENTION] if any(work.attention for work in batch) else [LOGITS]
        started = time.perf_counter()
        outputs = self._predictor.outputs(np.stack([work.image for work in batch]), names)
        self.metrics.batch(len(batch), time.perf_counter() - started)
        results = []
        for index, (work, probabilities) in enumerate(zip(batch, softmax(outputs[LOGITS]))):
            result: dict[str, Any] = {"classes": self._classes(probabilities, work.top_k)}
            if work.attention:
                result["attention"] = self._attention(outputs[CLASS_ATTENTION][index])
            if work.seen is not None:
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
        rows, columns = (side // self.description.patch_size for side in self.description.image_size)
        rounded = np.round(attention.astype("float64"), ATTENTION_DECIMALS)
        maps = rounded[:, :, 1:].reshape(*rounded.shape[:2], rows, columns)
        return {"maps": maps.tolist(), "class_token": rounded[:, :, 0].tolist()}

    def _entry(self, upload: Upload, result: Any) -> dict[str, Any]:
        """Raises what is no fault of the image."""
        self.metrics.image(ok=not isinstance(result, BaseException))
        if isinstance(result, CaitError):
            return {"name": upload.name, "error": str(result)}
        if isinstance(result, BaseException):
            raise result
        return {"name": upload.name, **result}


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of exactly these pixels, uint8 [height, width, 1 or 3 channels]."""
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


async def _outcome(future: asyncio.Future) -> Any:
    """Of a single future what `gather` gives for several, at less cost."""
    try:
        return await future
    except Exception as error:
        return error
