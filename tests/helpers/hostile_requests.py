"""Raw requests that are made to break the service, as bytes of one connection each."""

import contextlib
import functools
import json

from attackers import CHUNKED, GET, KINDS
from serve_load import BOUNDARY, form, post

HOST = b"Host: 127.0.0.1\r\n"
DIGIT = b"P5 8 8 255\n" + bytes(64)
FORM = f"multipart/form-data; boundary={BOUNDARY}"
RUNNING = contextlib.ExitStack()  # the service, once it is asked
KNOWN = {200, 400, 401, 403, 404, 405, 408, 413, 415, 421, 422, 431, 503, 504}
ESCAPES = "\x1b]0;x\x07\x1b[2J\u202e\r\n"


def get(target=b"/health", more=b"", method=b"GET", host=HOST, version=b"HTTP/1.1"):
    return method + b" " + target + b" " + version + b"\r\n" + host + more + b"\r\n"


def send_json(text, kind="application/json"):
    return post(text if isinstance(text, bytes) else text.encode(), kind)


def send_form(body, kind=FORM):
    return post(body, kind)


def part(headers, content=DIGIT):
    return f"--{BOUNDARY}\r\n".encode() + headers + b"\r\n\r\n" + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def heads():
    """Request lines and headers."""
    for name, line in {
        "nothing": b"", "an empty line": b"\r\n\r\n", "no HTTP": b"hello\r\n\r\n", "zeros": bytes(1000),
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP/0.9": b"GET /health\r\n\r\n", "no version": get(version=b""), "HTTP/9.9": get(version=b"HTTP/9.9"),
        "HTTP/1.0": get(version=b"HTTP/1.0", host=b""), "a blank before": b" " + get(), "line feeds alone":
        b"GET /health HTTP/1.1\nHost: 127.0.0.1\n\n", "a method of 5000 letters": get(method=b"G" * 5000),
        "a method that is none": get(method=b"G\x00T"), "CONNECT": get(b"example.org:443", method=b"CONNECT"),
        "TRACE": get(method=b"TRACE"), "OPTIONS *": get(b"*", method=b"OPTIONS"), "DELETE": get(method=b"DELETE"),
    }.items():  # fmt: skip
        yield f"line: {name}", line
    for target in (
        b"http://evil.example/health", b"//evil.example/", b"/../../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd",
        b"/samples/../../etc/passwd", b"/samples/%2fetc%2fpasswd", b"/samples/-1", b"/samples/99999999999999999999",
        b"/samples/1e9", b"/samples/0x0", b"/samples/\xff", b"/%00", b"/%", b"/%zz", b"/health?" + b"a=b&" * 5000,
        b"/health/", b"/predict", b"/" + b"a/" * 10_000, b"/\xf0\x9f\x92\xa9", b"\\health", b"health", b"/health#x",
        b"/docs/../openapi.json", b"/%0d%0aSet-Cookie:%20x", b"/static/%2e%2e/server.py", b"/page/..%5cserver.py",
    ):  # fmt: skip
        yield f"target: {target[:40]!r}", get(target)
    for host in (
        b"evil.example", b"", b"127.0.0.1:99999999", b"127.0.0.1:x", b"a@127.0.0.1", b"127.0.0.1 evil.example", b"[::1",
        b"[" + b":" * 1000 + b"]", b"\xff\xfe", b"127.0.0.1\x00.evil.example", b"x" * 10_000, b"localhost.evil.example",
        b"0x7f000001", b"2130706433", b"127.1", b"127.0.0.1#", b"127.0.0.1/", b"\x1b[2J",
    ):  # fmt: skip
        yield f"Host: {host[:40]!r}", get(host=b"Host: " + host + b"\r\n")
    yield "Host: none", get(host=b"")
    yield "Host: two", get(host=HOST + b"Host: evil.example\r\n")
    for name, value in {
        "Content-Length": b"-1", "Content-length": b"99999999999999999999999", "content-length": b"1, 2",
        "Content-Length ": b"1", "Transfer-Encoding": b"chunked, identity", "transfer-encoding": b"\x0bchunked",
        "Transfer-encoding": b"gzip, chunked", "Expect": b"200-maybe", "Upgrade": b"websocket\r\nConnection: Upgrade",
        "Connection": b"close, " * 1000, "Range": b"bytes=0-" + b"1-" * 1000, "Authorization": b"Bearer " + b"x" * 9000,
        "authorization": b"Bearer \xff\xfe", "Origin": b"null", "origin": b"http://evil.example",
        "Sec-Fetch-Site": b"cross-site", "Cookie": b"a=b; " * 1000, "X-Forwarded-Host": b"evil.example",
        "X-Zero": b"a\x00b", "X-Return": b"a\rb", "X-Bytes": bytes(range(128, 256)), "": b"x", "no colon\r\nX": b"y",
        "X-Folded": b"a\r\n b", "Content-Encoding": b"gzip", "If-None-Match": b"*" * 10_000,
        "Accept": b"*/*," * 2000, "Referer": b"\x1b[2J",
    }.items():  # fmt: skip
        header = name.encode() + b": " + value + b"\r\n"
        yield f"header: {name} {value[:20]!r}", get(b"/predict", header, method=b"POST")


def framed():
    """Bodies that are no bodies, and requests within requests."""
    chunked = b"POST /predict HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    for name, body in {
        "no size": b"\r\n", "a negative size": b"-1\r\nx\r\n", "a size of 100 digits": b"f" * 100 + b"\r\n",
        "a size of 16 digits": b"f" * 16 + b"\r\nx", "no hexadecimal": b"zz\r\n", "0x": b"0x1\r\nx\r\n0\r\n\r\n",
        "no end of a chunk": b"1\r\nxyz", "an extension": b"1;" + b"a" * 100 + b"\r\nx\r\n0\r\n\r\n",
        "a trailer": b"1\r\nx\r\n0\r\na: b\r\n\r\n", "no last chunk": b"1\r\nx\r\n", "a blank": b"1 \r\nx\r\n0\r\n\r\n",
        "the head of another": b"0\r\n\r\n" + get(b"/metrics"),
    }.items():  # fmt: skip
        yield f"chunks: {name}", chunked + b"\r\n" + body
    yield "both lengths", chunked + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + get()
    yield "two lengths", get(b"/predict", b"Content-Length: 1\r\nContent-Length: 2\r\n", b"POST") + b"xx"
    yield "a length and nothing", get(b"/predict", b"Content-Length: 1000\r\n", b"POST")
    yield "a body of a GET", get(more=b"Content-Length: 5\r\n") + b"hello"
    yield "twenty at once", get() * 20
    yield "posts at once", send_json("{}") * 10
    yield "an answer as a request", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    for name, (first, again) in KINDS.items():
        yield f"attack: {name}", first + again
    yield "chunks of zero", CHUNKED + b"0\r\n\r\n" * 1000
    yield "no end of the head", GET


def bodies():
    """Forms and JSON."""
    image = b'Content-Disposition: form-data; name="images"; filename="'
    disposition = b"Content-Disposition: form-data; name="
    for name, (body, kind) in {
        "no boundary": (part(image + b'a"'), "multipart/form-data"),
        "an empty boundary": (part(image + b'a"'), "multipart/form-data; boundary="),
        "a boundary of 10000 letters": (b"--x", "multipart/form-data; boundary=" + "x" * 10_000),
        "another boundary": (part(image + b'a"'), "multipart/form-data; boundary=other"),
        "a boundary of blanks": (b"-- ", 'multipart/form-data; boundary="  "'),
        "nothing": (b"", FORM),
        "the end alone": (f"--{BOUNDARY}--\r\n".encode(), FORM),
        "no end": (part(image + b'a"')[:-8], FORM),
        "no headers": (part(b""), FORM),
        "no name": (part(b"Content-Disposition: form-data"), FORM),
        "a header of 20000 letters": (part(b"X: " + b"y" * 20_000), FORM),
        "5000 headers": (part(b"X: y\r\n" * 5000 + image + b'a"'), FORM),
        "5000 parts": (form([("a", DIGIT)] * 5000)[0], FORM),
        "parts of no field": (part(disposition + b'"other"'), FORM),
        "a part in a part": (part(image + b'a"', part(image + b'b"')), FORM),
        "an empty image": (part(image + b'a"', b""), FORM),
        "a name with a path": (part(image + b'../../etc/passwd"'), FORM),
        "a name with escapes": (part(image + ESCAPES.encode().replace(b"\r\n", b"%0a") + b'"', b"x"), FORM),
        "a name of no UTF-8": (part(image + b'\xff\xfe"', b"x"), FORM),
        "a name of 20000 letters": (part(image + b"n" * 20_000 + b'"', b"x"), FORM),
        "a name without its end": (part(image + b"n", b"x"), FORM),
        "filename*": (part(image + b"a\"; filename*=UTF-8''%1b%5b2J"), FORM),
        "top_k of letters": (form([("a", DIGIT)], top_k="five")[0], FORM),
        "top_k of 100 digits": (form([("a", DIGIT)], top_k="9" * 100)[0], FORM),
        "top_k of 5000 digits": (form([("a", DIGIT)], top_k="9" * 5000)[0], FORM),
        "top_k of other digits": (form([("a", DIGIT)], top_k="\u0663")[0], FORM),
        "attention maybe": (form([("a", DIGIT)], attention="maybe")[0], FORM),
        "base64 for a transfer": (part(image + b'a"\r\nContent-Transfer-Encoding: base64', b"eA=="), FORM),
    }.items():
        yield f"form: {name}", send_form(body, kind)
    yield "form: more than may be sent", send_form(bytes(200_000))
    good = '"' + "UDUgMSAxIDI1NQoA" + '"'
    texts = [
        "", "null", "[]", "1", "{", '{"images"', '{"images": null}', '{"images": {}}', '{"images": []}',
        '{"images": [null]}', '{"images": [1]}', '{"images": [[' + good + "]]}", '{"images": ["?"]}',
        '{"images": [""]}',
        '{"images": ["data:,"]}', '{"images": ["data:' + "x" * 9000 + '"]}', '{"images": ["' + "A" * 50_001 + '"]}',
        f'{{"images": [{good}], "top_k": 0}}', f'{{"images": [{good}], "top_k": -1}}',
        f'{{"images": [{good}], "top_k": 1e3}}', f'{{"images": [{good}], "top_k": true}}',
        f'{{"images": [{good}], "top_k": {"9" * 400}}}', f'{{"images": [{good}], "top_k": {"9" * 9000}}}',
        f'{{"images": [{good}], "top_k": NaN}}', f'{{"images": [{good}], "top_k": Infinity}}',
        f'{{"images": [{good}], "attention": 1}}', f'{{"images": [{good}], "seen": "yes"}}',
        f'{{"images": [{good}], "other": 1}}', f'{{"images": [{good}], "\\u001b[2J": 1}}',
        f'{{"images": [{good}], "images": []}}', f'{{"images": [{good}], "__proto__": {{}}}}',
        "[" * 90_000, '{"images":' + "[" * 40_000 + "]" * 40_000 + "}", '{"a":' * 10_000 + "1" + "}" * 10_000,
        '{"images": [' + ",".join(["1"] * 40_000) + "]}", '{"images": [' + '"",' * 20_000 + '""]}', "9" * 90_000,
        "\ufeff{}", '{"images": ["\ud83d"]}'.encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
        '{"images": ["\\ud800"]}',
    ]  # fmt: skip
    for number, text in enumerate(texts):
        yield f"json {number}: {text[:40]!r}", send_json(text)
    yield "json: no UTF-8", send_json(b'{"images": ["\xff"]}')
    yield "json: UTF-16", send_json('{"images": []}'.encode("utf-16"))
    yield "json: UTF-7", send_json("{}", "application/json; charset=utf-7")
    for kind in (
        "",
        "text/plain",
        "application/xml",
        "application/json, multipart/form-data",
        "x" * 5000,
        "a/b;" * 500,
    ):
        yield f"type: {kind[:40]!r}", send_json("{}", kind)


def cases():
    """Hostile requests, each the one file `case` of its folder."""
    for family in (heads, framed, bodies):
        for name, data in family():
            yield name, {"case": data}


@functools.cache
def _address():
    from serving import served

    return RUNNING.enter_context(served(message_seconds=2.0, read_seconds=2.0))[0]


def read(folder):
    """Sends the request and closes its side; the answers, if any, are known, and the service works after that."""
    from cait.errors import CaitError
    from serving import ask, connected, received

    path = folder / "case"
    with connected(_address()) as connection:
        with contextlib.suppress(OSError):  # who is refused early is not read to the end
            connection.sendall(path.read_bytes() if path.exists() else get())
            connection.shutdown(1)
        answer = received(connection)
    assert ask(_address(), "/health")[::2] == (200, b'{"status":"ok"}')
    if not answer:
        raise CaitError("the connection was closed")
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status in KNOWN, answer[:1000]
    if status != 200:
        detail = json.loads(body.partition(b"HTTP/1.1 ")[0])["detail"]
        raise CaitError(f"{status}: {detail}")
