"""Fetches published checkpoints into a cache folder, and goes on where a download broke off."""

import hashlib
import http.client
import json
import os
import pathlib
import sys
import urllib.error
import urllib.request
from typing import NamedTuple

from tqdm import tqdm

from cait.errors import CaitError
from cait.files import read_text, writable_folder, write_text

CHUNK_BYTES = 1 << 20
TRIES = 5
TIMEOUT_SECONDS = 30


class Source(NamedTuple):
    """Where a kind of checkpoint is published: `base_url/path`, with the variant filled in."""

    base_url: str
    path: str
    suffix: str

    def url(self, variant: str, base_url: str | None) -> str:
        """Address of a variant such as `cait_xxs24_224`."""
        path = self.path.format(variant=variant, upper=variant.removeprefix("cait_").upper())
        return f"{(base_url or self.base_url).rstrip('/')}/{path}"


SOURCES = {
    "timm": Source(
        "https://huggingface.co", "timm/{variant}.fb_dist_in1k/resolve/main/model.safetensors", ".safetensors"
    ),
    "official": Source("https://dl.fbaipublicfiles.com", "deit/{upper}.pth", ".pth"),
}


def default_cache() -> pathlib.Path:
    """`$XDG_CACHE_HOME/cait`, or `~/.cache/cait`."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "cait"


def sha256_of(path: pathlib.Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file) -> str:  # Python 3.10
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def fetch(url: str, cache: pathlib.Path, name: str) -> pathlib.Path:
    """The file `cache/name`, downloaded from `url` unless it is there.

    A download that breaks off is resumed, at once up to TRIES times and by the next call, from `name.part`. The
    SHA-256 of a whole file is recorded in `name.sha256` and verified on every later use; a file that does not match
    is kept aside as `name.bad`.

    Raises:
        CaitError: the server or the network refuses, the download keeps breaking off, or the checksum does not match.
    """
    target = writable_folder(cache) / name
    record = cache / f"{name}.sha256"
    if target.is_file():
        digest = sha256_of(target)
        if not record.is_file():  # put there by hand
            write_text(record, f"{digest}  {name}\n")
        if digest == read_text(record).split()[0]:
            return target
        os.replace(target, cache / f"{name}.bad")
        record.unlink()
        raise CaitError(
            f"{target}: its checksum is not the recorded one; it is kept as {name}.bad, the next call downloads it anew"
        )
    part = cache / f"{name}.part"
    for attempt in range(TRIES):
        before = part.stat().st_size if part.is_file() else 0
        missing = _continue(url, part)
        if missing == 0:
            break
        if attempt and part.stat().st_size <= before:
            break
    if missing:
        raise CaitError(f"{url}: broke off, {missing} bytes are missing; the same command goes on from there")
    part.with_suffix(".part.json").unlink(missing_ok=True)
    with open(part, "rb") as file:
        is_html = file.read(512).lstrip()[:1] == b"<"
    if is_html:
        os.replace(part, cache / f"{name}.bad")
        raise CaitError(f"{url}: gave an HTML page, not a checkpoint; it is kept as {cache / name}.bad")
    write_text(record, f"{sha256_of(part)}  {name}\n")
    os.replace(part, target)
    return target


def _continue(url: str, part: pathlib.Path) -> int:
    """Downloads what `part` lacks; returns the number of bytes that are still missing."""
    state = part.with_suffix(".part.json")
    start = part.stat().st_size if part.is_file() and state.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "cait"})
    if start:
        validator = json.loads(read_text(state))["validator"]
        if validator:  # without one, a file that changed on the server could not be told from the old one
            request.add_header("Range", f"bytes={start}-")
            request.add_header("If-Range", validator)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            if response.status != 206:
                start = 0
            validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
            write_text(state, json.dumps({"url": url, "validator": validator}))
            total = start + int(response.headers.get("Content-Length", 0)) or None
            return _receive(response, part, start, total)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing lies beyond what is there
            return 0
        raise CaitError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise CaitError(f"{url}: cannot be reached ({getattr(error, 'reason', error)})") from error


def _receive(response, part: pathlib.Path, start: int, total: int | None) -> int:
    received = start
    bar = tqdm(desc=part.stem, initial=start, total=total, unit="B", unit_scale=True, disable=None)
    with bar, open(part, "r+b" if start else "wb") as file:
        file.seek(start)
        try:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
        except (OSError, http.client.IncompleteRead) as error:  # what came is kept
            bar.write(f"{part.stem}: broke off after {received} bytes ({error})", file=sys.stderr)
    return 0 if total is None else total - received
