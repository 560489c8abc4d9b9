"""Checks every request before the service sees it: the name it uses, the page it comes from, and its token."""

import functools
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable, MutableMapping
from typing import Any

from fastapi.responses import JSONResponse

from cait.serve.service import Service

PROTECTED = ("/predict", "/metrics")  # by the token
ANY_HOST = "*"
_AUTHORITY = re.compile(r"(?P<name>[a-z0-9_](?:[a-z0-9._-]{0,252})|\[[0-9a-f:.]{2,45}\])(?::[0-9]{0,5})?")
_SAFE = ("GET", "HEAD", "OPTIONS")  # which change nothing, and whose answers a browser keeps from foreign pages
_OWN_SITE = (b"same-origin", b"none")  # none: typed or bookmarked

# Nothing comes from elsewhere and nothing may embed the page. Swagger UI sets styles from its scripts and draws with
# data: images.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"cache-control", b"no-cache"),  # files of two versions of the page do not go together
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


def problem(status: int, sentence: str, more: dict[str, Any] | None = None, **headers: str) -> JSONResponse:
    """The answer that tells why there is none."""
    return JSONResponse({"detail": sentence, **(more or {})}, status, headers)


class Hosts:
    """The names by which callers may call the service, as they stand in `Host`.

    A page of a foreign site can give its own name the address of this machine, and would then be of the same origin as
    the service for a browser. `localhost` and addresses cannot be given away like that.

    Args:
        names: allowed beside those; `*` allows all.
        only_here: only this machine can reach the service, so that of addresses only its own are allowed. Otherwise
            all are, and this machine's name.
    """

    def __init__(self, names: Iterable[str] = (), only_here: bool = True):
        self.named = frozenset(name.lower().rstrip(".") for name in names)
        self._only_here = only_here
        own = socket.gethostname().lower()
        self._known = self.named | ({"localhost"} if only_here else {"localhost", own, f"{own}.local"})
        self.allows = functools.lru_cache(256)(self._allows)

    def _allows(self, authority: bytes) -> bool | None:
        """Whether a `Host` is allowed; None: it is no name or address with or without a port."""
        name = host_name(authority.decode("latin-1"))
        if name is None:
            return None
        if ANY_HOST in self.named or name in self._known:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._only_here


def host_name(authority: str) -> str | None:
    """The host of `host` or `host:port`, in lower case and without brackets; None: it is neither."""
    found = _AUTHORITY.fullmatch(authority.lower())
    return found["name"].strip("[]").rstrip(".") if found else None


class Gate:
    """Stands before all else: refuses callers, adds headers to every answer, and counts the answers.

    Args:
        app: what answers.
        service: whose answers end their connections when it is closing.
        token: that `PROTECTED` want; None: none.
        hosts: the names of the service.
        paths: that are counted by name; a caller may invent others.
    """

    def __init__(self, app: Any, service: Service, token: str | None, hosts: Hosts, paths: frozenset[str]):
        self._app, self._service, self._hosts, self._paths = app, service, hosts, paths
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path, status = scope["path"], 500

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *HEADERS]
                if self._service.closing:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        app = self._refusal(scope) or self._app
        try:
            await app(scope, receive, send_with_headers)
        finally:
            self._service.metrics.request(path if path in self._paths else "other", status)

    def _refusal(self, scope: dict[str, Any]) -> JSONResponse | None:
        """The answer to a request that is not let in."""
        headers = dict(scope["headers"])
        if (refusal := self._wrong_host(headers, scope)) is not None:
            return refusal
        if scope["method"] not in _SAFE and self._is_foreign(headers):
            return problem(403, "a page of another site sent this; --allowed-host names sites whose pages may")
        if self._token is not None and scope["path"] in PROTECTED:
            kind, _, token = headers.get(b"authorization", b"").partition(b" ")
            if kind.lower() != b"bearer" or not secrets.compare_digest(token.strip(), self._token):
                sentence = "the token is missing or wrong; send it as `Authorization: Bearer TOKEN`"
                return problem(401, sentence, None, **{"WWW-Authenticate": "Bearer"})
        return None

    def _wrong_host(self, headers: dict[bytes, bytes], scope: dict[str, Any]) -> JSONResponse | None:
        host = headers.get(b"host")
        if host is None and scope["http_version"] == "1.0":  # no browser, so that no foreign page is behind it
            return None
        several = len(headers) < len(scope["headers"]) and [name for name, _ in scope["headers"]].count(b"host") > 1
        allowed = None if host is None or several else self._hosts.allows(host)
        if allowed is None:
            return problem(400, "the request must have one Host, a name or an address")
        if not allowed and host is not None:
            name = host_name(host.decode("latin-1"))
            return problem(421, f"the service does not go by the name {name}; --allowed-host={name} lets it in")
        return None

    def _is_foreign(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a browser says that a page of another origin made the request."""
        if headers.get(b"sec-fetch-site", b"none").lower() not in _OWN_SITE:
            return True
        if (origin := headers.get(b"origin")) is None:
            return False
        authority = origin.lower().partition(b"://")[2]
        same = authority == headers.get(b"host", b"").lower() != b""
        return not same and host_name(authority.decode("latin-1")) not in self._hosts.named
