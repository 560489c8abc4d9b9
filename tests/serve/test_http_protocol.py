"""What a connection may cost the service: bytes, requests, answers that nobody takes, and time."""

import concurrent.futures
import contextlib
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.parse

import pytest

import attackers
from cait.serve.connections import Bounds
from cait.serve.samples import Sample
from pictures import DARK
from project import ROOT
from serve_load import form, post
from serving import ask, ask_about, connected, counted, received, served, wait_until

pytestmark = pytest.mark.any_paddle

SECONDS = 0.6  # of each attack
GET = attackers.GET + b"\r\n"
LAST = attackers.GET + b"Connection: close\r\n\r\n"


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def plain():
    with served() as (address, *_):
        ask_about(address, DARK)
        yield address


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
@pytest.mark.parametrize("kind", attackers.KINDS)
def test_one_who_sends_without_end_costs_little(plain, kind):
    """Neither memory nor the time of a caller beside it; the service is in this process, the attacker is not."""
    where = urllib.parse.urlsplit(plain)
    words = [
        sys.executable,
        "-S",
        ROOT / "tests/helpers/attackers.py",
        kind,
        where.hostname,
        str(where.port),
        str(SECONDS),
    ]
    before, highest, slowest = resident_bytes(), 0, 0.0
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as attacker:
        while attacker.poll() is None:
            started = time.monotonic()
            assert ask(plain, "/health")[0] == 200
            slowest, highest = max(slowest, time.monotonic() - started), max(highest, resident_bytes())
            time.sleep(0.02)
        sent, connections = json.loads(attacker.stdout.read())
    assert sent > 60_000 and connections > 1  # it was let in, and cut off
    assert highest - before < 30e6, f"{(highest - before) / 1e6:.0f} MB for {sent / 1e6:.0f} MB"
    assert slowest < 1.0


def answer_to(address, *pieces, then_end=False):
    """All that comes back for these bytes; with `then_end` the caller says that it sends no more."""
    with connected(address) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if then_end:
            connection.shutdown(socket.SHUT_WR)
        return received(connection)


BODY = attackers.CHUNKED + b"3\r\nabc\r\n"


@pytest.mark.parametrize(
    "request_bytes, status, words",
    [
        (BODY + b"0\r\nA: b\r\n\r\n", 400, b"trailers after a body are not accepted"),
        (attackers.GET + b"a: b\r\n" * 100 + b"\r\n", 431, b"more than 100 headers"),
        (attackers.GET + b"a: " + b"x" * 33_000 + b"\r\n\r\n", 431, b"the head of the request is too long"),
        (b"GET /" + b"x" * 33_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431, b"the head of the request is too"),
        (b"\r\n" * 20_000, 431, b"the head of the request is too long"),
        (BODY + b"1\r\nx\r\n" * 10_000, 400, b"the chunks of the body have too much beside their content"),
        (BODY + b"1;" + b"x" * 33_000, 400, b"the chunks of the body have too much beside their content"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400, b"this is no valid request of HTTP/1.1"),
        (b"GET /\x1b[31m HTTP/1.1\r\n\r\n", 400, b"this is no valid request of HTTP/1.1"),
        (attackers.CHUNKED + b"zz\r\n", 400, b"this is no valid request of HTTP/1.1"),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, b"this is no valid request of HTTP/1.1"),
    ],
)
def test_what_goes_beyond_the_bounds_is_refused_with_a_sentence(plain, request_bytes, status, words):
    answer = answer_to(plain, request_bytes)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()) and answer.count(b"HTTP/1.1 ") == 1, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head and words in json.loads(body)["detail"].encode()


@pytest.mark.parametrize(
    "request_bytes",
    [
        LAST.replace(b"\r\n\r\n", b"\r\nX-Long: " + b"x" * 30_000 + b"\r\n\r\n"),
        LAST.replace(b"\r\n\r\n", b"\r\n" + b"a: b\r\n" * 98 + b"\r\n"),
        b"\r\n\r\n" + LAST,
        LAST.replace(b"close", b"close, upgrade\r\nUpgrade: websocket"),
    ],
)
def test_what_is_within_them_is_answered(plain, request_bytes):
    assert answer_to(plain, request_bytes).startswith(b"HTTP/1.1 200 ")


def test_a_body_in_chunks_is_read(plain):
    body, content_type = form([DARK])
    chunks = [body[start : start + 64] for start in range(0, len(body), 64)]
    assert ask(plain, "/predict", "POST", iter(chunks), {"Content-Type": content_type})[0] == 200


def test_some_requests_may_wait_on_a_connection_and_more_end_it():
    with served() as (address, predictor, *_):
        answer = answer_to(address, GET * 16 + LAST)
        assert answer.count(b"HTTP/1.1 200 OK") == 17
        predictor.go_on.clear()
        answer = answer_to(address, post(*form([DARK])) + GET * 17)  # nothing may stand before the first one's answer
        assert answer == b""
        predictor.go_on.set()
        assert counted(address, "cait_refused_connections_total", reason="pipelined") == 1
        assert ask_about(address, DARK)[0] == 200


def test_one_who_says_that_it_sends_no_more_gets_its_answer(plain):
    whole = post(*form([DARK]))
    assert b'"class_name": "dark"' in answer_to(plain, whole, then_end=True)
    for part in (whole[:30], whole[:-10]):
        started = time.monotonic()
        answer = answer_to(plain, part, then_end=True)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"the request ended before it was whole" in answer
        assert time.monotonic() - started < 5  # it need not be waited for
    assert answer_to(plain, then_end=True) == b""


def test_a_body_that_is_late_is_answered_by_the_same_limit():
    with served(read_seconds=0.3, bounds=Bounds(read_seconds=0.3)) as (address, *_):
        answer = answer_to(address, post(*form([DARK]))[:-10])
        assert answer.startswith(b"HTTP/1.1 408 ") and b"did not arrive within 0.3 seconds" in answer
        assert counted(address, "cait_requests_total", path="/predict", status="408") == 1
        with connected(address) as connection:  # an answer before the body, which never comes
            connection.sendall(b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
            assert received(connection).startswith(b"HTTP/1.1 405 ")


def never_reads(address, path, times=1):
    """A connection with a small window whose answer is never read."""
    where = urllib.parse.urlsplit(address)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((where.hostname, where.port))
    connection.sendall(GET.replace(b"/health", path.encode()) * times)
    return connection


LARGE = Sample("large", "image/png", bytes(8_000_000))  # more than the system takes in


@pytest.mark.parametrize("start", ["silent", "slow head", "slow body", "never reads"])
def test_those_who_keep_it_waiting_lock_nobody_out(start):
    with served(bounds=Bounds(connections=8), samples=[LARGE]) as (address, *_), contextlib.ExitStack() as stack:
        for _ in range(20):
            if start == "never reads":
                stack.enter_context(never_reads(address, "/samples/0"))
                continue
            connection = stack.enter_context(connected(address))
            connection.sendall({"silent": b"", "slow head": attackers.GET, "slow body": BODY}[start])
        for _ in range(3):
            started = time.monotonic()
            assert ask_about(address, DARK)[0] == 200 and time.monotonic() - started < 1
        assert counted(address, "cait_refused_connections_total", reason="crowded out") >= 12


def test_where_all_are_at_work_another_connection_is_told():
    with served(bounds=Bounds(connections=4), max_queue=20) as (address, predictor, *_):
        predictor.go_on.clear()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask_about, address, DARK) for _ in range(4)]
            assert predictor.entered.wait(10)
            answers = []
            wait_until(lambda: answers.append(answer_to(address)) or answers[-1])
            assert answers[-1].startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in answers[-1]
            predictor.go_on.set()
            assert [each.result()[0] for each in asked] == [200] * 4


def test_an_answer_that_is_not_taken_is_given_up_and_a_slow_one_is_not():
    bounds = Bounds(write_seconds=0.5)
    with served(bounds=bounds, samples=[LARGE]) as (address, *_), contextlib.ExitStack() as stack:
        lazy = stack.enter_context(never_reads(address, "/samples/0"))
        slow = stack.enter_context(connected(address))
        slow.sendall(LAST.replace(b"/health", b"/samples/0"))
        taken, started = 0, time.monotonic()
        while taken < len(LARGE.data) and (chunk := slow.recv(300_000)):
            taken += len(chunk)
            time.sleep(0 if time.monotonic() - started > 1.5 else 0.1)
        assert taken >= len(LARGE.data) and time.monotonic() - started > 1.5
        assert counted(address, "cait_refused_connections_total", reason="answer not taken") == 1
        assert len(received(lazy)) < len(LARGE.data)


def test_answers_that_are_not_taken_are_bounded_together():
    """Long before each of them is late."""
    bounds, reason = Bounds(unsent_bytes=20_000_000), {"reason": "answer not taken"}
    with served(bounds=bounds, samples=[LARGE]) as (address, *_), contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(never_reads(address, "/samples/0"))
        wait_until(lambda: counted(address, "cait_refused_connections_total", **reason))
        time.sleep(0.5)
        assert 4 <= counted(address, "cait_refused_connections_total", **reason) <= 6  # and no more than needed


def test_what_callers_break_off_or_do_wrong_is_no_line_of_the_log(caplog):
    def reset(connection):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with served(samples=[LARGE]) as (address, predictor, service, _), caplog.at_level(logging.INFO):
        for path in ("/samples/0", "/swagger/swagger-ui-bundle.js", "/page/page.js"):
            for times in (1, 5):
                with never_reads(address, path, times) as connection:
                    reset(connection)
                with never_reads(address, path, times):
                    time.sleep(0.05)
        for data in (BODY, post(*form([DARK]))[:-10], post(*form([DARK])), post(*form([DARK])) * 3):
            predictor.go_on.clear()
            with connected(address) as connection:
                connection.sendall(data)
                time.sleep(0.05)
                reset(connection)
            predictor.go_on.set()
        for data in (b"\x00", b"GET / HTTP/9.9\r\n\r\n", BODY + b"0\r\na: b\r\n\r\n", GET * 40):
            answer_to(address, data)
        wait_until(lambda: service.images_inside == 0)
        assert ask_about(address, DARK)[0] == 200
    assert [record.getMessage() for record in caplog.records if record.name != "cait.serve.access_log"] == []
