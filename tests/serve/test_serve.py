"""`serve.py` as users start it: that it answers what `infer.py` does, under load too, and how it starts and ends."""

import asyncio
import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

import serve_load
from cait.deploy.bundle import read_description
from cait.deploy.bundle_schema import CLASS_ATTENTION
from cait.deploy.classify import Reader
from cait.deploy.engine import Engine
from cait.deploy.predictor import Predictor
from cait.records.predictions import read_results
from project import ROOT, run_python
from serve_load import form, post
from serving import SCRIPT, ask, ask_about, command, counted, resident_mb

INFER = str(ROOT / "CaiT" / "infer.py")


@pytest.fixture(scope="module")
def images(all_digits, tmp_path_factory):
    """40 digits and some images of other kinds and sizes, as (name, bytes)."""
    folder = tmp_path_factory.mktemp("images")
    for path in sorted((all_digits / "val").rglob("*.png"))[::9]:
        (folder / path.name).write_bytes(path.read_bytes())
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (90, 60, 3), "uint8"))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    pixels.save(folder / "turned.jpg", exif=exif)
    pixels.convert("CMYK").save(folder / "cmyk.jpg")
    pixels.convert("P").save(folder / "palette.gif")
    pixels.convert("RGBA").save(folder / "alpha.webp", lossless=True)
    pixels.resize((900, 700)).save(folder / "large.tiff")
    return folder


@pytest.fixture(scope="module")
def expected(full_bundle, images, tmp_path_factory):
    """What infer.py says of them: name -> (class, probability) with the likeliest first."""
    results = tmp_path_factory.mktemp("results") / "results.csv"
    words = [f"--img-path={images}", f"--model_dir={full_bundle}", "--top-k=5", f"--output={results}"]
    result = run_python(INFER, *words)
    assert result.returncode == 0, result.stderr
    class_names, found = read_description(full_bundle).class_names, {}
    for row in read_results(results):
        pairs = found.setdefault(row["path"].rsplit("/", 1)[1], [])
        pairs.append((class_names.index(row["class"]), row["probability"]))
    assert len(found) == 45 and len({pairs[0][1] for pairs in found.values()}) > 40
    return found


@pytest.fixture(scope="module")
def service(full_bundle):
    with command(full_bundle, "--max-batch=8") as (address, _):
        yield address


def assert_agree(classes, pairs):
    assert [each["class_id"] for each in classes] == [index for index, _ in pairs]
    np.testing.assert_allclose([each["prob"] for each in classes], [prob for _, prob in pairs], rtol=0, atol=1e-6)


def test_answers_are_those_of_infer(service, images, expected):
    for path in sorted(images.iterdir()):
        status, _, answer = ask_about(service, (path.name, path.read_bytes()))
        assert status == 200, answer
        assert_agree(answer["results"][0]["classes"], expected[path.name])
    several = [(path.name, path.read_bytes()) for path in sorted(images.iterdir())[:16]]
    for result in ask_about(service, *several)[2]["results"]:
        assert_agree(result["classes"], expected[result["name"]])
    body = json.dumps({"images": [base64.b64encode(data).decode() for _, data in several]})
    answer = json.loads(ask(service, "/predict", "POST", body, {"Content-Type": "application/json"})[2])
    for (name, _), result in zip(several, answer["results"], strict=True):
        assert_agree(result["classes"], expected[name])


def test_under_load_too(service, images, expected):
    requests = [(path.name, post(*form([(path.name, path.read_bytes())]))) for path in sorted(images.iterdir())]
    before = counted(service, "cait_batch_images_count"), counted(service, "cait_batch_images_sum")
    (summary,) = serve_load.run([service], requests, 8, 3.0, 3.0, expected)
    assert summary["statuses"] == {200: summary["requests"]} and summary["requests"] > 100
    assert summary["wrong"] == summary["unanswered"] == 0
    after = counted(service, "cait_batch_images_count"), counted(service, "cait_batch_images_sum")
    assert (after[1] - before[1]) / (after[0] - before[0]) > 1.5  # so that batches were compared


def test_class_attention_is_that_of_the_bundle(service, full_bundle, images):
    predictor = Predictor(full_bundle, Engine())
    for path in sorted(images.iterdir())[::8]:
        image = Reader(predictor.description, True)(str(path))
        (attention,) = predictor.outputs(image[None])[CLASS_ATTENTION]
        answer = ask_about(service, (path.name, path.read_bytes()), attention="true")[2]["results"][0]["attention"]
        maps, token = np.array(answer["maps"]), np.array(answer["class_token"])
        assert maps.shape == (1, 2, 4, 4) and token.shape == (1, 2)
        np.testing.assert_allclose(maps.sum(axis=(2, 3)) + token, 1.0, atol=2e-5)
        np.testing.assert_allclose(maps, attention[:, :, 1:].reshape(1, 2, 4, 4), atol=1e-6)
        assert maps.std() > 1e-3


def bad_requests(rng):
    """Requests that cannot be answered, each (body, its Content-Type)."""
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 20), "uint8")).save(file, "PNG")
    good = file.getvalue()
    huge = bytearray(good)
    huge[16:24] = (100_000).to_bytes(4, "big") * 2  # what its head claims
    flipped = bytearray(good)
    flipped[29 + int(rng.integers(4))] ^= 255  # in the checksum of the head
    cut = good[: int(rng.integers(0, len(good) - 40))]
    for data in (
        b"",
        rng.bytes(300),
        b"GIF89a" + rng.bytes(50),
        b"\xff\xd8\xff" + rng.bytes(50),
        cut,
        bytes(huge),
        bytes(flipped),
    ):
        yield form([("x.png", data)])
    body, content_type = form([("x.png", good)], top_k=3)
    yield body[: int(rng.integers(0, len(body) - 6))], content_type
    yield body, "multipart/form-data"
    yield body, "text/plain"
    yield form([("x.png", good)], top_k="many")
    yield form([("x.png", good)] * 17)
    yield form([], images="")
    for text in ("{", "[]", "null", '{"images": 7}', '{"images": ["?"]}', '{"images": []}', '{"images": [null]}'):
        yield text.encode(), "application/json"


def test_a_thousand_bad_uploads(service):
    rng = np.random.default_rng(0)
    statuses = []
    memory_before = 0.0
    while len(statuses) < 1000:
        for body, content_type in bad_requests(rng):
            status, _, text = ask(service, "/predict", "POST", body, {"Content-Type": content_type})
            assert status in (400, 415, 422), (status, body, text)
            assert isinstance(json.loads(text)["detail"], str)
            statuses.append(status)
        memory_before = memory_before or resident_mb(service)  # after the first of each kind
    assert resident_mb(service) - memory_before < 20
    assert json.loads(ask(service, "/health")[2]) == {"status": "ok"}
    assert counted(service, "cait_queue_images") == 0


def test_sigterm_under_load_loses_nothing(full_bundle, images, expected):
    """Eight callers with a connection each; every request that one of them sent is answered, and rightly."""
    requests = [(path.name, post(*form([(path.name, path.read_bytes())]))) for path in sorted(images.iterdir())]
    with command(full_bundle) as (address, process):
        timer = threading.Timer(1.5, process.send_signal, [signal.SIGTERM])
        timer.start()
        clients = asyncio.run(serve_load.clients_for(address, requests, 8, 30.0, expected))
        timer.join()
        assert process.wait(30) == 0
    summary = serve_load.summary(clients, 1.5)
    assert summary["statuses"] == {200: summary["requests"]} and summary["requests"] > 100
    assert summary["wrong"] == summary["unanswered"] == 0
    assert time.perf_counter() < clients[0].stop_at - 10  # the signal ended it
    assert "Traceback" not in process.errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(full_bundle, number):
    with command(full_bundle, "--max-batch=1") as (address, process):
        assert ask(address, "/health")[0] == 200
        process.send_signal(number)
        assert process.wait(30) == 0
    assert "instructions" in process.errors or "plain program" in process.errors
    assert "warning" not in process.errors and "Traceback" not in process.errors


def test_a_token_in_the_environment_and_an_open_door(full_bundle, images):
    path = next(iter(images.iterdir()))
    with command(full_bundle, CAIT_TOKEN="secret") as (address, _):
        assert ask_about(address, (path.name, path.read_bytes()))[0] == 401
        headers = {"Authorization": "Bearer secret"}
        assert ask_about(address, (path.name, path.read_bytes()), headers=headers)[0] == 200
    with command(full_bundle, "--host=0.0.0.0") as (address, process):
        assert address.startswith("http://127.0.0.1:") and ask(address, "/health")[0] == 200
        assert process.stdout.readline().startswith("from a phone or another computer")
    assert "warning: whoever reaches this address can use the service; --token protects it" in process.errors


@pytest.mark.any_paddle
@pytest.mark.parametrize(
    "words, exit_code, message",
    [
        (["--max-batch=0"], 2, "argument --max-batch: '0' must be a whole number from 1"),
        (["--timeout=-1"], 2, "argument --timeout: '-1' must be seconds, from 0 to 3600"),
        (["--read-timeout=0"], 2, "argument --read-timeout: '0' must be more than 0 seconds"),
        (["--write-timeout=0"], 2, "argument --write-timeout: '0' must be more than 0 seconds"),
        (["--allowed-host=http://x"], 2, "argument --allowed-host: 'http://x' must be a name or an address"),
        (["--token="], 2, "argument --token: must be printable ASCII without blanks, and not empty"),
        (["--max-images=9", "--max-queue=8"], 2, "--max-queue must have room for the images of one request"),
        (["--port=99999"], 2, "argument --port: '99999' must be a port from 0 to 65535"),
        (
            ["--model_dir=nowhere"],
            1,
            "nowhere: holds no bundle (inference.yaml is missing); `python CaiT/",
        ),
        (["--host=nowhere.invalid"], 1, "nowhere.invalid:8000: cannot listen there"),
    ],
)
def test_wrong_usage_is_one_clear_error(words, exit_code, message):
    result = run_python(SCRIPT, *words, timeout=60)
    assert result.returncode == exit_code and result.stderr.startswith(f"error: {message}"), result.stderr
    assert result.stderr.count("\n") == 1


def test_a_port_that_is_taken(full_bundle):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_python(SCRIPT, f"--model_dir={full_bundle}", f"--port={port}")
    assert result.returncode == 1
    assert (
        result.stderr
        == f"error: 127.0.0.1:{port}: cannot listen there (Address already in use); --port=0 takes any free one\n"
    )


def blocks(document, language):
    """The code blocks of a language in a document."""
    parts = (ROOT / "docs" / document).read_text().split(f"```{language}\n")[1:]
    return [part.split("```")[0] for part in parts]


def test_the_clients_of_the_documentation(full_bundle, images, tmp_path):
    """As they stand there, with the address of a service that runs."""
    assert blocks("serve.md", "sh") == blocks("serve_cn.md", "sh")
    assert blocks("serve.md", "python") == blocks("serve_cn.md", "python")
    assert blocks("serve.md", "bash") == blocks("serve_cn.md", "bash")
    for name in ("photo.jpg", "other.jpg"):
        Image.open(images / "turned.jpg").save(tmp_path / name)
    with command(full_bundle, CAIT_TOKEN="secret") as (address, _):
        curl, (python,) = "".join(blocks("serve.md", "sh")), blocks("serve.md", "python")
        environment = os.environ | {"CAIT_TOKEN": "secret"}
        for program, text in ((["bash", "-euc"], curl), ([sys.executable, "-c"], python)):
            words = [*program, text.replace("http://127.0.0.1:8000/", address)]
            result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
            assert result.returncode == 0, result.stderr
            assert "photo.jpg" in result.stdout, result.stdout
