"""Clients that ask the service as fast as it answers, each over one connection that it keeps.

    python tests/helpers/serve_load.py http://127.0.0.1:8000 dataset/digits/val --clients=8 --seconds=60
    python tests/helpers/serve_load.py http://127.0.0.1:8001 http://127.0.0.1:8002 DIR --slice=5  # in turn

Prints a line of JSON for each service: requests and images a second, median and 99th percentile of the time of an
answer in milliseconds, and what went wrong.
"""

import argparse
import asyncio
import collections
import json
import pathlib
import statistics
import time
import urllib.parse

BOUNDARY = "----cait-load"


def form(files, **fields):
    """The body of a form with images, (name, bytes) each, and its Content-Type."""
    parts = []
    for name, data in files:
        disposition = f'Content-Disposition: form-data; name="images"; filename="{name}"'
        parts.append(f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: image/png\r\n\r\n".encode() + data)
    for name, value in fields.items():
        parts.append(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode())
    return b"\r\n".join([*parts, f"--{BOUNDARY}--\r\n".encode()]), f"multipart/form-data; boundary={BOUNDARY}"


def post(body, content_type, host="127.0.0.1"):
    """A whole request to /predict."""
    head = (
        f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client(asyncio.Protocol):
    """Sends one request after the other; what it measures and finds wrong is in its attributes.

    Args:
        requests: of (name of the image, bytes of the request), in turn from `first` on.
        stop_at: when no more are sent, by time.perf_counter.
    """

    def __init__(self, requests, first, stop_at, expected=None):
        self.requests, self.next, self.stop_at, self.expected = requests, first, stop_at, expected
        self.seconds, self.statuses, self.wrong = [], collections.Counter(), []
        self.buffer, self.in_flight, self.last_answer_was_last = bytearray(), False, False
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.send()

    def send(self):
        if time.perf_counter() >= self.stop_at:
            return self.finish()
        self.name, request = self.requests[self.next % len(self.requests)]
        self.next += 1
        self.in_flight = True
        self.started = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data):
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.buffer[:end]).lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        if len(self.buffer) < end + 4 + length:
            return
        self.seconds.append(time.perf_counter() - self.started)
        self.in_flight = False
        status, body = int(head[9:12]), bytes(self.buffer[end + 4 : end + 4 + length])
        self.buffer.clear()
        self.statuses[status] += 1
        if status == 200 and self.expected is not None:
            self.compare(json.loads(body)["results"][0]["classes"])
        if b"\r\nconnection: close" in head:
            self.finish()
        else:
            self.send()

    def compare(self, classes):
        expected = self.expected[self.name]
        if [each["class_id"] for each in classes] != [index for index, _ in expected] or any(
            abs(each["prob"] - prob) > 1e-6 for each, (_, prob) in zip(classes, expected)
        ):
            self.wrong.append((self.name, classes))

    def finish(self):
        self.transport.close()
        if not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc):
        if not self.done.done():
            self.done.set_result(None)  # `in_flight` tells whether an answer is missing


async def clients_for(url, requests, count, seconds, expected=None):
    """Runs so many clients for so long, and returns them."""
    address = urllib.parse.urlsplit(url)
    loop, stop_at = asyncio.get_running_loop(), time.perf_counter() + seconds
    clients = []
    for index in range(count):
        first = index * len(requests) // count
        made = loop.create_connection(
            lambda first=first: Client(requests, first, stop_at, expected), address.hostname, address.port
        )
        clients.append((await made)[1])
    await asyncio.wait_for(asyncio.gather(*(client.done for client in clients)), seconds + 60)
    return clients


def summary(clients, seconds):
    """Of clients that ran for so many seconds altogether: requests a second, milliseconds, errors."""
    times = sorted(value for client in clients for value in client.seconds)
    statuses = sum((client.statuses for client in clients), collections.Counter())
    return {
        "requests": len(times),
        "per_second": round(len(times) / seconds, 1),
        "p50_ms": round(1000 * statistics.median(times), 2),
        "p99_ms": round(1000 * times[len(times) * 99 // 100], 2),
        "statuses": dict(statuses),
        "unanswered": sum(client.in_flight for client in clients),
        "wrong": sum(len(client.wrong) for client in clients),
    }


def run(urls, requests, count, seconds, slice_seconds, expected=None):
    """Loads services in turn, slice by slice, each for so many seconds; a summary for each."""
    found = {url: [] for url in urls}
    spent = dict.fromkeys(urls, 0.0)
    for _ in range(max(1, round(seconds / slice_seconds))):
        for url in urls:
            started = time.perf_counter()
            found[url] += asyncio.run(clients_for(url, requests, count, slice_seconds, expected))
            spent[url] += time.perf_counter() - started
    return [summary(found[url], spent[url]) for url in urls]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="+")
    parser.add_argument("images", type=pathlib.Path, help="folder of images")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--slice", type=float, default=None, help="seconds at a time; default: all at once")
    args = parser.parse_args()
    files = sorted(path for path in args.images.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))[:500]
    requests = [(str(path), post(*form([(path.name, path.read_bytes())]))) for path in files]
    for url, result in zip(args.urls, run(args.urls, requests, args.clients, args.seconds, args.slice or args.seconds)):
        print(json.dumps({"url": url, **result}))


if __name__ == "__main__":
    main()
