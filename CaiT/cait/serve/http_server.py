"""Runs an application with uvicorn: its socket, its time limits, and how it ends."""

import asyncio
import errno
import functools
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Sequence

import uvicorn
from fastapi import FastAPI

from cait.errors import CaitError, one_line
from cait.serve import access_log
from cait.serve.connections import Bounds, Connections
from cait.serve.gate import Hosts
from cait.serve.http_protocol import BoundedProtocol
from cait.serve.service import Service

BACKLOG = 512
SEND_BUFFER_BYTES = 1 << 17
TICK_SECONDS = 0.2  # between two looks at all connections
KEEP_ALIVE_SECONDS = 15
DRAIN_SECONDS = 0.5  # in which callers that keep their connections learn from an answer that it was the last
STOP_SECONDS = 30  # for requests that were accepted before
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
FAR_AWAY = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}  # kept for documentation: nobody's


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one.

    Raises:
        CaitError: the address is not this machine's, or taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        hint = "; --port=0 takes any free one" if error.errno == errno.EADDRINUSE else ""
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise CaitError(f"{host}:{port}: cannot listen there ({reason}){hint}") from error
    # Connections inherit it. The system would hold megabytes of each answer, and hide for long how slowly it is taken.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return listener


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


def hosts(listener: socket.socket, names: Sequence[str]) -> Hosts:
    """The names by which the service may be called; `names` are those that the user allows."""
    return Hosts(names, is_loopback(listener))


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _is_everywhere(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_unspecified


def _address(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"


def how_to_reach(listener: socket.socket) -> str:
    """Returns the line that the service prints about other devices when it starts."""
    others = addresses_for_others(listener)
    if others:
        return f"from a phone or another computer in the same network: {' '.join(others)}"
    if is_loopback(listener):
        return "only this computer reaches it; for a phone in the same network add --host=0.0.0.0 and a token"
    return "from a phone or another computer: this computer's address in their network, and the same port"


def run(app: FastAPI, service: Service, listener: socket.socket, bounds: Bounds) -> None:
    """Serves until SIGTERM or Ctrl-C, then finishes the accepted requests. The arguments are those of `make_server`."""
    access_log.open_log(sys.stderr)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn handles them, and raises them once more at its end
        signal.signal(number, lambda number, frame: None)
    make_server(app, service, bounds).run([listener])


def make_server(app: FastAPI, service: Service, bounds: Bounds) -> uvicorn.Server:
    """A server whose `run([listener])` serves until its `should_exit` is set.

    Args:
        app: the application.
        service: whose it is.
        bounds: of its connections.
    """
    tally = access_log.Tally()

    def count(reason: str) -> None:
        service.metrics.refused(reason)
        tally.add(reason)

    connections = Connections(bounds, count)
    settings = uvicorn.Config(
        app,
        http=functools.partial(BoundedProtocol, connections),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return _Server(settings, service, connections, tally)


class _Server(uvicorn.Server):
    """Tells its address, and ends in two steps, so that no caller's next request meets a connection just closed."""

    def __init__(self, settings: uvicorn.Config, service: Service, connections: Connections, tally: access_log.Tally):
        super().__init__(settings)
        self._service, self._connections, self._tally = service, connections, tally

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._watch = asyncio.get_running_loop().create_task(self._look_after())
        for listener in sockets or []:
            print(f"serving {one_line(self._service.description.variant)} at {address_of(listener)}")
            print(how_to_reach(listener), flush=True)

    async def _look_after(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self._connections.look_after(clock())
            self._tally.tell()
            await asyncio.sleep(TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.closing = True
        for server in self.servers:
            server.close()
        await asyncio.sleep(DRAIN_SECONDS)
        await super().shutdown(sockets)
        self._watch.cancel()
