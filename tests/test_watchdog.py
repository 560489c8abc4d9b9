"""What holds the processes together, between two ends in one process."""

import socket
import threading
import time

import pytest

from cait import watchdog
from cait.watchdog import Watchdog


@pytest.fixture
def pair():
    """Connects a hub and a client, which note why they would end; and a stranger before them."""
    opened = []

    def connect(silence_seconds=10.0):
        server = socket.create_server(("127.0.0.1", 0))
        port = server.getsockname()[1]
        ends = hub, client = Watchdog(0, 2, True, silence_seconds), Watchdog(1, 2, False, silence_seconds)
        for end in ends:
            end.reasons = []
            end._end = lambda message, exit_code, end=end: end.reasons.append((message, exit_code))
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\n")
        thread = threading.Thread(target=client.connect, args=("127.0.0.1", port))
        thread.start()
        hub.listen(server)
        thread.join()
        opened.extend(ends)
        return ends

    yield connect
    for end in opened:
        end._done.update(end._peers)
        for connection in end._peers.values():
            connection.close()


def reason(end, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not end.reasons and time.monotonic() < deadline:
        time.sleep(0.01)
    return end.reasons[0]


def test_all_finish_together(pair):
    hub, client = pair()
    thread = threading.Thread(target=client.finish)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()  # the first process has still to come
    hub.finish()
    thread.join(5)
    assert not thread.is_alive() and not hub.reasons and not client.reasons


def test_a_failure_is_told(pair, monkeypatch):
    monkeypatch.setattr(watchdog, "DELIVERY_SECONDS", 0.01)
    hub, client = pair()
    client.fail("no such file", 2)
    assert reason(hub) == ("no such file", 2)


def test_a_closed_connection_is_the_end(pair):
    hub, client = pair()
    client._peers[0].shutdown(socket.SHUT_RDWR)
    assert reason(hub) == ("process 1 ended without a word: it was killed, or crashed", 1)


def test_silence_is_the_end(pair, monkeypatch):
    monkeypatch.setattr(watchdog, "BEAT_SECONDS", 3.0)
    hub, client = pair(silence_seconds=0.5)
    assert "nothing was heard of process 1 for 0.5 s" in reason(hub)[0]
    assert "nothing was heard of process 0 for 0.5 s" in reason(client)[0]


def test_beats_keep_it_going(pair, monkeypatch):
    monkeypatch.setattr(watchdog, "BEAT_SECONDS", 0.1)
    hub, client = pair(silence_seconds=0.6)
    time.sleep(1.2)
    assert not hub.reasons and not client.reasons
