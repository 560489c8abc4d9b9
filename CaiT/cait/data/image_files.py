"""Decides which files of a folder are images: by suffix, hidden names, and what is left out."""

import collections
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from cait.data.decoding import has_image_suffix, identified, suffixes
from cait.errors import CaitError, one_line

# What systems put beside the user's files, in lower case; so do names that begin with a dot.
_HIDDEN = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),  # macOS, Windows
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),  # network storage
    *("$recycle.bin", "system volume information", "lost+found", "__pycache__"),
}
HEIC = {".heic", ".heif", ".hif"}


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name (without its path) is never an image nor a class."""
    return name.startswith(".") or name.lower() in _HIDDEN


def to_stderr(words: str) -> None:
    """Says something about files, where no log is open."""
    print(f"warning: {one_line(words)}", file=sys.stderr)


def _is_image(path: str) -> bool:
    """By the suffix; where there is none, the content decides."""
    return has_image_suffix(path) if os.path.splitext(path)[1] else os.path.isfile(path) and identified(path)


@dataclasses.dataclass
class Listing:
    """The files of folders: paths of images, of other files (left out), and of hidden files and folders."""

    images: list[str] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)
    hidden: list[str] = dataclasses.field(default_factory=list)

    def add(self, path: str) -> None:
        """Sorts a file in."""
        (self.images if _is_image(path) else self.left_out).append(path)

    def sorted(self) -> "Listing":
        """The same in the order of the paths."""
        return Listing(sorted(self.images), sorted(self.left_out), sorted(self.hidden))

    def words(self) -> str:
        """Describes what was left out, in a sentence; empty if nothing was."""
        if not self.left_out:
            return ""
        counts = collections.Counter(os.path.splitext(path)[1].lower() or "without suffix" for path in self.left_out)
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common(5))
        words = f"{len(self.left_out)} files are no images and are left out ({kinds}), the first: {self.left_out[0]}"
        return words + ("; pip install pillow-heif adds HEIC" if HEIC & set(counts) else "")


def entries_of(folder: str | os.PathLike) -> Iterator[os.DirEntry]:
    """Yields the entries of a folder, hidden ones included, in no order.

    Raises:
        CaitError: it cannot be listed.
    """
    try:
        with os.scandir(os.fspath(folder)) as entries:
            yield from entries
    except OSError as error:
        raise CaitError(f"{folder}: the folder cannot be listed ({error.strerror})") from error


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def class_entries(folder: str | os.PathLike) -> list[str]:
    """The sorted names of the folders in a folder that may be classes: all but the hidden ones."""
    return sorted(entry.name for entry in entries_of(folder) if not is_hidden(entry.name) and _is_folder(entry))


def _walk(folder: str | os.PathLike, deep: bool = True) -> Iterator[os.DirEntry]:
    """The files below a folder, or in it, and hidden files and folders, which are not entered; links are followed."""
    folders, seen = [os.fspath(folder)], set()
    while folders:
        folder = folders.pop()
        real = os.path.realpath(folder)
        if real in seen:  # links that lead in a circle
            continue
        seen.add(real)
        below = []
        for entry in entries_of(folder):
            if not is_hidden(entry.name) and _is_folder(entry):
                below.append(entry.path)
            else:
                yield entry
        folders += sorted(below, reverse=True) if deep else []


def list_images(folder: str | os.PathLike, deep: bool = True) -> Listing:
    """The files of a folder, and of the folders in it if it is `deep`.

    Raises:
        CaitError: a folder cannot be listed.
    """
    listing = Listing()
    for entry in _walk(folder, deep):
        if is_hidden(entry.name):
            listing.hidden.append(entry.path)
        else:
            listing.add(entry.path)
    return listing.sorted()


def holds_image(folder: str | os.PathLike) -> bool:
    """Whether there is an image in a folder or below it; looks no further than to the first.

    Raises:
        CaitError: a folder cannot be listed.
    """
    return any(not is_hidden(entry.name) and _is_image(entry.path) for entry in _walk(folder))


def image_files(folder: str | os.PathLike, note: Callable[[str], None] = to_stderr) -> list[str]:
    """All image files below a folder, sorted; links are followed, hidden files and folders passed over.

    Args:
        folder: where to look.
        note: gets a sentence on the files that are left out, if there are any.

    Raises:
        CaitError: there is no such folder, it or one below it cannot be listed, or no image is in it.
    """
    if not os.path.isdir(folder):
        raise CaitError(f"{folder}: no such folder")
    return images_of(list_images(folder), str(folder), note)


def images_of(listing: Listing, name: str, note: Callable[[str], None]) -> list[str]:
    """The images of a listing, whose other files are noted.

    Raises:
        CaitError: there is none; the message begins with the name.
    """
    words = listing.words()
    if not listing.images:
        raise CaitError(f"{name}: holds no images ({words or ', '.join(sorted(suffixes()))})")
    if words:
        note(f"{name}: {words}")
    return listing.images


def spread(paths: Sequence[str], most: int) -> list[str]:
    """At most so many of the paths, at equal distances."""
    count = min(most, len(paths))
    return [paths[index * len(paths) // count] for index in range(count)]
