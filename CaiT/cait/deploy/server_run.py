"""Runs an application with uvicorn: its socket, its time limits, and how it ends."""

import asyncio
import errno
import ipaddress
import logging
import os
import signal
import socket
import sys

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cait.deploy.service import Service
from cait.errors import CaitError

MAX_CONNECTIONS = 512
MAX_HEAD_BYTES = 1 << 19  # of what comes before a body; more than any caller needs
KEEP_ALIVE_SECONDS = 15
DRAIN_SECONDS = 0.5  # in which callers that keep their connections learn from an answer that it was the last
STOP_SECONDS = 30  # for what was taken in before
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
FAR_AWAY = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}  # kept for documentation: nobody's


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one.

    Raises:
        CaitError: the address is not this machine's, or taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
    except OSError as error:
        hint = "; --port=0 takes any free one" if error.errno == errno.EADDRINUSE else ""
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno)
        raise CaitError(f"{host}:{port}: cannot listen there ({reason}){hint}") from error


def address_of(listener: socket.socket) -> str:
    """The address to open in a browser of this machine."""
    host = LOOPBACK[listener.family] if _is_everywhere(listener) else listener.getsockname()[0]
    return _address(host, listener)


def addresses_for_others(listener: socket.socket) -> list[str]:
    """The addresses to open on another device of the network; none where only this machine can reach it.

    One that listens everywhere is reached at the address that this machine has on the way to other networks; it is
    empty, too, where the machine has no such way.
    """
    if is_loopback(listener):
        return []
    if not _is_everywhere(listener):
        return [_address(listener.getsockname()[0], listener)]
    with socket.socket(listener.family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((FAR_AWAY[listener.family], 9))  # of a datagram socket: chooses the way, and sends nothing
        except OSError:  # there is no network
            return []
        return [_address(probe.getsockname()[0], listener)]


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _is_everywhere(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_unspecified


def _address(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"


def how_to_reach(listener: socket.socket) -> str:
    """What the service says of other devices when it starts."""
    others = addresses_for_others(listener)
    if others:
        return f"from a phone or another computer in the same network: {' '.join(others)}"
    if is_loopback(listener):
        return "only this computer reaches it; for a phone in the same network add --host=0.0.0.0 and a token"
    return "from a phone or another computer: this computer's address in their network, and the same port"


def run(app: FastAPI, service: Service, listener: socket.socket, message_seconds: float) -> None:
    """Serves until SIGTERM or Ctrl-C; then answers what was taken in, and returns. The arguments: see `make_server`."""
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # callers shall not fill the log with odd forms
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn handles them, and raises them once more at its end
        signal.signal(number, lambda number, frame: None)
    make_server(app, service, message_seconds).run([listener])


def make_server(app: FastAPI, service: Service, message_seconds: float) -> uvicorn.Server:
    """A server whose `run([listener])` serves until its `should_exit` is set.

    Args:
        app: the application.
        service: whose it is.
        message_seconds: in which a request must have arrived, from its first byte or the connection on.
    """

    class Protocol(_BoundedProtocol):
        seconds = message_seconds

    settings = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return _Server(settings, service)


class _Server(uvicorn.Server):
    """Tells its address, and ends in two steps, so that no caller's next request meets a connection just closed."""

    def __init__(self, settings: uvicorn.Config, service: Service):
        super().__init__(settings)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            print(f"serving {self._service.description.variant} at {address_of(listener)}")
            print(how_to_reach(listener), flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.closing = True
        for server in self.servers:
            server.close()
        await asyncio.sleep(DRAIN_SECONDS)
        await super().shutdown(sockets)


class _BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose request does not arrive in time, or never ends its head; uvicorn lets both go on."""

    seconds: float
    _timer: asyncio.TimerHandle | None = None
    _in_head, _head_bytes = True, 0

    def connection_made(self, transport):
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data):
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._in_head else 0
        if self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()

    def on_message_begin(self):
        super().on_message_begin()
        self._in_head = True
        self._start_timer()

    def on_headers_complete(self):
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self):
        self._stop_timer()
        super().on_message_complete()

    def connection_lost(self, exc):
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self.seconds, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
