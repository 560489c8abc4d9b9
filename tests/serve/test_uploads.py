"""Bodies of requests: forms and JSON, good and bad."""

import base64
import json

import numpy as np
import pytest

from cait.serve.uploads import Limits, Request, Upload, UploadError, parse_request
from serve_load import BOUNDARY, form

pytestmark = pytest.mark.any_paddle

LIMITS = Limits(max_bytes=1000, max_images=3, num_classes=10, has_attention=True)
DATA = np.random.default_rng(0).bytes(5000) + b"\r\n--\r\n--" + BOUNDARY[:-1].encode()  # nearly a boundary


def parse(content_type, body, limits=LIMITS):
    return parse_request(content_type, body, limits, 5)


def encoded(data):
    return base64.b64encode(data).decode()


def test_a_form():
    body, content_type = form([("a.png", DATA), ("b c ü.png", b"")], top_k=3, attention="true", seen="1")
    assert parse(content_type, body) == Request([Upload("a.png", DATA), Upload("b c ü.png", b"")], 3, True, True)


def test_json():
    body = json.dumps({"images": [encoded(DATA), "data:image/png;base64," + encoded(b"x")], "top_k": 2, "seen": True})
    expected = Request([Upload("image 1", DATA), Upload("image 2", b"x")], 2, False, True)
    for content_type in ("application/json", "Application/JSON; charset=utf-8"):
        assert parse(content_type, body.encode()) == expected


def test_what_is_not_said_has_a_default_and_top_k_ends_with_the_classes():
    body, content_type = form([("a.png", b"x")])
    assert parse(content_type, body) == Request([Upload("a.png", b"x")], 5, False)
    body, content_type = form([("a.png", b"x")], top_k=1000, attention="False")
    assert parse(content_type, body) == Request([Upload("a.png", b"x")], 10, False)


def test_an_image_without_a_file_name():
    body = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"\r\n\r\nabc\r\n--{BOUNDARY}--\r\n'
    request = parse(f"multipart/form-data; boundary={BOUNDARY}", body.encode())
    assert request.images == [Upload("image 1", b"abc")]


def json_body(**values):
    return "application/json", json.dumps(values).encode()


def form_body(count=1, **fields):
    body, content_type = form([("a.png", b"x")] * count, **fields)
    return content_type, body


ONE = [encoded(b"x")]
DEEP = b'{"images": ' + b"[" * 100_000
TWICE = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n1\r\n' * 2 + f"--{BOUNDARY}--\r\n"
).encode()
LOST_END = form([("a.png", b"x")])[0][:-10]


@pytest.mark.parametrize(
    "content_type, body, status, words",
    [
        ("", b"x", 415, "the Content-Type is missing"),
        ("x" * 9000, b"x", 415, f"the Content-Type is '{'x' * 37}...{'x' * 38}'; send"),
        ("a\x1b[2J", b"x", 415, r"the Content-Type is 'a\x1b[2j'; send"),
        ("image/png", b"x", 415, "the Content-Type is image/png; send multipart/form-data or application/json"),
        ("multipart/form-data", b"x", 400, "names no boundary"),
        ("multipart/form-data; boundary=a", b"x", 400, "the form cannot be read"),
        (f"multipart/form-data; boundary={BOUNDARY}", LOST_END, 400, "ends before its last boundary"),
        (f"multipart/form-data; boundary={BOUNDARY}", b"", 400, "ends before its last boundary"),
        (*form_body(0), 422, "holds no image"),
        (*form_body(4), 422, "more than the 3 images that are allowed"),
        (*form_body(image="x"), 422, "unknown field 'image'; the fields are images, top_k, attention, seen"),
        (*form_body(top_k="0"), 422, "top_k must be a whole number from 1, not 0"),
        (*form_body(top_k="-1"), 422, "not '-1'"),
        (*form_body(top_k="many"), 422, "not 'many'"),
        (*form_body(top_k="1" * 101), 422, "top_k has 101 bytes"),
        (f"multipart/form-data; boundary={BOUNDARY}", TWICE, 422, "top_k is given twice"),
        (*form_body(attention="maybe"), 422, "attention must be true or false, not 'maybe'"),
        (*form_body(seen="maybe"), 422, "seen must be true or false, not 'maybe'"),
        ("application/json", b"{", 400, "the JSON cannot be read"),
        ("application/json", b"\xff", 400, "the JSON cannot be read"),
        ("application/json", DEEP, 400, "the JSON cannot be read"),
        ("application/json", b"[]", 422, "must be an object such as"),
        (*json_body(images="x"), 422, "must be an object such as"),
        (*json_body(images=[]), 422, "holds no image"),
        (*json_body(images=ONE * 4), 422, "holds 4 images, and 3 are allowed"),
        (
            "application/json",
            b'{"images": [' + b"[]," * 10_000 + b"[]]}",
            422,
            "more than the 3 images that are allowed",
        ),
        (*json_body(images=[7]), 422, "image 1: must be a string of base64"),
        (*json_body(images=[*ONE, "?"]), 422, "image 2: is no base64"),
        (*json_body(images=["ä"]), 422, "image 1: is no base64"),
        (*json_body(images=ONE, top_k=True), 422, "not True"),
        (*json_body(images=ONE, top_k=1.5), 422, "not 1.5"),
        (*json_body(images=ONE, attention=1), 422, "not 1"),
        (*json_body(images=ONE, k=1), 422, "unknown field 'k'"),
    ],
)
def test_what_cannot_be_answered_is_told_in_a_sentence(content_type, body, status, words):
    with pytest.raises(UploadError) as caught:
        parse(content_type, body)
    assert caught.value.status == status and words in str(caught.value) and "\n" not in str(caught.value)


def test_answers_are_no_longer_than_they_need_be():
    for content_type, body in (json_body(images=ONE, **{"k" * 10_000: 1}), json_body(images=ONE, top_k="1" * 10_000)):
        with pytest.raises(UploadError) as caught:
            parse(content_type, body)
        assert len(str(caught.value)) < 150
    body, content_type = form([("n" * 3000, b"x")])
    assert parse(content_type, body).images == [Upload("n" * 255, b"x")]


def test_attention_is_there_only_if_it_was_exported():
    content_type, body = form_body(attention="true")
    with pytest.raises(UploadError, match="export_model.py --with-attention adds it"):
        parse(content_type, body, Limits(1000, 3, 10, has_attention=False))
