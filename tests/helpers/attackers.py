"""Callers that send without end, for the tests of what they cost: `python attackers.py KIND HOST PORT SECONDS`.

Several kinds, with | between them, take turns. The kind `uploads` sends the files that are named after SECONDS.

They need nothing but the standard library, so that they start at once, and run in a process of their own, so that what
they cost is not counted as the service's. Each prints how many bytes it got rid of over how many connections.
"""

import base64
import itertools
import json
import socket
import sys
import time

GET = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
CHUNKED = (
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)
# What begins a connection, and what is then sent again and again.
KINDS = {
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"a: b\r\n" * 10_000),
    "pipelined requests": (b"", (GET + b"\r\n") * 1000),
    "headers": (GET, b"a: b\r\n" * 10_000),
    "a header": (GET + b"X-Long: ", b"x" * 60_000),
    "a target": (b"GET /", b"x" * 60_000),
    "chunks of one byte": (CHUNKED, b"1\r\nx\r\n" * 10_000),
    "extensions of chunks": (CHUNKED + b"1;", b"x" * 60_000),
    "empty lines": (b"", b"\r\n" * 30_000),
    "small headers, then nothing": (GET + b"a:b\r\n" * 100_000, b""),
}
KEPT = 20  # connections of those who then send nothing
TURN_SECONDS = 3.0


def attack(kind, host, port, seconds):
    """Sends over one connection after the other; (bytes, connections)."""
    first, again = KINDS[kind]
    deadline, sent, connections, kept = time.monotonic() + seconds, 0, 0, []
    while time.monotonic() < deadline:
        connection = socket.create_connection((host, port), timeout=0.5)
        connections += 1
        try:
            connection.sendall(first)
            sent += len(first)
            while again and time.monotonic() < deadline:
                sent += connection.send(again)
        except OSError:  # it was cut off, or nobody takes any more
            pass
        kept = [*kept, connection] if not again else []
        if len(kept) == KEPT:
            time.sleep(max(0.0, deadline - time.monotonic()))
    return sent, connections


def upload(paths, host, port, seconds):
    """Sends one image after the other and waits for the answers; (bytes, connections)."""
    deadline, sent, connections = time.monotonic() + seconds, 0, 0
    while time.monotonic() < deadline:
        with open(paths[connections % len(paths)], "rb") as file:
            image = base64.b64encode(file.read())
        body = b'{"images": ["' + image + b'"]}'
        head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
        connections += 1
        with socket.create_connection((host, port), timeout=60) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            while connection.recv(65536):
                pass
        sent += len(body)
    return sent, connections


def main():
    kinds, host, port, seconds, *paths = sys.argv[1:]
    if kinds == "uploads":
        found = [upload(paths, host, int(port), float(seconds))]
    else:
        kinds, deadline, found = kinds.split("|"), time.monotonic() + float(seconds), []
        turn = TURN_SECONDS if len(kinds) > 1 else float(seconds)
        for kind in itertools.cycle(kinds):
            if (left := deadline - time.monotonic()) <= 0:
                break
            found.append(attack(kind, host, int(port), min(left, turn)))
    print(json.dumps([sum(each) for each in zip(*found)]))


if __name__ == "__main__":
    main()
