"""The service over HTTP, with a predictor that obeys: what it answers, and what it does with callers that misbehave."""

import base64
import concurrent.futures
import contextlib
import dataclasses
import io
import json
import logging
import re
import socket
import struct
import time

import numpy as np
import pytest
from PIL import Image

from cait.deploy.classify import Reader
from cait.errors import CaitError
from cait.serve import app, http_server
from cait.serve.samples import MAX_SAMPLES, read_samples
from cait.serve.schema import Answer, ModelInfo, Problem
from pictures import BRIGHT, DARK, picture
from serve_load import form, post
from serving import (
    DESCRIPTION,
    SETTINGS,
    FakePredictor,
    ask,
    ask_about,
    connected,
    counted,
    received,
    served,
    wait_until,
)

pytestmark = pytest.mark.any_paddle


@pytest.fixture(scope="module")
def plain():
    with served() as (address, *_):
        yield address


def best_of(answer):
    return [result["classes"][0]["class_name"] for result in answer["results"]]


def test_a_form_of_images_is_answered_in_order(plain):
    status, headers, answer = ask_about(plain, DARK, BRIGHT, DARK, attention="true")
    assert status == 200 and headers["Content-Type"] == "application/json"
    Answer.model_validate(answer, strict=True, extra="forbid")
    assert answer["model"] == "fake" and best_of(answer) == ["dark", "bright", "dark"] and answer["time_ms"] > 0
    assert [result["name"] for result in answer["results"]] == ["dark.png", "bright.png", "dark.png"]
    classes = answer["results"][0]["classes"]
    assert [each["class_id"] for each in classes] == [0, 1] and classes[0]["prob"] > classes[1]["prob"]
    assert answer["results"][0]["attention"] == {"maps": [[[[0.2] * 2] * 2] * 3] * 2, "class_token": [[0.2] * 3] * 2}
    assert "attention" not in ask_about(plain, DARK)[2]["results"][0]


@pytest.mark.parametrize("channels, kind", [(1, "PNG"), (3, "PNG"), (3, "TIFF"), (1, "JPEG")])
def test_what_the_model_sees_is_answered_to_the_last_bit(channels, kind):
    """The very pixels that were normalised: resized, cropped at the centre and in the model's colours."""
    description = dataclasses.replace(DESCRIPTION, channels=channels, mean=[0.5] * channels, std=[0.5] * channels)
    rng, file = np.random.default_rng(0), io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 90, 3), "uint8")).save(file, kind)
    with served(predictor=FakePredictor(description)) as (address, *_):
        status, _, answer = ask_about(address, ("x", file.getvalue()), seen="true")
        assert status == 200
        Answer.model_validate(answer, strict=True, extra="forbid")
        with Image.open(io.BytesIO(base64.b64decode(answer["results"][0]["seen"]))) as image:
            assert image.format == "PNG" and image.mode == {1: "L", 3: "RGB"}[channels]
            seen = np.asarray(image).reshape(8, 8, channels)
        read = Reader(description, True)
        np.testing.assert_array_equal(read.normalised(seen), read.read(file, "x"))
        assert "seen" not in ask_about(address, ("x", file.getvalue()))[2]["results"][0]


def test_samples_are_those_that_were_named(tmp_path):
    for index in range(25):
        (tmp_path / f"{index:02d}.png").write_bytes(picture(10 * index))
    read = Reader(DESCRIPTION, True)
    samples = read_samples(tmp_path, read)
    assert len(samples) == MAX_SAMPLES and [each.name for each in samples[:3]] == ["00.png", "02.png", "05.png"]
    with served(samples=samples) as (address, *_):
        assert json.loads(ask(address, "/model")[2])["samples"] == [each.name for each in samples]
        status, headers, content = ask(address, "/samples/1")
        assert (status, headers["Content-Type"], content) == (200, "image/png", (tmp_path / "02.png").read_bytes())
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert json.loads(ask(address, "/samples/10")[2])["detail"].startswith("there is no such sample; /model names")
        for path in ("/samples/-1", "/samples/x", "/samples/../model_dir", "/samples/01", "/samples/" + "9" * 5000):
            assert ask(address, path)[0] == 404, path[:30]
    (tmp_path / "00.png").write_bytes(b"no image")
    with pytest.raises(CaitError, match=r"00\.png: the image cannot be read"):
        read_samples(tmp_path, read)


def test_json_is_answered_as_a_form_is(plain):
    body = json.dumps({"images": [base64.b64encode(data).decode() for _, data in (DARK, BRIGHT)], "top_k": 1})
    status, _, text = ask(plain, "/predict", "POST", body, {"Content-Type": "application/json"})
    assert status == 200
    expected = ask_about(plain, DARK, BRIGHT, top_k=1)[2]["results"]
    assert [result["classes"] for result in json.loads(text)["results"]] == [result["classes"] for result in expected]


def test_a_bad_image_costs_the_others_nothing(plain):
    status, _, answer = ask_about(plain, DARK, ("notes.txt", b"no image"), BRIGHT)
    assert status == 200
    assert [list(result) for result in answer["results"]] == [
        ["name", "classes"],
        ["name", "error"],
        ["name", "classes"],
    ]
    assert answer["results"][1]["error"] == "notes.txt: the image cannot be read (cannot identify image file)"


BAD_IMAGES = [
    (b"", "cannot identify image file"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "cannot identify image file"),  # would start Ghostscript
    (picture(0)[:-30], "the image cannot be read"),
    (picture(0, (101, 100)), "101x100 pixels, more than the 10000 allowed"),
]


@pytest.mark.parametrize("data, words", BAD_IMAGES)
def test_images_that_cannot_be_read_are_told_in_a_sentence(plain, data, words):
    status, _, answer = ask_about(plain, ("x.png", data))
    Problem.model_validate(answer, strict=True, extra="forbid")
    assert status == 422 and words in answer["detail"] and answer["detail"].startswith("x.png: ")
    assert answer["results"] == [{"name": "x.png", "error": answer["detail"]}]


def test_what_is_wrong_with_a_request_is_told_as_json(plain):
    status, _, answer = ask_about(plain, DARK, top_k="many")
    assert (status, answer) == (422, {"detail": "top_k must be a whole number from 1, not 'many'"})
    status, headers, text = ask(plain, "/predict", "GET")
    assert (status, headers["Allow"], json.loads(text)) == (405, "POST", {"detail": "Method Not Allowed"})
    assert ask(plain, "/nowhere")[0] == 404


def test_images_wait_for_each_other_and_a_full_queue_says_when_to_come_again():
    with served(max_batch=2, max_queue=4) as (address, predictor, service, _):
        predictor.go_on.clear()
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(ask_about, address, DARK) for _ in range(12)]
            wait_until(lambda: sum(each.done() for each in asked) == 8)
            wait_until(lambda: service._batcher.waiting >= 2)
            refused = [each.result() for each in asked if each.done()]
            assert counted(address, "cait_queue_images") == 4 == counted(address, "cait_queue_capacity_images")
            status, headers, _ = ask_about(address, DARK)  # before its body is read
            assert (status, headers["Retry-After"]) == (503, "1")
            predictor.go_on.set()
            answered = [each.result() for each in asked if each.result()[0] == 200]
        assert len(refused) == 8 and len(answered) == 4
        for status, headers, answer in refused:
            assert (status, headers["Retry-After"]) == (503, "1")
            assert answer == {"detail": "the queue is full; come again later"}
        assert all(best_of(answer) == ["dark"] for _, _, answer in answered)
        assert max(predictor.sizes) == 2 and service.images_inside == 0
        assert ask_about(address, DARK, DARK, DARK, DARK)[0] == 200  # a request that fills it
        assert counted(address, "cait_requests_total", path="/predict", status="503") == 9
        assert counted(address, "cait_images_total", outcome="ok") == 8


def test_an_answer_that_is_not_ready_in_time():
    with served(answer_seconds=0.2, max_batch=1) as (address, predictor, service, _):
        predictor.go_on.clear()
        for _ in range(12):  # more than the queue holds: those who wait no more take no room
            status, _, answer = ask_about(address, DARK)
            assert (status, answer) == (504, {"detail": "the answer was not ready within 0.2 seconds"})
        assert service.images_inside == 0
        predictor.go_on.set()
        assert ask_about(address, BRIGHT)[0] == 200
        assert len(predictor.sizes) == 2  # the first and the last: nobody waited for the others any more


def test_a_batch_that_does_not_fit_is_told_before_the_start():
    with served(max_batch=3) as (*_, predictor, service, _):
        service.warm_up()
        assert predictor.sizes == [1, 3]
        predictor.error = RuntimeError("Traceback\n  ...\nResourceExhaustedError: Out of memory")
        with pytest.raises(CaitError, match=r"a batch of 1 images cannot .* Out of memory\); lower --max-batch"):
            service.warm_up()


def test_a_failing_predictor_is_told_and_the_service_goes_on(caplog):
    with served() as (address, predictor, *_), caplog.at_level(logging.ERROR):
        predictor.error = RuntimeError("out of memory")
        status, _, answer = ask_about(address, DARK)
        assert (status, answer) == (500, {"detail": "the service failed to answer; its log says why"})
        wait_until(lambda: "out of memory" in caplog.text)
        predictor.error = None
        assert ask_about(address, DARK)[0] == 200
        assert counted(address, "cait_requests_total", path="/predict", status="500") == 1


HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: 1000\r\n"
)


def test_slow_callers_are_cut_off_and_keep_nobody_waiting():
    with served(read_seconds=0.5, message_seconds=1.0, max_queue=4) as (address, *_):
        ask_about(address, DARK)  # starts what decodes
        with connected(address) as silent, connected(address) as slow, connected(address) as slower:
            started = time.monotonic()
            slow.sendall(HEAD + b"\r\n--b")
            slower.sendall(HEAD[:40])
            waiting = []
            for _ in range(8):  # slow bodies take no room in the queue
                waiting.append(connected(address))
                waiting[-1].__enter__().sendall(HEAD + b"\r\n--b")
            assert ask_about(address, DARK)[0] == 200 and time.monotonic() - started < 0.5
            answer = received(slow)  # the head ended, the body did not
            assert answer.startswith(b"HTTP/1.1 408 ") and b"did not arrive within 0.5 seconds" in answer
            slower.sendall(HEAD[40:60])
            answer = received(slower)
            assert answer.startswith(b"HTTP/1.1 408 ") and b"did not arrive within 1 seconds" in answer
            assert received(silent) == b""
            assert 0.9 < time.monotonic() - started < 5
            for each in waiting:
                each.__exit__(None, None, None)
        assert ask_about(address, DARK)[0] == 200


def test_a_connection_is_kept_for_many_requests_in_time():
    with served(message_seconds=0.5) as (address, *_), connected(address) as connection:
        request = post(*form([DARK]))
        for _ in range(4):
            time.sleep(0.2)
            connection.sendall(request)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_killed_callers_leave_nothing_behind():
    with served() as (address, predictor, service, _):
        for sent in (b"", HEAD[:30], HEAD + b"\r\n--b", post(*form([DARK]))):
            predictor.go_on.clear()
            with connected(address) as connection:
                connection.sendall(sent)
                if sent.endswith(b"--\r\n"):
                    assert predictor.entered.wait(10)  # its image is being computed
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, no goodbye
            predictor.go_on.set()
        assert ask_about(address, DARK)[0] == 200
        wait_until(lambda: service.images_inside == 0)
        assert counted(address, "cait_requests_total", path="/predict", status="499") == 1
        assert counted(address, "cait_requests_total", path="/predict", status="500") is None


def test_a_body_that_is_too_large_is_refused(plain):
    body, content_type = form([("x.png", bytes(SETTINGS["max_upload_bytes"]))])
    status, _, text = ask(plain, "/predict", "POST", body, {"Content-Type": content_type})
    assert (status, json.loads(text)) == (413, {"detail": "the request is larger than 100000 bytes"})
    chunks = iter([b"x" * 60_000, b"x" * 60_000])  # without a length
    assert ask(plain, "/predict", "POST", chunks, {"Content-Type": content_type})[0] == 413
    with connected(plain) as connection:
        announced = HEAD.replace(b"1000", b"1000000")
        connection.sendall(announced + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 413 ")  # before it was sent


def test_bodies_together_take_bounded_memory():
    most, at_a_time = SETTINGS["max_upload_bytes"], app.BODIES_AT_A_TIME
    with served() as (address, *_):
        callers = [connected(address) for _ in range(at_a_time)]
        try:
            for caller in callers:
                head = HEAD.replace(b"1000", str(most).encode())
                caller.__enter__().sendall(head + b"\r\n" + bytes(most - 1))
            wait_until(lambda: ask_about(address, DARK)[0] == 503)
            assert ask_about(address, DARK)[1]["Retry-After"] == "1"
        finally:
            for caller in callers:
                caller.__exit__(None, None, None)
        wait_until(lambda: ask_about(address, DARK)[0] == 200)


def test_a_token_is_asked_for():
    with served(token="secret") as (address, *_):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic secret"},
            {"Authorization": "é"},
        ):
            status, head, answer = ask_about(address, DARK, headers=headers)
            assert (status, head["WWW-Authenticate"]) == (401, "Bearer") and "Authorization: Bearer" in answer["detail"]
        right = {"Authorization": "Bearer secret"}
        assert ask_about(address, DARK, headers=right)[0] == 200
        assert [ask(address, path)[0] for path in ("/metrics", "/health", "/model", "/", "/docs")] == [401, *[200] * 4]
        assert ask(address, "/metrics", headers=right)[0] == 200
        assert json.loads(ask(address, "/model")[2])["token"] is True
        assert json.loads(ask(address, "/openapi.json")[2])["paths"]["/predict"]["post"]["security"] == [{"token": []}]


def test_health_tells_when_the_service_cannot_work(monkeypatch):
    with served() as (address, _, service, _):
        assert json.loads(ask(address, "/health")[2]) == {"status": "ok"}
        monkeypatch.setattr(type(service), "healthy", False)
        assert ask(address, "/health")[::2] == (503, b'{"status":"failed"}')


def test_the_model_is_described(plain):
    answer = ModelInfo.model_validate_json(ask(plain, "/model", headers={"Accept": "text/html"})[2], strict=True)
    assert (answer.channels, answer.samples, answer.addresses) == (1, [], [])
    assert (answer.model, answer.class_names, answer.attention) == ("fake", DESCRIPTION.class_names, True)
    assert (answer.max_images, answer.max_upload_bytes, answer.token) == (4, 100_000, False)


def test_metrics_count_requests_batches_and_paths_of_its_own():
    with served() as (address, *_):
        for _ in range(3):
            ask_about(address, DARK, ("x", b""))
        for path in ("/a", "/b"):
            ask(address, path)
        assert ask(address, "/metrics")[1]["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert counted(address, "cait_requests_total", path="/predict", status="200") == 3
        assert counted(address, "cait_requests_total", path="other", status="404") == 2
        assert counted(address, "cait_images_total", outcome="ok") == 3
        assert counted(address, "cait_images_total", outcome="error") == 3
        assert counted(address, "cait_batch_images_count") == counted(address, "cait_inference_seconds_count") == 3
        assert counted(address, "cait_predict_seconds_count") == 3
        assert counted(address, "process_resident_memory_bytes") > 1e7


def test_nothing_comes_from_elsewhere(plain):
    """What the pages name is theirs, and the browser is told to fetch nothing else."""
    checked = 0
    for page in ("/", "/docs"):
        status, headers, text = ask(plain, page)
        assert status == 200 and headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
        for name in re.findall(r'(?:src|href)="([^"]+)"', text.decode()):
            status, headers, content = ask(plain, f"/{name}")
            assert status == 200, name
            assert headers["X-Content-Type-Options"] == "nosniff"
            if name.startswith("page/"):
                assert not re.search(rb"//[\w.-]*\w", content.replace(b"http://www.w3.org/2000/svg", b"")), name
            checked += 1
    assert checked >= 9
    description = json.loads(ask(plain, "/openapi.json")[2])
    assert set(description["paths"]) == {"/predict", "/health", "/metrics", "/model"}
    assert set(description["paths"]["/predict"]["post"]["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/json",
    }


def refuses(address):
    try:
        with connected(address):
            return False
    except ConnectionRefusedError:
        return True


def test_what_was_taken_in_is_answered_before_the_end():
    with served() as (address, predictor, _, running):
        predictor.go_on.clear()
        with concurrent.futures.ThreadPoolExecutor(1) as pool, connected(address) as kept:
            first = pool.submit(ask_about, address, BRIGHT)
            assert predictor.entered.wait(10)
            running.should_exit = True
            wait_until(lambda: refuses(address))
            kept.sendall(post(*form([DARK])))  # on a connection from before
            time.sleep(0.1)
            predictor.go_on.set()
            status, headers, answer = first.result()
            assert (status, headers["Connection"], best_of(answer)) == (200, "close", ["bright"])
            text = received(kept)
            assert text.startswith(b"HTTP/1.1 200 ") and b"\r\nconnection: close\r\n" in text


def test_addresses():
    with http_server.open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert http_server.is_loopback(taken) and http_server.address_of(taken) == f"http://127.0.0.1:{port}/"
        with pytest.raises(CaitError, match=rf"127.0.0.1:{port}: cannot listen there .*--port=0 takes any free one"):
            http_server.open_socket("127.0.0.1", port)
        assert http_server.addresses_for_others(taken) == []
    with pytest.raises(CaitError, match="cannot listen there"):
        http_server.open_socket("192.0.2.1", 0)  # kept for documentation: nobody's


@pytest.mark.parametrize("host, here", [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])
def test_a_service_that_listens_everywhere_tells_addresses_that_can_be_opened(host, here):
    with contextlib.suppress(CaitError), http_server.open_socket(here.strip("[]"), 0):
        with http_server.open_socket(host, 0) as listener:
            port = listener.getsockname()[1]
            assert not http_server.is_loopback(listener)
            addresses = [http_server.address_of(listener), *http_server.addresses_for_others(listener)]
            assert addresses[0] == f"http://{here}:{port}/" and here not in "".join(addresses[1:])
            for address in addresses:
                assert address.endswith(f":{port}/")
                with connected(address):
                    pass
        return
    pytest.skip(f"this machine has no {here}")


def test_the_start_tells_how_others_get_here(monkeypatch):
    with http_server.open_socket("127.0.0.1", 0) as listener:
        assert "add --host=0.0.0.0 and a token" in http_server.how_to_reach(listener)
    for others, words in (["http://192.0.2.7:80/"], "network: http://192.0.2.7:80/"), ([], "this computer's address"):
        monkeypatch.setattr(http_server, "addresses_for_others", lambda listener, others=others: others)
        with http_server.open_socket("0.0.0.0", 0) as listener:
            assert words in http_server.how_to_reach(listener)
