"""The folder of a bundle, and how a new bundle takes the place of an old one there: in one step, or not at all.

The folder may hold other files and may be a mount point, so it is not renamed itself. A new bundle is made in the
subfolder TRIAL; once it is proven, that is renamed to COMMITTED, and from this step on it is the bundle of the folder.
Its files are then linked to their places. Whoever finds COMMITTED, because that was broken off, does the rest.
"""

import os
import pathlib
import shutil
from collections.abc import Iterable
from typing import Any

from cait.errors import CaitError
from cait.files import read_text, replacing, sync
from cait.files.folder_lock import held
from cait.files.yaml_file import YamlError, check_size, parse

STEM = "inference"
DESCRIPTION = f"{STEM}.yaml"
TRIAL, COMMITTED = f".{STEM}.tmp", f".{STEM}.new"
BEGINNINGS = (f"{STEM}.", "fused_")  # of the names of all files of a bundle
JOB = "export"  # whose lock is held by whoever changes the folder


def bundle_folder(folder: str | os.PathLike) -> pathlib.Path:
    """The folder whose files are the whole bundle of `folder`.

    That is `folder` itself, once an export that was broken off in its last step is finished; where `folder` cannot be
    written, it is the subfolder with the new bundle.
    """
    folder = pathlib.Path(folder)
    if not _is_committed(folder):
        return folder
    try:
        with held(folder, JOB, wait=True):
            finish(folder)
    except (OSError, CaitError):  # a folder that can only be read
        return folder / COMMITTED
    return folder


def described(folder: pathlib.Path) -> dict[str, Any] | None:
    """Reads the description in a folder; returns None if no export can have written it."""
    try:
        check_size(folder / DESCRIPTION)
        content = parse(read_text(folder / DESCRIPTION))
    except (OSError, CaitError, YamlError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("files"), dict) else None


def commit(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Makes the proven files of these names in TRIAL the bundle of the folder, in place of the one that is there.

    To be called with the lock of JOB held. If this is broken off at any point, even by a loss of power, the folder has
    either the old bundle or the new one.
    """
    trial, names = folder / TRIAL, {*names, DESCRIPTION}
    for path in trial.iterdir():
        if path.name in names:
            sync(path)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    sync(trial)
    os.replace(trial, folder / COMMITTED)
    sync(folder)
    finish(folder)


def finish(folder: pathlib.Path) -> None:
    """Puts the files of a committed bundle in their places, if there is one; with the lock of JOB held.

    Files that the description of the old bundle names, and the new bundle does not have, are removed. COMMITTED stays
    whole until all is done.
    """
    if not _is_committed(folder):
        return
    new = folder / COMMITTED
    names = {path.name for path in new.iterdir()} - {DESCRIPTION}
    stale = set((described(folder) or {"files": {}})["files"]) - names - {DESCRIPTION}
    for name in sorted(names):
        _place(new / name, folder / name)
    for name in stale:
        if isinstance(name, str) and name == os.path.basename(name) and name.startswith(BEGINNINGS):
            (folder / name).unlink(missing_ok=True)
    _place(new / DESCRIPTION, folder / DESCRIPTION)
    sync(folder)
    os.replace(new, folder / TRIAL)
    shutil.rmtree(folder / TRIAL)


def _is_committed(folder: pathlib.Path) -> bool:
    return os.path.isfile(folder / COMMITTED / DESCRIPTION)  # which is False where one may not look


def _place(source: pathlib.Path, target: pathlib.Path) -> None:
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # not every file system has links
            shutil.copyfile(source, temporary)
