"""The list files of ImageNet-1k, made from the folders as they are downloaded."""

import csv
import pathlib
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from cait.data.image_files import IMAGE_EXTENSIONS
from cait.data.labels import imagenet1k_wordnet_ids
from cait.errors import CaitError, UsageError
from cait.files import read_text, writable_folder, write_text

VAL_FOLDERS = ("val", "valid")
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SOLUTION = "LOC_val_solution.csv"


def write_lists(root: pathlib.Path, output: pathlib.Path, seed: int, force: bool) -> dict[pathlib.Path, int]:
    """Writes the lists of a data folder with `train/WNID/*.JPEG` and `val` (or `valid`).

    Validation images lie in folders of WordNet ids, or flat with the devkit's ground truth or Kaggle's
    `LOC_val_solution.csv` somewhere below `root`. Written are `train_list.txt` and `val_list.txt`, the same under
    the names `1train_list.txt` and `1valid_list.txt`, both shuffled (`2..._shuffle.txt`), and the first half of the
    shuffled (`3..._shuffle_cut2.txt`). Lines are `relative/path class_index`.

    Args:
        root: the data folder; nothing is written there.
        output: folder of the lists.
        seed: of the shuffling.
        force: replace lists that are there.

    Returns:
        Number of lines of each file written.

    Raises:
        UsageError: a list is there and `force` is not set.
        CaitError: the folders or the ground truth are missing or do not fit.
    """
    names = {
        split: (f"1{word}_list.txt", f"2{word}_list_shuffle.txt", f"3{word}_list_shuffle_cut2.txt", f"{split}_list.txt")
        for split, word in (("train", "train"), ("val", "valid"))
    }
    existing = [output / name for group in names.values() for name in group if (output / name).exists()]
    if existing and not force:
        raise UsageError(f"{existing[0]}: is there already; --force replaces it")
    class_index = {wordnet_id: index for index, wordnet_id in enumerate(imagenet1k_wordnet_ids())}
    lines = {"train": _in_class_folders(root, "train", class_index), "val": _validation(root, class_index)}
    writable_folder(output)
    written = {}
    for number, (split, group) in enumerate(names.items()):
        shuffled = list(lines[split])
        np.random.default_rng((seed, number)).shuffle(shuffled)
        contents = (lines[split], shuffled, shuffled[: len(shuffled) // 2], lines[split])
        for name, content in zip(group, contents):
            write_text(output / name, "".join(f"{line}\n" for line in content))
            written[output / name] = len(content)
    return written


def _images(folder: pathlib.Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix.lower() in IMAGE_EXTENSIONS)


def _in_class_folders(root: pathlib.Path, split: str, class_index: dict[str, int]) -> list[str]:
    if not (root / split).is_dir():
        raise CaitError(f"{root / split}: no such folder")
    folders = sorted(p for p in (root / split).iterdir() if p.is_dir())
    lines = []
    for folder in tqdm(folders, desc=split, disable=None):
        if folder.name not in class_index:
            raise CaitError(f"{folder}: no WordNet id of ImageNet-1k; for other classes use -dataset=folder")
        lines += [f"{split}/{folder.name}/{name} {class_index[folder.name]}" for name in _images(folder)]
    if not lines:
        raise CaitError(f"{root / split}: holds no images in folders of WordNet ids")
    return lines


def _validation(root: pathlib.Path, class_index: dict[str, int]) -> list[str]:
    split = next((name for name in VAL_FOLDERS if (root / name).is_dir()), None)
    if split is None:
        raise CaitError(f"{root}: has no folder {' or '.join(VAL_FOLDERS)}")
    if any(p.is_dir() for p in (root / split).iterdir()):
        return _in_class_folders(root, split, class_index)
    images = _images(root / split)
    if not images:
        raise CaitError(f"{root / split}: holds no images")
    label_of = _flat_labels(root, images, class_index)
    return [f"{split}/{name} {label_of(name)}" for name in images]


def _flat_labels(root: pathlib.Path, images: list[str], class_index: dict[str, int]) -> Callable[[str], int]:
    """Class index of a validation image by its file name."""
    if solution := _find(root, SOLUTION):
        labels = _kaggle_labels(solution, class_index)
    elif truth := _find(root, GROUND_TRUTH):
        classes = _devkit_labels(truth, class_index)
        if len(classes) != len(images):
            raise CaitError(f"{truth}: has {len(classes)} lines for {len(images)} validation images")
        labels = {pathlib.Path(name).stem: label for name, label in zip(images, classes)}
    else:
        raise CaitError(f"{root}: validation images lie flat: put the devkit ({GROUND_TRUTH}) or {SOLUTION} below it")
    missing = [name for name in images if pathlib.Path(name).stem not in labels]
    if missing:
        raise CaitError(f"{missing[0]}: the ground truth has no label for it")
    return lambda name: labels[pathlib.Path(name).stem]


def _find(root: pathlib.Path, name: str) -> pathlib.Path | None:
    """A file in `root` or below it, but not among the images."""
    if (root / name).is_file():
        return root / name
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name not in ("train", *VAL_FOLDERS)]
    return next((found for folder in folders for found in folder.rglob(name)), None)


def _kaggle_labels(path: pathlib.Path, class_index: dict[str, int]) -> dict[str, int]:
    labels = {}
    for number, row in enumerate(csv.DictReader(read_text(path).splitlines()), 2):
        image, prediction = row.get("ImageId"), (row.get("PredictionString") or "").split()
        if not image or not prediction or prediction[0] not in class_index:
            raise CaitError(f"{path}: line {number} must be `image,WordNet-id ...` under `ImageId,PredictionString`")
        labels[image] = class_index[prediction[0]]
    return labels


def _devkit_labels(truth: pathlib.Path, class_index: dict[str, int]) -> list[int]:
    wordnet_ids = _devkit_wordnet_ids(truth.with_name("meta.mat"))
    labels = []
    for number, line in enumerate(read_text(truth).splitlines(), 1):
        wordnet_id = wordnet_ids.get(line.strip())
        if wordnet_id not in class_index:
            raise CaitError(f"{truth}: line {number} must be an ILSVRC2012_ID of one of the 1000 classes, not {line!r}")
        labels.append(class_index[wordnet_id])
    return labels


def _devkit_wordnet_ids(path: pathlib.Path) -> dict[str, str]:
    """ILSVRC2012_ID, as text, -> WordNet id, from the devkit's `meta.mat`."""
    if not path.is_file():
        raise CaitError(f"{path}: missing; it lies beside {GROUND_TRUTH} in the devkit")
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise CaitError("scipy is needed for the devkit's meta.mat: pip install scipy") from error
    try:
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in synsets}
    except Exception as error:  # scipy raises almost anything on a damaged file
        raise CaitError(f"{path}: not the devkit's table of synsets ({type(error).__name__})") from error
