"""The demo's data: scikit-learn's scanned handwritten digits as an ImageNet-style data set."""

import os
import pathlib

import numpy as np
from PIL import Image

from cait.errors import CaitError
from cait.files import naming_what_fails, read_lines
from cait.files.temporary import temporary_beside

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGE_SIZE = 32
NUM_DIGITS = 1797
HELD_OUT_EVERY = 5  # 360 of them


def load_scans():
    """scikit-learn's digits: `images` [1797, 8, 8] from 0 to 16, `target` [1797].

    Raises:
        CaitError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise CaitError("scikit-learn is needed for the digits: pip install scikit-learn") from error
    return load_digits()


def write_digits(folder: pathlib.Path) -> bool:
    """Writes the 1797 digits as PNG files with `train_list.txt`, `val_list.txt`, `test_list.txt`, `labels.txt`.

    Every fifth digit is held out for validation; the first held-out digit of each class is in the test list. The
    8x8 scans are enlarged to 32x32 (bicubic).

    Returns:
        Whether they were written; False if the folder already holds them.

    Raises:
        CaitError: the folder exists and holds something else, or scikit-learn is not installed.
    """
    if _is_complete(folder):
        return False
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CaitError(f"{folder}: exists and is not the whole digits data set; choose another --output")
    digits = load_scans()
    with temporary_beside(folder) as temporary:
        with naming_what_fails(folder, temporary / ".space.tmp"):
            _write(temporary, digits)
        try:
            os.replace(temporary, folder)
        except OSError:
            if not _is_complete(folder):
                raise
            return False  # another process was faster
    return True


def _write(temporary: pathlib.Path, digits) -> None:
    lists: dict[str, list[str]] = {"train": [], "val": []}
    tested: dict[int, str] = {}
    for index, (scan, label) in enumerate(zip(digits.images, digits.target)):
        split = "val" if index % HELD_OUT_EVERY == 0 else "train"
        name = f"{split}/{NAMES[label]}/{index:04d}.png"
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.round(scan * (255 / 16)).astype("uint8")
        Image.fromarray(pixels).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC).save(temporary / name)
        lists[split].append(f"{name} {label}\n")
        if split == "val":
            tested.setdefault(int(label), f"{name}\n")
    for split, lines in lists.items():
        (temporary / f"{split}_list.txt").write_text("".join(lines))
    (temporary / "test_list.txt").write_text("".join(tested[label] for label in sorted(tested)))
    (temporary / "labels.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(NAMES)))


def _is_complete(folder: pathlib.Path) -> bool:
    lists = [folder / f"{split}_list.txt" for split in ("train", "val")]
    if not all(path.is_file() for path in [*lists, folder / "test_list.txt", folder / "labels.txt"]):
        return False
    names = [line.rsplit(maxsplit=1)[0] for path in lists for line in read_lines(path) if line.strip()]
    return len(names) == NUM_DIGITS and all((folder / name).is_file() for name in names)
