"""A small data set of ImageNet's shape, for trying the whole chain of commands in minutes.

Sampled from an ImageNet that is at hand, else made of scikit-learn's scanned digits. The folder holds `train`, `valid`
and `infer` (the validation images again), their lists, and `contents.json`, which says what it is.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from cait.data.labels import imagenet1k_wordnet_ids
from cait.data.prepare.digits import load_scans
from cait.data.prepare.imagenet_lists import VAL_FOLDERS, write_lists
from cait.errors import CaitError
from cait.files import naming_what_fails, read_lines, write_text
from cait.files.temporary import temporary_beside

CONTENTS = "contents.json"
SHORT_SIDES = (150, 320)  # of the enlarged digits, in pixels
LONGEST = 1.6  # long side over short side
FIRST_VALIDATION_DIGIT = 1000  # digits before it are for training


def find_imagenet(root: pathlib.Path) -> str:
    """Why `root` cannot be used as ImageNet; empty if it can."""
    if not (root / "train").is_dir():
        return f"there is no ImageNet in {root}"
    if not any((root / name).is_dir() for name in VAL_FOLDERS):
        return f"{root} has no folder {' or '.join(VAL_FOLDERS)}"
    return ""


def write_lite(
    folder: pathlib.Path, imagenet: pathlib.Path, num_train: int, num_val: int, whole_train: bool, whole_infer: bool
) -> dict:
    """Writes the data set anew; nothing is ever written to `imagenet`.

    Args:
        folder: of the data set; one that was made here before is replaced.
        imagenet: folder with `train` and `val` or `valid`; need not be there.
        num_train, num_val: images of the sample.
        whole_train: let training and validation be all of ImageNet, by links, instead of the sample.
        whole_infer: let `infer` be all validation images of ImageNet, by a link, instead of those of the sample.

    Returns:
        What `contents.json` says: `source`, and in `missing` why `train` or `infer` is not what was asked for.

    Raises:
        CaitError: the folder holds something else, lies in `imagenet`, or images cannot be had.
    """
    _check_is_ours(folder, imagenet)
    absent = find_imagenet(imagenet)
    wanted = {"train": whole_train, "infer": whole_infer}
    contents: dict[str, Any] = {"source": "scanned digits" if absent else str(imagenet)}
    contents |= {part: "whole" if whole else "sample" for part, whole in wanted.items()}
    contents["missing"] = {part: absent for part, whole in wanted.items() if whole and absent}
    with temporary_beside(folder) as temporary:
        temporary.mkdir(parents=True)
        with naming_what_fails(folder, temporary / ".space.tmp"):
            if whole_train and not absent:
                _link_all(temporary, imagenet)
            elif absent:
                _write_digits(temporary, num_train, num_val)
            else:
                _copy_sample(temporary, imagenet, num_train, num_val)
            _write_inference_set(temporary, imagenet if whole_infer and not absent else None)
            write_text(temporary / CONTENTS, json.dumps(contents, indent=2) + "\n")
        if folder.exists():
            shutil.rmtree(folder)  # links in it are removed, not followed
        os.replace(temporary, folder)
    return contents


def _check_is_ours(folder: pathlib.Path, imagenet: pathlib.Path) -> None:
    if folder.is_symlink():
        raise CaitError(f"{folder}: is a link; the small data set needs a folder of its own")
    target, theirs = folder.resolve(), imagenet.resolve()
    if target == theirs or theirs in target.parents or target in theirs.parents:
        raise CaitError(f"{folder}: lies in {imagenet}, or around it; nothing is written there")
    if folder.exists() and not (folder / CONTENTS).is_file():
        raise CaitError(f"{folder}: exists and was not made by `prepare_data.py lite`; choose another folder")


def _write_digits(folder: pathlib.Path, num_train: int, num_val: int) -> None:
    """Digit d stands for class d of ImageNet, so that labels, folders and names are real ones."""
    digits, wordnet_ids = load_scans(), imagenet1k_wordnet_ids()
    rng = np.random.default_rng(0)
    for split, first, last, count in (
        ("train", 0, FIRST_VALIDATION_DIGIT, num_train),
        ("valid", FIRST_VALIDATION_DIGIT, len(digits.target), num_val),
    ):
        for number, index in enumerate(_evenly(digits.target, first, last, count)):
            name = wordnet_ids[digits.target[index]]
            stem = f"{name}_{number + 1}" if split == "train" else f"ILSVRC2012_val_{number + 1:08d}"
            path = folder / split / name / f"{stem}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            _photo_of(digits.images[index], number, rng).save(path, quality=92)
    write_lists(folder, folder, seed=0, force=True)


def _evenly(targets: np.ndarray, first: int, last: int, count: int) -> Iterator[int]:
    """Indices from `first` up to `last`, one of each class in turn; where they run out they come again.

    Images of one scan still differ, for `_photo_of` gives every image its own size and colours.
    """
    by_class = [first + np.flatnonzero(targets[first:last] == label) for label in range(10)]
    for number in range(count):
        indices = by_class[number % 10]
        yield int(indices[number // 10 % len(indices)])


def _photo_of(scan: np.ndarray, number: int, rng: np.random.Generator) -> Image.Image:
    """A scan [8, 8] as a coloured picture whose size and side ratio vary: every third is wide, tall, nearly square."""
    short, ratio = int(rng.integers(*SHORT_SIDES)), float(rng.uniform(1.1, LONGEST))
    size = ((round(short * ratio), short), (short, round(short * ratio)), (short, short + number % 7))[number % 3]
    ink, paper = rng.uniform(0, 90, 3), rng.uniform(150, 255, 3)
    share = (scan / 16)[..., None]
    pixels = np.round(paper + (ink - paper) * share).astype("uint8")
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def _lines(path: pathlib.Path) -> list[str]:
    return [line.strip() for line in read_lines(path) if line.strip()]


def _lists_of(imagenet: pathlib.Path, folder: pathlib.Path) -> dict[str, list[str]]:
    """Lines of ImageNet's training and validation lists: the user's own, else made from its folders into `folder`."""
    paths = {split: imagenet / f"{split}_list.txt" for split in ("train", "val")}
    if not all(path.is_file() for path in paths.values()):
        write_lists(imagenet, folder, seed=0, force=True)
        paths = {split: folder / path.name for split, path in paths.items()}
    lists = {split: _lines(path) for split, path in paths.items()}
    for split, lines in lists.items():
        for line in lines:
            parts = pathlib.PurePosixPath(line).parts
            if parts[0] == "/" or ".." in parts:
                raise CaitError(f"{paths[split]}: {line}: a sample can be taken of paths below {imagenet} only")
    return lists


def _link_all(folder: pathlib.Path, imagenet: pathlib.Path) -> None:
    lists = _lists_of(imagenet, folder)
    for name in {pathlib.PurePosixPath(line).parts[0] for lines in lists.values() for line in lines}:
        (folder / name).symlink_to((imagenet / name).resolve())
    for split, lines in lists.items():
        _write_list(folder / f"{split}_list.txt", lines)


def _copy_sample(folder: pathlib.Path, imagenet: pathlib.Path, num_train: int, num_val: int) -> None:
    """Copies images that lie evenly over the lists, under their own names."""
    lists = _lists_of(imagenet, folder)
    for path in folder.glob("*.txt"):  # of all images
        path.unlink()
    for split, count in (("train", num_train), ("val", num_val)):
        lines = lists[split]
        chosen = [lines[i] for i in sorted({round(k * (len(lines) - 1) / max(count - 1, 1)) for k in range(count)})]
        for line in chosen:
            name = line.rsplit(maxsplit=1)[0]
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(imagenet / name, folder / name)
            except OSError as error:
                raise CaitError(f"{imagenet / name}: cannot be copied ({error.strerror})") from error
        _write_list(folder / f"{split}_list.txt", chosen)


def _write_inference_set(folder: pathlib.Path, imagenet: pathlib.Path | None) -> None:
    """`infer`, a link to the validation images, and `test_list.txt` of them, with their labels."""
    if imagenet is None:
        lines = _lines(folder / "val_list.txt")
    else:
        scratch = folder / ".lists"
        scratch.mkdir()
        lines = _lists_of(imagenet, scratch)["val"]
        shutil.rmtree(scratch)
    first = pathlib.PurePosixPath(lines[0]).parts[0]
    (folder / "infer").symlink_to(first if imagenet is None else (imagenet / first).resolve())
    _write_list(folder / "test_list.txt", (f"infer/{line.removeprefix(f'{first}/')}" for line in lines))


def _write_list(path: pathlib.Path, lines: Iterable[str]) -> None:
    write_text(path, "".join(f"{line}\n" for line in lines))
