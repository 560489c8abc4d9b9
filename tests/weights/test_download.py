"""Downloads from a server on this machine that breaks off, changes its mind or sends pages."""

import hashlib
import http.server
import json
import re
import threading
import urllib.request

import numpy as np
import pytest
from safetensors.numpy import save

from cait.advice import MIRROR, after_failed_download
from cait.errors import CaitError
from cait.weights import download
from cait.weights.layout import transpose_linear
from cait.weights.read import load_tensors
from cait.zoo import create_model
from project import GOLDEN, ROOT, run_python

CONTENT = (GOLDEN / "tiny_timm_style.safetensors").read_bytes()
OTHER = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
NAME = "model.safetensors"


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` with ranges; closes the connection after each number of bytes in `break_after`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag, self.break_after, self.ranges, self.status = CONTENT, '"1"', [], True, 200
        self.requests, self.shift, self.tells_length, self.moved = [], 0, True, 0
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.requests.append((self.path, asked))
        if server.moved and self.path != "/moved":
            self.send_response(server.moved)
            self.send_header("Location", "/moved")
            return self.end_headers()
        if server.status != 200:
            return self.send_error(server.status)
        start = 0
        if asked and server.ranges and self.headers.get("If-Range") == server.tag:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(server.content):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start + server.shift}-{len(server.content) - 1}/{len(server.content)}"
            )
        if server.tells_length:
            self.send_header("Content-Length", str(len(server.content) - start))
        self.send_header("ETag", server.tag)
        self.end_headers()
        end = start + server.break_after.pop(0) if server.break_after else len(server.content)
        self.wfile.write(server.content[start:end])
        return None


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def fetch(server, tmp_path):
    return lambda: download.fetch(f"{server.url}/{NAME}", tmp_path, NAME)


def test_a_file_is_fetched_once_and_verified(server, fetch, tmp_path):
    for _ in range(2):
        assert fetch().read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert (tmp_path / f"{NAME}.sha256").read_text().split()[0] == hashlib.sha256(CONTENT).hexdigest()
    assert {path.name for path in tmp_path.iterdir()} == {NAME, f"{NAME}.sha256"}


def test_a_download_that_breaks_off_goes_on(server, fetch):
    server.break_after = [50_000, 30_000]
    assert fetch().read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=50000-", "bytes=80000-"]


def test_the_next_call_goes_on_too(server, fetch, tmp_path):
    server.break_after = [50_000, 0, 0, 0, 0, 0]
    with pytest.raises(CaitError, match="broke off after 50000 bytes; the same command goes on"):
        fetch()
    assert not (tmp_path / NAME).exists()
    server.break_after = []
    server.requests.clear()
    assert fetch().read_bytes() == CONTENT
    assert server.requests == [(f"/{NAME}", "bytes=50000-")]


def test_a_file_that_changed_on_the_server_is_fetched_anew(server, fetch):
    server.break_after = [50_000, 0, 0]
    with pytest.raises(CaitError):
        fetch()
    server.content, server.tag, server.break_after = OTHER, '"2"', []
    assert fetch().read_bytes() == OTHER


def test_a_server_without_ranges_starts_again(server, fetch):
    server.ranges, server.break_after = False, [50_000]
    assert fetch().read_bytes() == CONTENT


def test_a_whole_part_needs_no_more_bytes(server, fetch, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    state = {"url": f"{server.url}/{NAME}", "validator": server.tag}
    (tmp_path / f"{NAME}.part.json").write_text(json.dumps(state))
    assert fetch().read_bytes() == CONTENT


def test_a_file_whose_checksum_changed_is_kept_aside(server, fetch, tmp_path):
    fetch()
    (tmp_path / NAME).write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(
        CaitError, match=r"its checksum is not the recorded one; it is kept as .*model\.safetensors\.bad"
    ):
        fetch()
    assert (tmp_path / f"{NAME}.bad").read_bytes() == CONTENT[:-1] + b"x" and not (tmp_path / NAME).exists()
    assert fetch().read_bytes() == CONTENT


def test_a_file_put_there_by_hand_is_used(server, fetch, tmp_path):
    (tmp_path / NAME).write_bytes(b"mine")
    assert fetch().read_bytes() == b"mine" and server.requests == []


@pytest.mark.parametrize(
    "content, words",
    [
        (b"<!DOCTYPE html><html>please log in</html>", "an HTML page, not a checkpoint"),
        (b'{"error": "not found"}', "neither a .pth nor a .safetensors file"),
        (b"", "neither a .pth nor a .safetensors file"),
        (CONTENT[:100_000], "a damaged safetensors file"),
        ((GOLDEN / "tiny_fb_style.pth").read_bytes()[:100_000], "neither a .pth nor"),
    ],
)
def test_what_is_no_checkpoint_is_kept_aside(server, fetch, tmp_path, content, words):
    server.content = content
    with pytest.raises(CaitError, match=f"gave {words}.*; it is kept as .*"):
        fetch()
    assert {path.name for path in tmp_path.iterdir()} == {f"{NAME}.bad"}
    server.content = CONTENT
    assert fetch().read_bytes() == CONTENT


def test_a_whole_pth_file_is_taken(server, fetch):
    server.content = (GOLDEN / "tiny_fb_style.pth").read_bytes()
    assert fetch().read_bytes() == server.content


def test_a_server_that_tells_no_length(server, fetch, tmp_path):
    server.tells_length, server.break_after = False, [50_000]
    with pytest.raises(CaitError, match="a damaged safetensors file"):
        fetch()
    assert fetch().read_bytes() == CONTENT


def test_another_range_than_the_one_asked_for_is_an_error(server, fetch, tmp_path):
    server.break_after, server.shift = [50_000], 1
    with pytest.raises(CaitError, match="another part than the one asked for; remove the .part file"):
        fetch()
    assert (tmp_path / f"{NAME}.part").read_bytes() == CONTENT[:50_000]


def test_a_part_from_another_mirror_is_not_continued(server, fetch, tmp_path):
    server.break_after = [50_000, 0, 0]
    with pytest.raises(CaitError):
        fetch()
    server.break_after, server.content = [], OTHER
    assert download.fetch(f"{server.url}/other", tmp_path, NAME).read_bytes() == OTHER
    assert server.requests[-1] == ("/other", None)


@pytest.mark.parametrize(
    "url", ["foo", "https://a b", "https://[::1", "http://127.0.0.1:xx/a", "ftp://127.0.0.1:9/a", "file:///etc/passwd"]
)
def test_no_address_is_named(tmp_path, url):
    with pytest.raises(CaitError, match="cannot be reached"):
        download.fetch(url, tmp_path, "a")


@pytest.mark.parametrize("content", ["", "{"])
def test_broken_notes_count_as_none(server, fetch, tmp_path, content):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    (tmp_path / f"{NAME}.part.json").write_text(content)
    assert fetch().read_bytes() == CONTENT
    (tmp_path / f"{NAME}.sha256").write_text("")
    assert fetch().read_bytes() == CONTENT


def test_an_error_of_the_server_is_named(server, fetch):
    server.status = 404
    with pytest.raises(CaitError, match="model.safetensors: the server answers 404 Not Found"):
        fetch()


def test_no_server_is_named(tmp_path):
    with pytest.raises(CaitError, match=r"http://127\.0\.0\.1:9/a: cannot be reached"):
        download.fetch("http://127.0.0.1:9/a", tmp_path, "a")


@pytest.mark.parametrize(
    "origin, path",
    [("timm", "/timm/cait_xxs24_224.fb_dist_in1k/resolve/main/model.safetensors"), ("official", "/deit/XXS24_224.pth")],
)
def test_the_published_addresses(server, origin, path):
    assert download.SOURCES[origin].url("cait_xxs24_224", server.url) == server.url + path
    assert download.SOURCES[origin].url("cait_xxs24_224", None).startswith("https://")


def convert_from(server, tmp_path):
    script = str(ROOT / "CaiT" / "convert_weights.py")
    words = ["--variant", "cait_xxs24_384", "--base-url", server.url, "--cache", tmp_path / "cache"]
    return run_python(script, *words, "--output", tmp_path / "a.pdparams")


def test_the_command_downloads_and_converts(server, tmp_path):
    model = create_model("cait_xxs24_384")
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    server.content, server.break_after = save(transpose_linear(weights)), [20_000_000]
    result = convert_from(server, tmp_path)
    assert result.returncode == 0, result.stderr
    assert [asked for _, asked in server.requests] == [None, "bytes=20000000-"]
    written = load_tensors(tmp_path / "a.pdparams")
    assert all(np.array_equal(written[name], value) for name, value in weights.items())


@pytest.mark.parametrize("trouble", ["no server", "404", "breaks off", "a page"])
def test_a_download_that_fails_names_the_other_sources(server, tmp_path, trouble):
    server.status = 404 if trouble == "404" else 200
    server.content = b"<html>" if trouble == "a page" else CONTENT
    server.break_after = [50_000, 0, 0] if trouble == "breaks off" else []
    url = "http://127.0.0.1:9" if trouble == "no server" else server.url
    with pytest.raises(CaitError) as caught:
        download.fetch_variant("cait_xxs24_224", "timm", url, tmp_path)
    message = str(caught.value)
    for words in ("--base-url=https://hf-mirror.com", "--from=timm,", "--from=official", "docs/model_zoo.md"):
        assert words in message
    assert "`python CaiT/convert_weights.py FILE --variant cait_xxs24_224`" in message


@pytest.mark.parametrize("source", [*download.SOURCES.values(), download.SOURCES["timm"]._replace(base_url=MIRROR)])
def test_the_source_that_failed_is_not_offered_again(source):
    advice = after_failed_download("cait_xxs24_224", source.url("cait_xxs24_224", None))
    offered = [words in advice for words in ("--from=timm,", "--from=official,", MIRROR)]
    assert offered.count(False) == 1


def test_a_damaged_file_of_the_cache_is_no_fault_of_the_network(server, fetch, tmp_path):
    fetch()
    (tmp_path / "cait_xxs24_224.timm.safetensors").write_bytes(CONTENT)
    (tmp_path / "cait_xxs24_224.timm.safetensors.sha256").write_text("0  cait\n")
    with pytest.raises(CaitError, match="checksum is not the recorded one.*downloads it anew$"):
        download.fetch_variant("cait_xxs24_224", "timm", server.url, tmp_path)


@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_mirror_may_send_on(server, fetch, status):
    server.moved = status
    assert fetch().read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == [f"/{NAME}", "/moved"]


def test_the_command_refuses_a_download_of_another_model(server, tmp_path):
    result = convert_from(server, tmp_path)
    assert result.returncode == 1
    assert re.fullmatch(r"error: .*cait_xxs24_384\.timm\.safetensors: weights of another model: .*\n", result.stderr)
    assert not (tmp_path / "a.pdparams").exists()


@pytest.mark.parametrize("url", ["http://mirror.example/a", "http://127.0.0.1.example/a", "HTTP://10.0.0.1/a"])
def test_plain_http_must_be_asked_for(tmp_path, url, monkeypatch):
    with pytest.raises(CaitError, match="not encrypted, so anyone on the way may change the file; --allow-http"):
        download.fetch(url, tmp_path, "a")
    monkeypatch.setattr(download, "_continue", lambda *_: pytest.skip("asked"))
    with pytest.raises(pytest.skip.Exception):
        download.fetch(url, tmp_path, "a", allow_http=True)


@pytest.mark.parametrize(
    "start, end, allow_http, is_followed",
    [
        ("https://a/x", "https://b/x", False, True),
        ("https://a/x", "http://b/x", True, False),
        ("https://a/x", "http://127.0.0.1/x", False, False),
        ("http://127.0.0.1/x", "http://b/x", False, False),
        ("http://127.0.0.1/x", "http://b/x", True, True),
        ("https://a/x", "ftp://b/x", True, False),
        ("http://127.0.0.1/x", "file:///etc/passwd", True, False),
    ],
)
def test_no_redirect_loses_encryption(start, end, allow_http, is_followed):
    request, handler = urllib.request.Request(start), download._Redirects(allow_http)
    if is_followed:
        assert handler.redirect_request(request, None, 302, "", {}, end).full_url == end
    else:
        with pytest.raises(CaitError, match="not encrypted|cannot be reached"):
            handler.redirect_request(request, None, 302, "", {}, end)


@pytest.mark.parametrize("tells_length", [True, False])
def test_no_more_is_taken_than_a_checkpoint_has(server, fetch, tmp_path, monkeypatch, tells_length):
    monkeypatch.setattr(download, "MAX_BYTES", 50_000)
    monkeypatch.setattr(download, "CHUNK_BYTES", 10_000)
    server.tells_length = tells_length
    with pytest.raises(CaitError, match="more than 50000 bytes"):
        fetch()
    part = tmp_path / f"{NAME}.part"
    assert not part.exists() or part.stat().st_size <= 50_000


def test_a_file_whose_checksum_is_published_must_have_it(server, tmp_path, monkeypatch):
    name = "cait_xxs24_224.timm.safetensors"
    with pytest.raises(CaitError, match="another file than the published one, whose SHA-256 is 396b9224"):
        download.fetch_variant("cait_xxs24_224", "timm", server.url, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.bad"}
    monkeypatch.setitem(download.PUBLISHED, name, hashlib.sha256(CONTENT).hexdigest())
    assert download.fetch_variant("cait_xxs24_224", "timm", server.url, tmp_path).read_bytes() == CONTENT
