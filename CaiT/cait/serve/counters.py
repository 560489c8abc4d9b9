"""The counters of the service, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from cait.deploy.bundle import Description

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class ServiceMetrics:
    """Counters in a registry of their own, so that a process may hold several services.

    Args:
        description: of the bundle.
    """

    def __init__(self, description: Description):
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        model = Gauge("cait_model_info", "What is served", ("model", "precision", "weights"), registry=registry)
        model.labels(description.variant, description.precision, description.weights[:16]).set(1)
        self._requests = Counter("cait_requests", "Requests by path and status", ("path", "status"), registry=registry)
        self._refusals = Counter(
            "cait_refused_connections",
            "Connections that were refused or closed for their callers' faults, by reason",
            ("reason",),
            registry=registry,
        )
        self._seconds = Histogram(
            "cait_predict_seconds",
            "From the head of a request to /predict to its answer",
            buckets=SECONDS,
            registry=registry,
        )
        self._images = Counter("cait_images", "Images by outcome", ("outcome",), registry=registry)
        self._outcomes = {ok: self._images.labels("ok" if ok else "error") for ok in (True, False)}
        self._batch = Histogram("cait_batch_images", "Images in a batch", buckets=SIZES, registry=registry)
        self._inference = Histogram(
            "cait_inference_seconds", "The predictor's time for a batch", buckets=SECONDS, registry=registry
        )

    def watch(self, name: str, explanation: str, value: Callable[[], float]) -> None:
        """Adds a gauge that asks for its value when the metrics are read."""
        Gauge(name, explanation, registry=self._registry).set_function(value)

    def request(self, path: str, status: int) -> None:
        """An answer with that status; the path is one of the service's own."""
        self._requests.labels(path, str(status)).inc()

    def refused(self, reason: str) -> None:
        """A connection was refused or closed; the reason is one of the service's own words."""
        self._refusals.labels(reason).inc()

    def predicted(self, seconds: float) -> None:
        """A request to /predict took so long."""
        self._seconds.observe(seconds)

    def image(self, ok: bool) -> None:
        """An image was classified, or could not be."""
        self._outcomes[ok].inc()

    def batch(self, images: int, seconds: float) -> None:
        """The predictor took so long for so many images."""
        self._batch.observe(images)
        self._inference.observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
