"""The list files of ImageNet-1k, made from the folders as they are downloaded."""

import csv
import os
import pathlib
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from cait.data.image_files import Listing, class_entries, list_images, to_stderr
from cait.data.labels import imagenet1k_wordnet_ids
from cait.errors import CaitError, UsageError
from cait.files import read_lines, writable_folder, write_text

VAL_FOLDERS = ("val", "valid")
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SOLUTION = "LOC_val_solution.csv"
VALIDATION_NAME = "ILSVRC2012_val_{:08d}"  # of a validation image, without the suffix, by its number

Note = Callable[[str], None]


def write_lists(
    root: pathlib.Path, output: pathlib.Path, seed: int, force: bool, note: Note = to_stderr
) -> dict[pathlib.Path, int]:
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
        note: gets a sentence on the files that are left out, and one on validation images that are missing.

    Returns:
        Number of lines of each file written.

    Raises:
        UsageError: a list is there and `force` is not set.
        CaitError: the folders or the ground truth are missing or do not fit, or an image has no label.
    """
    names = {
        split: (f"1{word}_list.txt", f"2{word}_list_shuffle.txt", f"3{word}_list_shuffle_cut2.txt", f"{split}_list.txt")
        for split, word in (("train", "train"), ("val", "valid"))
    }
    existing = [output / name for group in names.values() for name in group if (output / name).exists()]
    if existing and not force:
        raise UsageError(f"{existing[0]}: is there already; --force replaces it")
    class_index = {wordnet_id: index for index, wordnet_id in enumerate(imagenet1k_wordnet_ids())}
    lines = {"train": _in_class_folders(root, "train", class_index, note), "val": _validation(root, class_index, note)}
    for line in (*lines["train"], *lines["val"]):
        if "\n" in line:
            raise CaitError(f"{root}: {line!r}: a list cannot hold a name with a line break; rename the file")
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


def _images(folder: pathlib.Path, listing: Listing) -> list[str]:
    """Names of the images in a folder; its other files are added to the listing."""
    found = list_images(folder, deep=False)
    listing.left_out += found.left_out
    return [os.path.basename(path) for path in found.images]


def _in_class_folders(root: pathlib.Path, split: str, class_index: dict[str, int], note: Note) -> list[str]:
    if not (root / split).is_dir():
        raise CaitError(f"{root / split}: no such folder")
    lines, empty, listing = [], [], Listing()
    for name in tqdm(class_entries(root / split), desc=split, disable=None):
        folder = root / split / name
        if name not in class_index:
            raise CaitError(f"{folder}: no WordNet id of ImageNet-1k; for other classes use -dataset=folder")
        images = _images(folder, listing)
        lines += [f"{split}/{name}/{image} {class_index[name]}" for image in images]
        empty += [] if images else [str(folder)]
    _note_left_out(root / split, listing, note)
    if not lines:
        raise CaitError(f"{root / split}: holds no images in folders of WordNet ids")
    if empty:
        note(f"{len(empty)} folders of classes hold no images, the first: {empty[0]}")
    return lines


def _note_left_out(folder: pathlib.Path, listing: Listing, note: Note) -> None:
    if words := listing.words():
        note(f"{folder}: {words}")


def _validation(root: pathlib.Path, class_index: dict[str, int], note: Note) -> list[str]:
    split = next((name for name in VAL_FOLDERS if (root / name).is_dir()), None)
    if split is None:
        raise CaitError(f"{root}: has no folder {' or '.join(VAL_FOLDERS)}")
    if class_entries(root / split):
        return _in_class_folders(root, split, class_index, note)
    listing = Listing()
    images = _images(root / split, listing)
    _note_left_out(root / split, listing, note)
    if not images:
        raise CaitError(f"{root / split}: holds no images")
    truth, labels = _flat_labels(root, class_index)
    stems = {name: pathlib.Path(name).stem for name in images}
    foreign = [name for name, stem in stems.items() if stem not in labels]
    if foreign:
        raise CaitError(
            f"{root / split}: {len(foreign)} images are none that {truth} has a label for, the first: {foreign[0]}; "
            "move them away"
        )
    missing = sorted(set(labels) - set(stems.values()))
    if missing:
        there = len(labels) - len(missing)
        note(
            f"{root / split}: holds {there} of the {len(labels)} images of {truth.name}; {missing[0]} is missing first"
        )
    return [f"{split}/{name} {labels[stem]}" for name, stem in stems.items()]


def _flat_labels(root: pathlib.Path, class_index: dict[str, int]) -> tuple[pathlib.Path, dict[str, int]]:
    """The file with the labels of flat validation images, and class indices by the images' names without suffix."""
    if solution := _find(root, SOLUTION):
        return solution, _kaggle_labels(solution, class_index)
    if truth := _find(root, GROUND_TRUTH):
        return truth, _devkit_labels(truth, class_index)
    raise CaitError(f"{root}: validation images lie flat: put the devkit ({GROUND_TRUTH}) or {SOLUTION} below it")


def _find(root: pathlib.Path, name: str) -> pathlib.Path | None:
    """A file in `root` or below it, but not among the images."""
    if (root / name).is_file():
        return root / name
    folders = [root / folder for folder in class_entries(root) if folder not in ("train", *VAL_FOLDERS)]
    return next((found for folder in folders for found in folder.rglob(name)), None)


def _kaggle_labels(path: pathlib.Path, class_index: dict[str, int]) -> dict[str, int]:
    labels = {}
    for number, row in enumerate(csv.DictReader(read_lines(path)), 2):
        image, prediction = row.get("ImageId"), (row.get("PredictionString") or "").split()
        if not image or not prediction:
            raise CaitError(f"{path}: line {number} must be `image,WordNet-id ...` under `ImageId,PredictionString`")
        if prediction[0] not in class_index:
            raise CaitError(f"{path}: line {number} has {prediction[0]!r}, which is no WordNet id of ImageNet-1k")
        labels[image] = class_index[prediction[0]]
    return labels


def _devkit_labels(truth: pathlib.Path, class_index: dict[str, int]) -> dict[str, int]:
    """Line N is about the image with the number N in its name, whatever other images are there."""
    wordnet_ids = _devkit_wordnet_ids(truth.with_name("meta.mat"))
    labels = {}
    for number, line in enumerate(read_lines(truth), 1):
        wordnet_id = wordnet_ids.get(line.strip())
        if wordnet_id not in class_index:
            raise CaitError(f"{truth}: line {number} must be an ILSVRC2012_ID of one of the 1000 classes, not {line!r}")
        labels[VALIDATION_NAME.format(number)] = class_index[wordnet_id]
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
