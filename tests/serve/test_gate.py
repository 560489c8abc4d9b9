"""By which names the service is called, and which pages may ask it."""

import json

import pytest

from cait.serve import http_server
from cait.serve.gate import Hosts, host_name
from pictures import DARK
from serve_load import form
from serving import ask, connected, received, served

pytestmark = pytest.mark.any_paddle


@pytest.fixture(scope="module")
def plain():
    with served(hosts=Hosts(["Photos.example"])) as (address, *_):
        yield address


def with_hosts(address, *hosts, version=b"1.1"):
    with connected(address) as connection:
        lines = b"".join(b"Host: " + host + b"\r\n" for host in hosts)
        connection.sendall(b"GET /health HTTP/" + version + b"\r\n" + lines + b"Connection: close\r\n\r\n")
        return received(connection)


@pytest.mark.parametrize(
    "host",
    [b"localhost", b"LOCALHOST:8000", b"127.0.0.1:1", b"127.8.9.10", b"[::1]:8000", b"photos.example", b"localhost."],
)
def test_names_of_this_machine_and_those_allowed(plain, host):
    assert with_hosts(plain, host).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "host",
    [b"evil.example", b"localhost.evil.example", b"127.0.0.1.nip.io", b"192.0.2.1", b"0.0.0.0", b"[::]", b"127.1"],
)
def test_a_name_that_was_given_this_machines_address(plain, host):
    """What a browser sends that a foreign page has led here by its own name."""
    answer = with_hosts(plain, host)
    name = host.decode().strip("[]")
    assert answer.startswith(b"HTTP/1.1 421 ") and f"--allowed-host={name} lets it in".encode() in answer
    for path in ("/", "/model", "/nowhere", "/page/page.js", "/predict", "/docs", "/openapi.json"):
        assert ask(plain, path, headers={"Host": host.decode()})[0] == 421


@pytest.mark.parametrize("hosts", [[], [b""], [b"localhost", b"localhost"], [b"a b"], [b"a@b"], [b"a/b"], [b"[::1"]])
def test_no_host_or_no_name_of_one(plain, hosts):
    assert with_hosts(plain, *hosts).startswith(b"HTTP/1.1 400 ")


def test_callers_of_http_1_0_need_no_host(plain):
    assert with_hosts(plain, version=b"1.0").startswith(b"HTTP/1.1 200 ")


def test_who_listens_for_others_goes_by_every_address_and_its_name(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Attic")
    with http_server.open_socket("0.0.0.0", 0) as listener:
        hosts = http_server.hosts(listener, [])
    for host in (b"192.168.1.20:8000", b"[fe80::1]:8000", b"attic", b"attic.local", b"localhost"):
        assert hosts.allows(host), host
    assert not hosts.allows(b"evil.example") and hosts.allows(b"a b") is None
    assert Hosts(["*"]).allows(b"evil.example") and Hosts(["*"]).allows(b"a b") is None
    assert host_name("Attic.:80") == "attic" and host_name("") is None


def post(address, **headers):
    body, content_type = form([DARK])
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    status, _, text = ask(address, "/predict", "POST", body, {"Content-Type": content_type, **headers})
    return status, json.loads(text)


def test_only_pages_of_the_service_may_post(plain):
    here = plain.removesuffix("/")
    assert post(plain)[0] == 200  # a program
    for origin in ("https://photos.example", "http://photos.example:81", here, here.upper()):
        assert post(plain, Origin=origin)[0] == 200, origin
    assert post(plain, Origin=here, Sec_Fetch_Site="same-origin")[0] == 200
    assert post(plain, Sec_Fetch_Site="none")[0] == 200
    other_port = here.rsplit(":", 1)[0] + ":1"
    for origin in ("https://evil.example", "null", "", other_port, f"{here}.evil.example", "http://localhost"):
        status, answer = post(plain, Origin=origin)
        assert status == 403 and "a page of another site" in answer["detail"], origin
    for site in ("cross-site", "same-site", ""):
        assert post(plain, Sec_Fetch_Site=site)[0] == 403, site
        assert post(plain, Sec_Fetch_Site=site, Origin=here)[0] == 403, site


def test_a_foreign_page_learns_nothing(plain):
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    for method, path in (("GET", "/model"), ("GET", "/metrics"), ("OPTIONS", "/predict"), ("POST", "/predict")):
        found = ask(plain, path, method, headers=headers | {"Access-Control-Request-Method": "POST"})[1]
        assert not [name for name in found if name.lower().startswith("access-control")]


def test_nothing_is_redirected(plain):
    for path in ("/page", "/health/", "/predict/", "/docs/", "/samples/"):
        status, headers, _ = ask(plain, path)
        assert status == 404 and "Location" not in headers, path
