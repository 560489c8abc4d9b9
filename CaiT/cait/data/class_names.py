"""The names of the classes: which a checkpoint was trained on, which the data has, and what each job makes of both.

A run records its names in its `config.yaml` and in every file of its checkpoints, so that weights keep them wherever
they are copied. Weights without a record, such as the published ones, have the names that come with the data.

Where DATA.LABELS is given, it names the classes; then the record does, then the data.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from yacs.config import CfgNode

from cait.config.keys import CLASSES
from cait.data import cifar, sources
from cait.data.labels import IMAGENET1K, imagenet1k_wordnet_ids, read_class_names
from cait.errors import CaitError, UsageError, listed, shown
from cait.files.yaml_file import read_tree
from cait.run_folder import CONFIG, run_folder
from cait.weights.checkpoints import begins_again
from cait.weights.read import facts_of

SHOWN = 3  # names in a message


class Classes(NamedTuple):
    """The classes of a job.

    Attributes:
        names: by the model's index.
        notes: sentences for the log.
        of_data: what the data calls them, by its own index; None where it does not name them.
        index: the model's index by that of the data, None for a class that the model does not have; None: the same.
        in_data: whether to say which classes have no images.
        is_other_head: the weights to start from have a head for classes of other names.
    """

    names: list[str]
    notes: list[str]
    of_data: list[str] | None = None
    index: list[int | None] | None = None  # type: ignore[assignment]  # it hides the method of tuples
    in_data: bool = False
    is_other_head: bool = False

    def record(self) -> dict[str, list[str]] | None:
        """Returns what a run saves: `names`, and `of_data` if the data has others; None for classes without names."""
        if self.names == _indices(len(self.names)):
            return None
        by_model = self.of_data if self.index is None else None  # else they are matched by name, and have the same
        return {"names": self.names} | ({"of_data": by_model} if by_model not in (None, self.names) else {})

    def relabel(self, labels: Sequence[int], root: str | os.PathLike) -> list[int]:
        """The model's labels of images with these labels of the data; `notes` get what classes have no image.

        Raises:
            CaitError: an image is of a class that the model does not have; it is named.
        """
        used = set(labels)
        index = self.index or list(range(len(self.names)))
        if unknown := [label for label in used if label >= len(index) or index[label] is None]:
            known = self.of_data or []
            words = _list([repr(known[label]) if label < len(known) else f"number {label}" for label in unknown])
            raise CaitError(
                f"{root}: has images of classes that the checkpoint does not know: {words}; it has {_list(self.names)}"
            )
        labels = [index[label] for label in labels]  # type: ignore[misc]  # none is None
        if self.in_data and len(missing := sorted(set(range(len(self.names))) - set(labels))):
            words = _list([self.names[label] for label in missing])
            self.notes.append(f"no images of {len(missing)} of the {len(self.names)} classes: {words}")
        return labels


class _Record(NamedTuple):
    """The names that a checkpoint was saved with, and all lists of names, by the model's index, that mean the same."""

    names: list[str]
    vocabularies: list[list[str]]


def shown_classes(config: CfgNode) -> Classes:
    """For a job that only names the answers of MODEL.PRETRAINED: it needs no data.

    Raises:
        CaitError: a label file, or the data of weights without a record, is malformed.
        UsageError: there are more or fewer names than classes.
    """
    labels, record = _labels(config), _recorded(config.MODEL.PRETRAINED, config.MODEL.NUM_CLASSES)
    if record is None:
        data = None if labels is not None or not _has_class_folders(config) else names_of_data(config)
        names, notes = _names_without_record(config, labels, data), []
        if names == _indices(len(names)):
            notes.append("nothing names the classes: their indices stand for them; -o DATA.LABELS=FILE names them")
        return Classes(names, notes)
    try:
        data = names_of_data(config)
    except CaitError:  # what cannot be read, and is not needed here, cannot differ either
        data = None
    notes = []
    if data is not None and data not in record.vocabularies:
        words = difference(record.names, data)
        notes.append(f"{config.DATA.DATA_PATH} has other classes than the checkpoint, whose names are shown: {words}")
    return Classes(labels or record.names, notes)


def evaluated_classes(config: CfgNode) -> Classes:
    """For -eval: images are matched with the classes of MODEL.PRETRAINED by name, where both sides have names.

    Raises:
        CaitError, UsageError: as for `shown_classes`.
    """
    labels, record = _labels(config), _recorded(config.MODEL.PRETRAINED, config.MODEL.NUM_CLASSES)
    if record is None:
        data = names_of_data(config)
        names = _names_without_record(config, labels, data)
        return Classes(names, [], data, _by_folder(config, data, [names]))
    data = names_of_data(config, splits=("val",))
    names = labels or record.names
    vocabularies = ([labels] if labels else []) + record.vocabularies
    if data is None or data in vocabularies:
        return Classes(names, [], data, in_data=True)
    index = _match(data, vocabularies)
    notes, known = [], [own for own in index if own is not None]
    if known != sorted(known):
        notes.append(f"the classes of {config.DATA.DATA_PATH} have another order; they are matched by name")
    return Classes(names, notes, data, index, in_data=True)


def trained_classes(config: CfgNode) -> Classes:
    """For training: the names that the run records.

    Raises:
        CaitError: a label file or the data is malformed.
        UsageError: the number of classes is another one; or the classes are not those of the resumed run, or stand at
            other places than in the head of MODEL.PRETRAINED.
    """
    labels, data, resume, names = _labels(config), names_of_data(config), config.TRAIN.RESUME, None
    goes_on = bool(resume) and not begins_again(resume)
    if record := _recorded(resume, config.MODEL.NUM_CLASSES, resumes=True):
        problem = _why_not_the_same(config, record, labels, data)
        if problem and goes_on:
            raise UsageError(problem)
        names = None if problem else labels or record.names
    vocabularies = record.vocabularies if record and names else []
    names = names or _names_without_record(config, labels, data)
    classes = Classes(names, [], data, _by_folder(config, data, [names, *vocabularies]))
    return classes if goes_on else _with_head(config, classes)


def _with_head(config: CfgNode, classes: Classes) -> Classes:
    """The classes of a new run, beside those that the head of MODEL.PRETRAINED knows."""
    start, names = config.MODEL.PRETRAINED, classes.names
    record = _recorded(start, config.MODEL.NUM_CLASSES)
    if record is None or names in record.vocabularies or classes.of_data in record.vocabularies:
        return classes
    words = difference(record.names, names)
    if config.MODEL.RESET_HEAD:
        classes.notes.append(f"{start} was trained on classes of other names ({words}): the head starts fresh")
        return classes._replace(is_other_head=True)
    if moved := _moved(record.names, names):
        raise UsageError(
            f"{start}: its head has {moved!r} at another place among its classes ({words}); "
            "-o MODEL.RESET_HEAD=true starts with a fresh head"
        )
    classes.notes.append(
        f"warning: {start} was trained on classes of other names ({words}), and its head is kept; if these are other "
        "classes, -o MODEL.RESET_HEAD=true starts with a fresh one"
    )
    return classes


def compare_with_teacher(classes: Classes, teacher: str, names: list[str]) -> None:
    """Adds a note to the classes of a training where a teacher has other names for its own.

    Raises:
        UsageError: the teacher has one of the names at another place, and so would teach another class.
    """
    if len(names) != len(classes.names) or names == _indices(len(names)):
        return
    if moved := _moved(names, classes.names):
        raise UsageError(f"DISTILL.TEACHER {teacher}: has {moved!r} at another place among its classes")
    if names != classes.names:
        number, (left, right) = next(
            (number, pair) for number, pair in enumerate(zip(names, classes.names)) if pair[0] != pair[1]
        )
        words = f"class {number} is {left!r} there and {right!r} here; the classes must be the same all the same"
        classes.notes.append(f"warning: the teacher {teacher} names its classes otherwise ({words})")


def names_of_data(config: CfgNode, splits: Sequence[str] = ("train", "val")) -> list[str] | None:
    """The names that a data set has of its classes; None where it has none, or is not there.

    Args:
        splits: folders of which the first that is there has the class folders.

    Raises:
        CaitError: the data is malformed.
    """
    root = pathlib.Path(config.DATA.DATA_PATH)
    if not root.exists():
        return None
    if config.DATA.DATASET == "folder":
        return sources.class_folders(root, splits)
    if config.DATA.DATASET in cifar.ARCHIVES:
        return cifar.cifar_class_names(cifar.cifar_archive(root, config.DATA.DATASET), config.DATA.DATASET)
    return read_class_names(root / "labels.txt") if (root / "labels.txt").is_file() else None


def difference(own: Sequence[str], others: Sequence[str]) -> str:
    """Describes how the class names of a checkpoint and of the data differ; the first ones are named."""
    new, missing = [name for name in others if name not in own], [name for name in own if name not in others]
    words = [f"the data has {_list([repr(name) for name in new])}, which the checkpoint does not know"] if new else []
    words += [f"the data lacks {_list([repr(name) for name in missing])}"] if missing else []
    for number, (left, right) in enumerate(zip(own, others)):
        if left != right and not words:
            words = [f"class {number} is {left!r} in the checkpoint and {right!r} in the data"]
    return "; ".join(words) or f"{len(own)} classes in the checkpoint, {len(others)} in the data"


def _recorded(checkpoint: str, num_classes: int, resumes: bool = False) -> _Record | None:
    """What a checkpoint says of its classes; None where it says nothing, or not of so many.

    Args:
        resumes: what the path means: a state to go on from, not weights.
    """
    if not checkpoint:
        return None
    said = facts_of(checkpoint, resumes)  # first, for the checkpoints of several runs may lie in one folder
    found, config_file = said.get("classes"), run_folder(checkpoint) / CONFIG
    if "classes" not in said and config_file.is_file():
        found = recorded_classes(config_file)
    if found is None or len(found["names"]) != num_classes:
        return None
    names, vocabularies = found["names"], [found["names"]]
    vocabularies += [found["of_data"]] if "of_data" in found else []
    imagenet = read_class_names(IMAGENET1K), imagenet1k_wordnet_ids()
    vocabularies += [other for one, other in (imagenet, imagenet[::-1]) if one == names]
    return _Record(names, vocabularies)


def recorded_classes(path: str | os.PathLike) -> dict[str, list[str]] | None:
    """The record of the classes in the config of a run, see `Classes.record`; None if there is none.

    Raises:
        UsageError: the file is missing or no YAML, or the record was changed to something else.
    """
    found = read_tree(path).get(CLASSES)
    if found is None:
        return None
    lists = list(found.values()) if isinstance(found, dict) else []
    is_record = isinstance(found, dict) and {"names"} <= set(found) <= {"names", "of_data"}
    if not is_record or not all(isinstance(names, list) and len(names) == len(lists[0]) for names in lists):
        raise UsageError(f"{path}: {CLASSES} must hold `names`, a list of the names of the classes")
    for name in (name for names in lists for name in names):
        if not isinstance(name, str):
            raise UsageError(f"{path}: {CLASSES} must hold texts: write '{shown(name, bare=True)}' in quotes")
    return found


def _labels(config: CfgNode) -> list[str] | None:
    if not config.DATA.LABELS:
        return None
    return _of_count(read_class_names(config.DATA.LABELS), config.DATA.LABELS, config)


def _of_count(names: list[str], source: str | os.PathLike, config: CfgNode) -> list[str]:
    if len(names) != config.MODEL.NUM_CLASSES:
        raise UsageError(f"{source}: names {len(names)} classes, but MODEL.NUM_CLASSES is {config.MODEL.NUM_CLASSES}")
    return names


def _names_without_record(config: CfgNode, labels: list[str] | None, data: list[str] | None) -> list[str]:
    """DATA.LABELS, else those of the data, else ImageNet-1k's if it is that, else the indices."""
    root, num_classes = pathlib.Path(config.DATA.DATA_PATH), config.MODEL.NUM_CLASSES
    is_list = config.DATA.DATASET == "imagenet2012"
    if data is not None and not is_list and len(data) != num_classes:
        empty = sources.empty_classes(root) if config.DATA.DATASET == "folder" else []
        more = f" (without images, and so left out: {', '.join(empty)})" if empty else ""
        words = f"{len(data)} classes{more}: set -o MODEL.NUM_CLASSES={len(data)}, not {num_classes}"
        raise UsageError(f"{root}: has {words}")
    if labels is not None:
        return labels
    if data is not None:
        return _of_count(data, root / "labels.txt", config)
    return read_class_names(IMAGENET1K) if is_list and num_classes == 1000 else _indices(num_classes)


def _indices(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def _has_class_folders(config: CfgNode) -> bool:
    root = pathlib.Path(config.DATA.DATA_PATH)
    return config.DATA.DATASET != "folder" or any((root / split).is_dir() for split in ("train", "val"))


def _by_folder(config: CfgNode, data: list[str] | None, vocabularies: list[list[str]]) -> list[int | None] | None:
    """The index for `Classes` in training: folders are found by their names, whatever their order."""
    if data is None or config.DATA.DATASET != "folder" or data in vocabularies:
        return None
    index = _match(data, vocabularies)
    if unknown := [name for name, own in zip(data, index) if own is None]:
        known = config.DATA.LABELS or "the run"
        raise UsageError(
            f"{config.DATA.DATA_PATH}: has folders of classes that {known} does not name: {_list(unknown)}"
        )
    return index


def _match(data: list[str], vocabularies: list[list[str]]) -> list[int | None]:
    """The index of each name of the data in the list that has most of them; None where that has it not just once."""
    best = max(vocabularies, key=lambda names: len(set(names) & set(data)))
    return [best.index(name) if best.count(name) == 1 else None for name in data]


def _moved(own: list[str], others: list[str]) -> str | None:
    """A name that stands at another place in the other list."""
    places = {name: number for number, name in enumerate(own)}
    return next((name for number, name in enumerate(others) if places.get(name, number) != number), None)


def _why_not_the_same(config: CfgNode, record: _Record, labels: list[str] | None, data: list[str] | None) -> str:
    """Why a run cannot go on with these classes; empty if it can."""
    resume, root = config.TRAIN.RESUME, config.DATA.DATA_PATH
    if labels is not None:
        moved = _moved(record.names, labels)
        return (
            f"{config.DATA.LABELS}: {moved!r} is another class in {resume}; a name may change, not move"
            if moved
            else ""
        )
    is_folder = config.DATA.DATASET == "folder"
    same = [sorted(names) == data if is_folder else names == data for names in record.vocabularies]
    if data is None or any(same):
        return ""
    return (
        f"{resume}: the classes of {root} are not those that it was trained on ({difference(record.names, data)}), so "
        "its head would learn another meaning; -data_path=FOLDER names its data, -o DATA.LABELS=FILE gives the same "
        "classes other names, and -pretrained starts a new run"
    )


def _list(words: Sequence[str]) -> str:
    return listed(words, SHOWN)
