"""Whole or not at all: every file is written beside its final name and then moved there."""

import codecs
import contextlib
import errno
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import TextIO

from cait.errors import CaitError, UsageError
from cait.files.temporary import temporary_beside

DISK_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
# What a system or file system answers that cannot sync a folder.
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM)
PROBE_BYTES = 1 << 20
CSV_ENCODING = "utf-8-sig"  # without its mark, Excel reads names outside ASCII in the system's own encoding


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path in the same folder; what was written to it becomes `path` at the end.

    When this returns, the content and the name are on disk, as far as the system can tell. After an exception before
    the last step, `path` is as it was. Processes that write the same file at once do not meet: one of them is the last.

    Raises:
        CaitError: it cannot be written; the message names it and says why, such as a full disk.
    """
    path = pathlib.Path(path)
    with temporary_beside(path) as temporary, naming_what_fails(path, temporary):
        yield temporary
        sync(temporary)  # the content is on disk before the name points to it
        os.replace(temporary, path)
        sync(path.parent)


def sync(path: str | os.PathLike) -> None:
    """Waits until a file's content, or the names in a folder, are on disk; where folders cannot be synced, it does not.

    Raises:
        OSError: the disk fails.
    """
    is_folder = os.path.isdir(path)
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not is_folder or error.errno not in NO_FOLDER_SYNC:
            raise


@contextlib.contextmanager
def naming_what_fails(path: str | os.PathLike, temporary: pathlib.Path | None = None) -> Iterator[None]:
    """Context in which a write that fails names its file, because the error of a full disk names none.

    Args:
        path: what is written: a file, or a folder of them.
        temporary: a file beside it that may be lost; None: a folder is written, `path`.

    Raises:
        CaitError: the message names `path` and says why it cannot be written.
    """
    try:
        yield
    except Exception as error:  # a library may raise anything where its write fails, or find later what it wrote
        if isinstance(error, CaitError) and temporary is not None:
            raise
        with temporary_beside(_folder_of(pathlib.Path(path)) / "space") as probe:
            reason = _why_not_written(error, temporary or probe, str(path))
        if reason is None:
            raise
        raise CaitError(f"{path}: cannot be written ({reason[:1].lower()}{reason[1:]})") from error


def _folder_of(path: pathlib.Path) -> pathlib.Path:
    """The folder itself, or the nearest above it that is there."""
    return next((folder for folder in (path, *path.parents) if folder.is_dir()), path)


def _why_not_written(error: Exception, file: pathlib.Path, path: str) -> str | None:
    """What keeps `file` from growing, as the system says it; None: nothing does, the error is another."""
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno in DISK_FAILURES or str(error.filename) in (str(file), path):
            return error.strerror
        return None
    try:
        with open(file, "ab") as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as failure:
        if failure.errno in DISK_FAILURES:
            return failure.strerror
    finally:
        with contextlib.suppress(OSError):
            file.unlink()
    return None


@contextlib.contextmanager
def writing(path: str | os.PathLike, encoding: str = "utf-8") -> Iterator[TextIO]:
    """Yields a text file that becomes `path` at the end; line ends are written as they are given."""
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding=encoding, errors="backslashreplace", newline="") as file,
    ):
        yield file


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a UTF-8 text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: str | os.PathLike) -> str:
    """A UTF-8 text file's content.

    Raises:
        CaitError: the file is missing, unreadable or not UTF-8; the message names it and its likely encoding.
    """
    return text_of(path, read_bytes(path))


def read_bytes(path: str | os.PathLike) -> bytes:
    """A file's content.

    Raises:
        CaitError: the file is missing or unreadable; the message names it.
    """
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise cannot_be_read(path, error) from error


def text_of(path: str | os.PathLike, data: bytes) -> str:
    """The text that the bytes of a UTF-8 file are, with "\\n" at the ends of its lines.

    Raises:
        CaitError: they are not UTF-8; the message names the file and its likely encoding.
    """
    return _decoded(path, data).replace("\r\n", "\n").replace("\r", "\n")


def _decoded(path: str | os.PathLike, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CaitError(f"{path}: not a UTF-8 text file (byte {error.start}){_advice_on_encoding(data)}") from error
    if "\0" in text:
        raise CaitError(f"{path}: not a UTF-8 text file (byte {data.index(0)} is zero){_advice_on_encoding(data)}")
    return text


def cannot_be_read(path: str | os.PathLike, error: OSError) -> CaitError:
    """The error to raise in place of one that the system gave when `path` was to be read: it says which and why."""
    reason = error.strerror or type(error).__name__
    return CaitError(f"{path}: cannot be read ({reason[:1].lower()}{reason[1:]})")


def check_readable(path: str | os.PathLike) -> None:
    """Opens a file for reading, before it is given to a library that reports all it dislikes as damage.

    Raises:
        CaitError: it is missing, or this user may not read it.
    """
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise cannot_be_read(path, error) from error


def is_file(path: str | os.PathLike) -> bool:
    """Whether there is such a file.

    Raises:
        CaitError: this user may not look into a folder on the way to it.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the name
        return False
    except OSError as error:
        raise cannot_be_read(path, error) from error


def _advice_on_encoding(data: bytes) -> str:
    """What a text file that is not UTF-8 seems to be, and what to do; empty where it seems to be no text."""
    zeros = sorted((data[0::2].count(0), data[1::2].count(0)))
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or (not zeros[0] and zeros[1] > len(data) / 8):
        return "; it seems to be in UTF-16: save it as UTF-8"
    if any(zeros):
        return ""
    with contextlib.suppress(UnicodeDecodeError):
        foreign = [character for character in data.decode("gb18030") if not character.isascii()]
        # By chance, text in another encoding can be read so too, but gives characters that hardly occur.
        if len("".join(foreign).encode("gb2312", "ignore")) > 1.6 * len(foreign):
            return "; it seems to be in GBK: save it as UTF-8"
    return "; save it as UTF-8"


def user_path(path: str | os.PathLike) -> str:
    """A path as the user wrote it, with `~` or `~name` at its start replaced by that user's home directory.

    A shell does this only where the `~` begins a word, and not in `--output=~/results.csv`.

    Raises:
        UsageError: there is no such user, or this user has no home directory.
    """
    text = os.fspath(path)
    if not text.startswith("~"):
        return text
    name = pathlib.PurePath(text).parts[0][1:]
    expanded = os.path.expanduser(text)
    if name and expanded == text:
        raise UsageError(f"{text}: there is no user {name!r}; ./{text} names a file or folder that is called so")
    if not name and (expanded == text or os.environ.get("HOME") == ""):
        raise UsageError(f"{text}: this user has no home directory; write the path without ~, or set HOME")
    return expanded


def read_lines(path: str | os.PathLike) -> list[str]:
    r"""The lines of a UTF-8 text file, which end at `\n` or `\r\n` alone.

    `str.splitlines` also splits at U+2028, vertical tabs and others, which may stand in the name of a file.

    Raises:
        CaitError: as for `read_text`.
    """
    *lines, last = _decoded(path, read_bytes(path)).split("\n")
    return [line.removesuffix("\r") for line in (*lines, *([last] if last else []))]


def user_cache() -> pathlib.Path:
    """`$XDG_CACHE_HOME/cait`, or `~/.cache/cait`: what can be made or downloaded again.

    Raises:
        CaitError: this user has no home directory.
    """
    chosen = os.environ.get("XDG_CACHE_HOME")
    try:
        return pathlib.Path(user_path(chosen or "~/.cache")) / "cait"
    except UsageError as error:
        if chosen:
            raise UsageError(f"XDG_CACHE_HOME: {error}") from error
        raise CaitError("there is no home directory; XDG_CACHE_HOME may name a folder to keep files in") from error


def new_folder(stem: str) -> pathlib.Path:
    """Makes the folder `stem`, or `stem-2` and so on where it is there already: no two callers get the same.

    Raises:
        CaitError: it cannot be made, or there are a thousand of that name.
    """
    writable_folder(pathlib.Path(stem).parent)
    for name in (stem, *(f"{stem}-{number}" for number in range(2, 1000))):
        try:
            pathlib.Path(name).mkdir()
            return pathlib.Path(name)
        except FileExistsError:  # another process of this second
            continue
    raise CaitError(f"{stem}: there are a thousand folders of this name")


def writable_folder(path: str | os.PathLike) -> pathlib.Path:
    """Makes the folder where needed and checks that files can be made in it.

    Raises:
        CaitError: it cannot be made or written.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with temporary_beside(path / "writable") as probe:
            probe.touch()
    except OSError as error:
        raise CaitError(f"{path}: the output folder cannot be written ({error.strerror})") from error
    return path
