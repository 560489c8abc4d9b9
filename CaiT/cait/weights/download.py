"""Fetches published checkpoints into a cache folder, and continues a download that broke off."""

import http.client
import json
import os
import pathlib
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from typing import NamedTuple

from tqdm import tqdm

from cait.advice import after_failed_download
from cait.errors import CaitError, one_line
from cait.files import naming_what_fails, read_text, writable_folder, write_text
from cait.files.digest import sha256_of
from cait.weights.torch_file import kind_of_file

CHUNK_BYTES = 1 << 20
TRIES = 5
TIMEOUT_SECONDS = 30
MAX_BYTES = 4 << 30  # the largest published checkpoint has 1.4 GB
THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


class Publisher(NamedTuple):
    """Where a kind of checkpoint is published: `base_url/path`, with the variant filled in."""

    base_url: str
    path: str
    suffix: str

    def url(self, variant: str, base_url: str | None) -> str:
        """Address of a variant such as `cait_xxs24_224`."""
        path = self.path.format(variant=variant, upper=variant.removeprefix("cait_").upper())
        return f"{(base_url or self.base_url).rstrip('/')}/{path}"


SOURCES = {
    "timm": Publisher(
        "https://huggingface.co", "timm/{variant}.fb_dist_in1k/resolve/main/model.safetensors", ".safetensors"
    ),
    "official": Publisher("https://dl.fbaipublicfiles.com", "deit/{upper}.pth", ".pth"),
}


# SHA-256 of published files, by their name in the cache, where a public page states it: that of the first is
# https://huggingface.co/timm/cait_xxs24_224.fb_dist_in1k/blob/main/model.safetensors (commit 996bf14).
PUBLISHED = {
    "cait_xxs24_224.timm.safetensors": "396b92244e28808d4bd719d7e7a9d7ca13ac903686ed4d218504a40a4d70080c",
}


class DownloadError(CaitError):
    """The server, or the way to it, did not give the file."""


def fetch_variant(
    variant: str, origin: str, base_url: str | None, cache: pathlib.Path, allow_http: bool = False
) -> pathlib.Path:
    """The published checkpoint of a variant, downloaded unless it is in the cache; prints where it comes from.

    Args:
        variant: such as `cait_xxs24_224`.
        origin: one of SOURCES.
        base_url: of a mirror; None: the publisher's.
        cache: folder of downloads.
        allow_http: as for `fetch`.

    Raises:
        CaitError: as `fetch`; where the network is to blame, the message names the other sources.
    """
    source = SOURCES[origin]
    url = source.url(variant, base_url)
    try:
        name = f"{variant}.{origin}{source.suffix}"
        path = fetch(url, cache, name, allow_http, PUBLISHED.get(name))
    except DownloadError as error:
        raise DownloadError(f"{error}{after_failed_download(variant, url)}") from error
    print(one_line(f"from {url}: {path}"))
    return path


def fetch(
    url: str, cache: pathlib.Path, name: str, allow_http: bool = False, published: str | None = None
) -> pathlib.Path:
    """The checkpoint `cache/name`, downloaded from `url` unless it is there.

    A download that breaks off is resumed, at once up to TRIES times and by the next call, from `name.part`. What came
    is checked to be a whole `.safetensors` or `.pth` file; its SHA-256 is recorded in `name.sha256` and verified on
    every later use. A file that fails either is kept aside as `name.bad`.

    Args:
        url: of the file. From an https address no redirect leads to one without encryption.
        cache: folder of downloads.
        name: of the file in it.
        allow_http: take a plain http address of another machine than this one.
        published: its SHA-256, where the publisher states it.

    Raises:
        CaitError: the address is not https, the file has more than MAX_BYTES, the server or the network refuses, the
            download keeps breaking off, or a check fails.
    """
    target = writable_folder(cache) / name
    record = cache / f"{name}.sha256"
    if target.is_file():
        digest = sha256_of(target)
        recorded = read_text(record).split() if record.is_file() else []
        if not recorded:  # put there by hand
            write_text(record, f"{digest}  {name}\n")
            recorded = [digest]
        if digest == recorded[0]:
            return target
        record.unlink()
        _set_aside(target, cache / f"{name}.bad", f"{target}: its checksum is not the recorded one")
    _check_address(url, allow_http)
    part = cache / f"{name}.part"
    for attempt in range(TRIES):
        before = part.stat().st_size if part.is_file() else 0
        is_whole = _continue(url, part, allow_http)
        if is_whole or (attempt and part.stat().st_size <= before):
            break
    if not is_whole:
        raise DownloadError(f"{url}: broke off after {part.stat().st_size} bytes; the same command goes on from there")
    part.with_suffix(".part.json").unlink(missing_ok=True)
    digest = sha256_of(part)
    problem = _problem(part)
    if not problem and published not in (None, digest):
        problem = f"another file than the published one, whose SHA-256 is {published} (docs/model_zoo.md)"
    if problem:
        _set_aside(part, cache / f"{name}.bad", f"{url}: gave {problem}", DownloadError)
    write_text(record, f"{digest}  {name}\n")
    os.replace(part, target)
    return target


def _set_aside(path: pathlib.Path, aside: pathlib.Path, reason: str, kind: type[CaitError] = CaitError) -> None:
    os.replace(path, aside)
    raise kind(f"{reason}; it is kept as {aside}, and the next call downloads it anew")


def _problem(path: pathlib.Path) -> str:
    """Why a file is not a whole zip archive or safetensors file; empty if it is one."""
    kind = kind_of_file(path)
    if kind == "safetensors":
        import safetensors

        try:
            with safetensors.safe_open(path, framework="np"):  # compares the header with the file's size
                return ""
        except safetensors.SafetensorError as error:
            return f"a damaged safetensors file ({error})"
    if kind == "html":
        return "an HTML page, not a checkpoint"
    return "" if zipfile.is_zipfile(path) else "neither a .pth nor a .safetensors file, or not all of it"


def _check_address(url: str, allow_http: bool) -> None:
    """Raises DownloadError for an address that is not to be asked: what comes without encryption anyone may change."""
    try:
        address = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise DownloadError(f"{url}: cannot be reached ({error})") from error
    if address.scheme == "http" and not allow_http and address.hostname not in THIS_MACHINE:
        raise DownloadError(f"{url}: not encrypted, so anyone on the way may change the file; --allow-http takes it")
    if address.scheme not in ("http", "https"):
        raise DownloadError(f"{url}: cannot be reached (only https and http addresses are)")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects that lose no encryption; status 308 too, as Python itself does from 3.11: mirrors send it."""

    def __init__(self, allow_http: bool):
        self.allow_http = allow_http

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302

    def redirect_request(self, request, response, code, message, headers, newurl):
        if request.type == "https" and not newurl.startswith("https:"):
            raise DownloadError(f"{request.full_url}: leads to {newurl}, which is not encrypted")
        _check_address(newurl, self.allow_http)
        return super().redirect_request(request, response, 307 if code == 308 else code, message, headers, newurl)


def _read_state(state: pathlib.Path, url: str) -> str | None:
    """The validator of a part that was downloaded from the same address."""
    try:
        saved = json.loads(read_text(state)) if state.is_file() else {}
    except json.JSONDecodeError:  # a kill while it was written: as if it were not there
        return None
    return saved.get("validator") if saved.get("url") == url else None


def _continue(url: str, part: pathlib.Path, allow_http: bool) -> bool:
    """Downloads what `part` lacks; says whether it is whole then."""
    state = part.with_suffix(".part.json")
    start = part.stat().st_size if part.is_file() else 0
    # Without a validator, a file that changed on the server could not be told from the old one.
    validator = _read_state(state, url) if start else None
    headers = {"User-Agent": "cait"}
    if validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        opener = urllib.request.build_opener(_Redirects(allow_http))
        with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS) as response:
            start = _start_of(response, start)
            validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
            write_text(state, json.dumps({"url": url, "validator": validator}))
            length = response.headers.get("Content-Length", "")
            return _receive(response, part, start, start + int(length) if length.isdecimal() else None)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and validator:  # nothing lies beyond what is there
            return True
        raise DownloadError(f"{url}: the server answers {error.code} {error.reason}") from error
    except CaitError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no valid address
        raise DownloadError(f"{url}: cannot be reached ({getattr(error, 'reason', error)})") from error


def _start_of(response, asked: int) -> int:
    """The place in the file where the body begins: the one asked for, or 0 if the server sends the whole file."""
    if response.status != 206:
        return 0
    content_range = re.fullmatch(r"bytes ([0-9]+)-.*", response.headers.get("Content-Range", ""))
    if not content_range or int(content_range[1]) != asked:
        raise CaitError("the server sends another part than the one asked for; remove the .part file to start again")
    return asked


def _receive(response, part: pathlib.Path, start: int, total: int | None) -> bool:
    if max(start, total or 0) > MAX_BYTES:
        raise DownloadError(f"{part.stem}: of more than {MAX_BYTES} bytes, which no published checkpoint has")
    received = start
    bar = tqdm(desc=part.stem, initial=start, total=total, unit="B", unit_scale=True, disable=None)
    beside = part.with_name(f".{part.name}.tmp")
    with naming_what_fails(part, beside), bar, open(part, "r+b" if start else "wb") as file:
        file.seek(start)
        while True:
            try:
                chunk = response.read(CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                chunk = getattr(error, "partial", b"")
                file.write(chunk)
                bar.write(f"{part.stem}: broke off after {received + len(chunk)} bytes ({error})", file=sys.stderr)
                return False
            if not chunk:
                return total is None or received >= total
            if received + len(chunk) > MAX_BYTES:
                raise DownloadError(f"{part.stem}: the server sends more than {MAX_BYTES} bytes; remove {part}")
            file.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
