"""HTTP/1.1 on connections whose costs are bounded, whatever callers send, withhold or leave unread.

uvicorn's own protocol bounds none of that: it keeps every header, trailer and waiting request, and waits for ever.
"""

import http
import json
import math
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cait.serve.connections import SLOWEST_BYTES_A_SECOND, Connections

BODY_BYTES_PER_OTHER = 8  # of the body, for each further byte of its chunk sizes and the like
LINGER_SECONDS = 2.0  # for which a caller that was refused may go on sending; cut off at once, it never sees why
LINGER_BYTES = 1 << 20


class _Trailers(list):
    """In the place of a request's headers, once these are whole: nothing here asks for trailers."""

    def append(self, _) -> None:
        raise _Refusal(400, "invalid", "trailers after a body are not accepted")


class _Flow(FlowControl):
    """Reads no further while requests wait on the connection; uvicorn reads on after each of their answers."""

    def __init__(self, transport, waiting):
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class _Refusal(Exception):
    """Ends the parsing of a request that is not accepted: status, counted reason, sentence."""


_INVALID = _Refusal(400, "invalid", "this is no valid request of HTTP/1.1")


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        connections: that it is one of.
        settings: uvicorn's.

    Attributes:
        waiting_since: the time of the event loop since when it is the caller's turn; None: it is the service's.
        deadline: until when it must have sent what it began to send.
        unsent: bytes of answers that the caller has not taken yet.
    """

    def __init__(self, connections: Connections, **settings):
        super().__init__(**settings)
        self._all, self._bounds = connections, connections.bounds
        self.waiting_since: float | None = None
        self.unsent, self._most_unsent, self._taken_at, self._took_some = 0, 0, 0.0, False
        self.deadline = math.inf
        self._running: Any = None  # uvicorn's cycle of the request that is being answered
        self._begun = self._in_head = self._refused = self._at_end = False
        self._other_bytes = self._body_bytes = 0
        self._discarded = 0

    def connection_made(self, transport):
        """Refuses the connection where there is no room for it."""
        super().connection_made(transport)
        self.flow = _Flow(self.transport, self.pipeline)
        self.waiting_since = self._taken_at = self.loop.time()
        self.deadline = self.waiting_since + self._bounds.read_seconds
        if not self._all.admit(self):
            self._refuse(503, "refused", "the service has no room for another connection; come again later")
            self.transport.close()

    def connection_lost(self, exc):
        """Forgets the connection; whoever answers on it learns that nobody listens."""
        self._unset_keepalive_if_required()
        self._all.open.discard(self)
        self.pipeline.clear()
        self._disconnect(self._running)
        super().connection_lost(exc)

    def data_received(self, data):
        """Parses what came, and refuses what is not HTTP or goes beyond the bounds."""
        if self._refused or self._at_end:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.give_up()
            return
        self._other_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # the request is answered as if it had not asked for another protocol
            self._at_end = True
            self._last_request()
        except httptools.HttpParserError as error:
            known = isinstance(error.__context__, _Refusal)
            self._refuse(*(error.__context__ if known else _INVALID).args)
        else:
            if self._other_bytes > self._bounds.head_bytes + self._body_bytes // BODY_BYTES_PER_OTHER:
                self._refuse(*self._too_long().args)
            elif self._in_head and len(self.headers) > self._bounds.headers:
                self._refuse(*self._too_many_headers().args)

    def eof_received(self):
        """A caller that sends no more may still wait for answers; returns whether it stays connected for them."""
        if self._refused:
            return False
        self._at_end = True
        if self._begun and (self._in_head or self.cycle.more_body):
            self._refuse(408, "late", "the request ended before it was whole")
        elif self._at_work():
            self._last_request()
            return True
        return False

    # What the parser finds. An exception ends the parsing.

    def on_message_begin(self):
        """The first byte of a request: it has its time to arrive from here on."""
        super().on_message_begin()
        self._unset_keepalive_if_required()  # and not for empty lines before
        self._begun = self._in_head = True
        self._body_bytes = 0
        self.waiting_since = self.loop.time()
        self.deadline = self.waiting_since + self._bounds.read_seconds

    def on_headers_complete(self):
        """The request is handed over, or waits for those before it."""
        if self._other_bytes > self._bounds.head_bytes:  # which may be those of the requests after it
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self._bounds.head_bytes:
                raise self._too_long()
        if len(self.headers) > self._bounds.headers:
            raise self._too_many_headers()
        self._in_head = False
        super().on_headers_complete()
        self.headers = _Trailers()
        if not self.pipeline:
            self._running = self.cycle
        if len(self.pipeline) > self._bounds.waiting_requests:
            words = f"more than {self._bounds.waiting_requests} requests wait on this connection"
            raise _Refusal(400, "pipelined", words)
        # The application has the same limit for a body that it reads, and shall be the one to tell of it.
        self.deadline += self._bounds.read_seconds + 1

    def on_body(self, body):
        """A part of the body."""
        self._other_bytes -= len(body)
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self):
        """The request is whole."""
        self.deadline = math.inf
        self._begun, self._other_bytes = False, 0  # of the next one, what came in the same piece is not counted
        self.waiting_since = None if self._at_work() else self.loop.time()
        super().on_message_complete()

    def on_response_complete(self):
        """An answer is handed to the system: the next one is due, or the next request."""
        self._running = self.pipeline[-1][0] if self.pipeline else None
        self.waiting_since = None if self.pipeline else self.loop.time()
        super().on_response_complete()

    def pause_writing(self):
        """The caller must take something of the answer before it gets more."""
        self.waiting_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self):
        """It did."""
        if self._at_work():
            self.waiting_since = None
        self._took_some = True
        super().resume_writing()

    def is_late(self) -> None:
        """The deadline has passed. Where no request was begun, or it has its answer already, nothing is said."""
        if not self._refused and self._begun and (self._in_head or self._at_work()):
            self._refuse(408, "late", f"the request did not arrive within {self._bounds.read_seconds:g} seconds")
        else:
            self.give_up()

    def give_up(self) -> None:
        """Cuts the connection."""
        self._disconnect(self._running)
        self.transport.abort()

    def look_at_unsent(self, now: float) -> bool:
        """Whether the caller has something left to take; notes whether it took enough of it lately."""
        self.unsent = unsent = self.transport.get_write_buffer_size()
        self._most_unsent = max(self._most_unsent, unsent)
        enough = SLOWEST_BYTES_A_SECOND * self._bounds.write_seconds
        if not unsent or self._took_some or self._most_unsent - unsent >= enough:
            self._most_unsent, self._taken_at, self._took_some = unsent, now, False
        return unsent > 0

    def unread_for(self, now: float) -> float:
        """Seconds for which the caller has not taken enough, by the last `look_at_unsent`."""
        return now - self._taken_at

    def _at_work(self) -> bool:
        """Whether there is a request without its whole answer."""
        return self.cycle is not None and not self.cycle.response_complete

    def _too_many_headers(self) -> _Refusal:
        return _Refusal(431, "too long", f"the request has more than {self._bounds.headers} headers")

    def _too_long(self) -> _Refusal:
        if self._in_head or not self._begun:
            return _Refusal(431, "too long", "the head of the request is too long")
        return _Refusal(400, "too long", "the chunks of the body have too much beside their content")

    def _last_request(self) -> None:
        """After the requests that are here, the connection ends."""
        if self._at_work():
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def _refuse(self, status: int, reason: str, sentence: str) -> None:
        """Says why the connection ends, where an answer can stand, and takes nothing more from it."""
        if self._refused:
            return
        self._refused, self.waiting_since = True, 0.0  # the first to make room for others
        self.url, self.headers = b"", []  # what was read of the request
        self.scope = {}  # type: ignore[typeddict-item]
        self._all.count(reason)
        # Of a request that is being received, the answer may be written; not into or before the answer to another.
        running = self._at_work()
        may_answer = not running or (self.cycle.more_body and not self.cycle.response_started and not self.pipeline)
        self.pipeline.clear()
        self._unset_keepalive_if_required()
        self._disconnect(self._running)
        if not may_answer or self.transport.is_closing():
            self.transport.close()
            return
        self.transport.write(_answer(status, sentence))
        self.flow.resume_reading()
        if self._at_end or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self.transport.write_eof()
            self.deadline = self.loop.time() + LINGER_SECONDS

    @staticmethod
    def _disconnect(cycle: Any) -> None:
        """Makes the application's next reading or sending the end of the request."""
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()


def _answer(status: int, sentence: str) -> bytes:
    """A whole answer that ends its connection."""
    body = json.dumps({"detail": sentence}).encode()
    head = f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
    more = "retry-after: 1\r\n" if status == 503 else ""
    return f"{head}content-length: {len(body)}\r\n{more}connection: close\r\n\r\n".encode() + body
