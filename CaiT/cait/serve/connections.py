"""Bounds all connections of the service together: their number, which make room, and which are given up."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

SLOWEST_BYTES_A_SECOND = 1000  # that a caller must take of an answer


class Connection(Protocol):
    """What is asked of a connection.

    Attributes:
        waiting_since: the time of the event loop since when it is the caller's turn; None: it is the service's.
        deadline: until when the caller must have sent what it began to send.
        unsent: bytes of answers that the caller has not taken yet, by the last `look_at_unsent`.
    """

    waiting_since: float | None
    deadline: float
    unsent: int

    def is_late(self) -> None:
        """The deadline has passed."""

    def give_up(self) -> None:
        """Cuts it."""

    def look_at_unsent(self, now: float) -> bool:
        """Whether the caller has something left to take; notes whether it took enough of it lately."""

    def unread_for(self, now: float) -> float:
        """Seconds for which the caller has not taken enough, by the last `look_at_unsent`."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What connections may cost.

    Attributes:
        read_seconds: in which the head of a request must arrive, and after that its body.
        write_seconds: in which a caller must take something of an answer: `SLOWEST_BYTES_A_SECOND` of each.
        connections: at a time. One more takes the place of the one that has been waiting for its caller longest.
        head_bytes: of a request line and its headers; a body may have as many beside its content, and one more for
            every `BODY_BYTES_PER_OTHER` of it.
        headers: of a request.
        waiting_requests: on a connection, behind the one that is being answered.
        unsent_bytes: of all answers that callers have not taken yet.
    """

    read_seconds: float = 30.0
    write_seconds: float = 30.0
    connections: int = 512
    head_bytes: int = 1 << 15
    headers: int = 100
    waiting_requests: int = 16
    unsent_bytes: int = 1 << 26


class Connections:
    """All connections of a service.

    Args:
        bounds: of them.
        count: called with the reason of every connection that is refused or closed for its caller's fault.

    Attributes:
        open: those that are.
    """

    def __init__(self, bounds: Bounds, count: Callable[[str], None]):
        self.bounds, self.count = bounds, count
        self.open: set[Connection] = set()

    def admit(self, new: Connection) -> bool:
        """Takes a connection in, if need be in the place of another; False: all others are at work."""
        if len(self.open) >= self.bounds.connections:
            waiting = [(each.waiting_since, id(each), each) for each in self.open if each.waiting_since is not None]
            if not waiting:
                return False
            self._close(min(waiting)[2], "crowded out")
        self.open.add(new)
        return True

    def look_after(self, now: float) -> None:
        """Ends connections whose callers are late or leave answers unread; to be called some times a second.

        A look at all costs less than a timer for each request.

        Args:
            now: by the clock of the event loop.
        """
        for each in [each for each in self.open if each.deadline < now]:
            each.is_late()
        unread = [each for each in self.open if each.look_at_unsent(now)]
        for each in unread:
            if each.unread_for(now) > self.bounds.write_seconds:
                self._close(each, "answer not taken")
        total = sum(each.unsent for each in unread)
        for each in sorted(unread, key=lambda each: each.unread_for(now), reverse=True):
            if total <= self.bounds.unsent_bytes:
                break
            total -= each.unsent
            self._close(each, "answer not taken")

    def _close(self, connection: Connection, reason: str) -> None:
        if connection in self.open:
            self.open.discard(connection)
            self.count(reason)
            connection.give_up()
