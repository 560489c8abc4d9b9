"""Services to test: in this process with a predictor that obeys, or as users start them."""

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

import numpy as np

from cait.deploy.bundle import Description
from cait.deploy.bundle_schema import CLASS_ATTENTION, LOGITS
from cait.deploy.classify import Reader
from cait.serve import http_server
from cait.serve.app import Settings, create_app
from cait.serve.connections import Bounds
from cait.serve.counters import ServiceMetrics
from cait.serve.decoder import DEFAULT_LIMITS
from cait.serve.service import Service
from project import ROOT
from serve_load import form

SCRIPT = str(ROOT / "CaiT" / "serve.py")
DESCRIPTION = Description(
    variant="fake", image_size=[8, 8], crop_pct=1.0, interpolation="bicubic", deep_grey="scale",
    patch_size=4, grid=[2, 2], heads=3, channels=1, mean=[0.5], std=[0.5], class_names=["dark", "bright", "neither"],
    weights="0" * 64, versions={}, precision="fp32", outputs=[LOGITS, CLASS_ATTENTION], files={}, self_test_seed=0,
    self_test_logits=[0.0, 0.0, 0.0],
)  # fmt: skip


class FakePredictor:
    """Tells bright from dark images; holds what it is given until it is let go, or fails with `error`."""

    def __init__(self, description=DESCRIPTION, layers=2, heads=3):
        self.description, self.attention = description, (layers, heads)
        self.go_on, self.entered, self.error, self.sizes = threading.Event(), threading.Event(), None, []
        self.go_on.set()

    def outputs(self, images, names=None):
        self.entered.set()
        assert self.go_on.wait(30)
        if self.error:
            raise self.error
        self.sizes.append(len(images))
        mean = images.mean(axis=(1, 2, 3))
        logits = np.stack([-mean, mean, -3 + 0 * mean], axis=1)
        return {LOGITS: logits, CLASS_ATTENTION: np.full((len(images), *self.attention, 5), 0.2, "float32")}


SETTINGS = {"max_upload_bytes": 100_000, "max_images": 4, "read_seconds": 10.0, "answer_seconds": 10.0, "top_k": 2}


@contextlib.contextmanager
def served(
    max_batch=2,
    max_queue=8,
    message_seconds=10.0,
    predictor=None,
    bounds=None,
    decoding=(DEFAULT_LIMITS, 10_000),
    **settings,
):
    """A service in this process: its address, its predictor, the service and the server."""
    predictor = predictor or FakePredictor()
    metrics = ServiceMetrics(predictor.description)
    read = Reader(predictor.description, True, decoding[1])
    service = Service(predictor, read, metrics, max_batch, 0.0, max_queue, decoding[0])
    app = create_app(service, Settings(**SETTINGS | settings), exif=True)
    listener = http_server.open_socket("127.0.0.1", 0)
    address = http_server.address_of(listener)
    running = http_server.make_server(app, service, bounds or Bounds(message_seconds))
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    try:
        assert ask(address, "/health")[0] == 200  # it listens before it is ready
        predictor.entered.clear()
        yield address, predictor, service, running
    finally:
        predictor.go_on.set()
        running.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@contextlib.contextmanager
def command(bundle, *flags, **variables):
    """`serve.py` on a free port: its address and its process, which is ended at the end with exit code 0."""
    words = [sys.executable, SCRIPT, f"--model_dir={bundle}", "--port=0", *flags]
    environment = {name: value for name, value in os.environ.items() if name != "CAIT_TOKEN"} | variables
    with (
        tempfile.TemporaryFile("w+") as errors,  # no pipe: nobody reads it meanwhile
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process,
    ):
        try:
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            if found:
                yield found[0], process
        finally:
            process.terminate()
            process.wait(60)
            errors.seek(0)
            process.errors = errors.read()
        assert found, line + process.errors
    assert process.returncode == 0, process.errors


def ask(address, path, method="GET", body=None, headers=None, timeout=30):
    """(status, headers, body) of a request of its own connection."""
    where = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def ask_about(address, *files, headers=None, **fields):
    """(status, headers, answer) about images, (name, bytes) each, sent as a form."""
    body, content_type = form(files, **fields)
    status, head, text = ask(address, "/predict", "POST", body, {"Content-Type": content_type, **(headers or {})})
    return status, head, json.loads(text)


@contextlib.contextmanager
def connected(address):
    """A bare connection."""
    where = urllib.parse.urlsplit(address)
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        yield connection


def received(connection):
    """All that comes until the other side closes."""
    chunks = []
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    return b"".join(chunks)


def counted(address, name, **labels):
    """The value of a metric."""
    text = ask(address, "/metrics")[2].decode()
    wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
    found = re.search(rf"^{name}{re.escape('{' + wanted + '}') if wanted else ''} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


def resident_mb(address):
    """The memory of the service's process."""
    return counted(address, "process_resident_memory_bytes") / 1e6


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
