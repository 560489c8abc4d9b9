"""The HTTP application: its addresses, their answers, and the page."""

import asyncio
import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import fastapi_offline
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.requests import ClientDisconnect

import cait
from cait.serve import schema as schema
from cait.serve.counters import CONTENT_TYPE
from cait.serve.gate import PROTECTED, Gate, Hosts, problem
from cait.serve.samples import Sample
from cait.serve.service import FULL, Service, Unavailable
from cait.serve.uploads import Limits, UploadError, parse_request

PAGE = pathlib.Path(__file__).with_name("page")
SWAGGER = pathlib.Path(fastapi_offline.__file__).with_name(
    "static"
)  # Swagger UI's files, which FastAPI leaves to a CDN
RETRY_AFTER_SECONDS = 1
BODIES_AT_A_TIME = 8  # of the largest size: what all requests together hold in memory
PARSED_AT_ONCE_BYTES = 100_000
LOOK_SECONDS = 0.25  # between looks whether the caller is still there
CLIENT_IS_GONE = 499  # nobody gets to see it but the counters


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the service treats requests.

    Attributes:
        max_upload_bytes: of a body.
        max_images: in a request.
        read_seconds: that a body may take to arrive.
        answer_seconds: that an answer may take after that.
        top_k: classes, where the request does not say.
        token: that /predict and /metrics want, as `Authorization: Bearer`; None: none.
        samples: images that the page offers.
        addresses: where other devices of the network reach the service.
        hosts: the names by which it may be called.
    """

    max_upload_bytes: int
    max_images: int
    read_seconds: float
    answer_seconds: float
    top_k: int
    token: str | None = None
    samples: Sequence[Sample] = ()
    addresses: Sequence[str] = ()
    hosts: Hosts = dataclasses.field(default_factory=Hosts)


def create_app(service: Service, settings: Settings, exif: bool) -> FastAPI:
    """The application; it starts and stops the service.

    Args:
        service: not started yet.
        settings: see there.
        exif: whether the service turns images by their EXIF orientation.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title=f"CaiT: {service.description.variant}",
        version=cait.__version__,
        description="Classifies images with an exported CaiT.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # they would lead to whatever `Host` says
    )
    _add_interface(app, service, settings, _model_info(service, settings, exif))
    _add_page(app, settings.samples)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return problem(500, "the service failed to answer; its log says why")

    if settings.token is not None:
        _describe_token(app)
    paths = frozenset(route.path for route in app.routes)  # type: ignore[attr-defined]
    app.add_middleware(Gate, service=service, token=settings.token, hosts=settings.hosts, paths=paths)
    return app


def _model_info(service: Service, settings: Settings, exif: bool) -> schema.ModelInfo:
    """What /model answers."""
    description = service.description
    return schema.ModelInfo(
        model=description.variant,
        image_size=description.image_size,
        channels=description.channels,
        crop_pct=description.crop_pct,
        exif=exif,
        class_names=description.class_names,
        attention=service.has_attention,
        precision=description.precision,
        weights=description.weights,
        versions=description.versions,
        max_images=settings.max_images,
        max_upload_bytes=settings.max_upload_bytes,
        token=settings.token is not None,
        samples=[sample.name for sample in settings.samples],
        addresses=list(settings.addresses),
    )


def _add_interface(app: FastAPI, service: Service, settings: Settings, info: schema.ModelInfo) -> None:
    """What programs ask for."""
    limits = Limits(settings.max_upload_bytes, settings.max_images, len(info.class_names), service.has_attention)
    predict = _Predict(service, settings, limits)
    metrics = service.metrics
    metrics.watch("cait_queue_images", "Images that are decoded, wait or are computed", lambda: service.images_inside)
    metrics.watch("cait_queue_capacity_images", "How many of these there may be", lambda: service.max_queue)
    body = {"requestBody": schema.request_body(settings.top_k)}
    errors = schema.problems(400, 401, 403, 408, 413, 415, 421, 422, 500, 503, 504)

    @app.post("/predict", response_model=schema.Answer, responses=errors, openapi_extra=body)
    async def classify_images(request: Request) -> Response:
        """Classes and probabilities of one or more images."""
        return await predict(request)

    @app.get("/health", response_model=schema.Health)
    async def health() -> Response:
        """Whether the service can classify."""
        word = "slow" if service.is_slow else "ok"
        return JSONResponse({"status": word}) if service.healthy else JSONResponse({"status": "failed"}, 503)

    @app.get("/metrics", response_class=Response, responses=schema.problems(401, 421))
    async def prometheus_metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/model")
    async def model() -> schema.ModelInfo:
        """Describes the model, and what a request may hold."""
        return info


def _add_page(app: FastAPI, samples: Sequence[Sample]) -> None:
    """What a browser loads: the page, its samples, and the page that describes the interface."""
    for address, file in (("/", "index.html"), ("/docs", "docs.html")):
        app.add_api_route(address, _file(PAGE / file), include_in_schema=False)

    @app.get("/samples/{number}", include_in_schema=False)
    async def sample(number: str) -> Response:
        if number not in map(str, range(len(samples))):
            return problem(404, f"there is no such sample; /model names the {len(samples)} that there are")
        found = samples[int(number)]
        return Response(found.data, media_type=found.media_type)

    app.mount("/page", StaticFiles(directory=PAGE))
    app.mount("/swagger", StaticFiles(directory=SWAGGER))


def _file(path: pathlib.Path):
    async def answer() -> FileResponse:
        return FileResponse(path)

    return answer


def _describe_token(app: FastAPI) -> None:
    """Tells in the OpenAPI description what `Gate` wants, so that its page asks for it."""
    description = app.openapi()
    description["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path in PROTECTED:
        for operation in description["paths"][path].values():
            operation["security"] = [{"token": []}]


async def _awaited(answer: Coroutine[Any, Any, list], request: Request, seconds: float) -> list:
    """What the service answers; broken off when that takes too long, or soon after the caller has left."""
    task, deadline = asyncio.ensure_future(answer), time.monotonic() + seconds
    try:
        while not task.done():
            left = deadline - time.monotonic()
            if left <= 0:
                raise UploadError(504, f"the answer was not ready within {seconds:g} seconds")
            await asyncio.wait({task}, timeout=min(left, LOOK_SECONDS))
            if not task.done() and await request.is_disconnected():
                raise ClientDisconnect
        return task.result()
    finally:
        if task.cancel():
            await asyncio.wait({task})  # until it has left the queue


class _Predict:
    """Answers POST /predict.

    FastAPI's own reading of forms would put large files on disk, and wait for slow callers for ever.
    """

    def __init__(self, service: Service, settings: Settings, limits: Limits):
        self._service, self._settings, self._limits = service, settings, limits
        self._bytes_held = 0

    async def __call__(self, request: Request) -> Response:
        chunks: list[bytes] = []
        started = time.perf_counter()
        try:
            response = await self._answer(request, chunks, started)
        except UploadError as error:
            response = problem(error.status, str(error))
        except Unavailable as error:
            response = problem(503, f"{error}; come again later", None, **{"Retry-After": str(RETRY_AFTER_SECONDS)})
        except ClientDisconnect:
            response = Response(status_code=CLIENT_IS_GONE)
        finally:
            self._bytes_held -= sum(len(chunk) for chunk in chunks)
        self._service.metrics.predicted(time.perf_counter() - started)
        return response

    async def _answer(self, request: Request, chunks: list[bytes], started: float) -> Response:
        settings = self._settings
        if self._service.is_full:
            raise Unavailable(FULL)
        try:
            await asyncio.wait_for(self._read(request, chunks), settings.read_seconds)
        except asyncio.TimeoutError as error:
            sentence = f"the body of the request did not arrive within {settings.read_seconds:g} seconds"
            raise UploadError(408, sentence) from error
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        parts = (request.headers.get("content-type", ""), body, self._limits, settings.top_k)
        small = len(body) <= PARSED_AT_ONCE_BYTES  # a thread would cost more than it spares the others
        wanted = parse_request(*parts) if small else await asyncio.to_thread(parse_request, *parts)
        results = await _awaited(self._service.answer(wanted), request, settings.answer_seconds)
        if all("error" in result for result in results):
            return problem(422, "; ".join(result["error"] for result in results), {"results": results})
        milliseconds = round(1000 * (time.perf_counter() - started), 3)
        content = {"model": self._service.description.variant, "results": results, "time_ms": milliseconds}
        return Response(json.dumps(content, ensure_ascii=False).encode(), media_type="application/json")

    async def _read(self, request: Request, chunks: list[bytes]) -> None:
        """Reads the body to its end; of one that is too large, what comes of it is thrown away.

        A caller that is cut off while it sends never sees the answer, so it may send on, within the time that it has.
        One that asks first (`Expect: 100-continue`) is told at once.
        """
        most, size = self._limits.max_bytes, 0
        too_large = UploadError(413, f"the request is larger than {most} bytes")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > most and "expect" in request.headers:
            raise too_large
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                continue
            if self._bytes_held + len(chunk) > BODIES_AT_A_TIME * most:
                raise Unavailable(FULL)
            self._bytes_held += len(chunk)
            chunks.append(chunk)
        if size > most:
            raise too_large
