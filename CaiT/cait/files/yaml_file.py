"""Reads YAML, whoever wrote it, within bounds: nothing in it is dropped, and what is wrong is named by its line.

All YAML of the project comes through here: configs, values on the command line, and the descriptions of bundles.
"""

import os
import pathlib
import re
from typing import Any

import yaml

from cait.errors import CaitError, UsageError, shown
from cait.files import is_file, read_text, user_path

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where there is one: a tenth of the time
MAX_BYTES = 4 << 20  # a bundle of 22,000 classes has a quarter of it
MAX_SLOW_BYTES = 1 << 20  # in Python, with seconds for each
_SURROGATES = re.compile(r"\\u[dD][89a-fA-F]")  # names that are not UTF-8 are saved so, and libyaml refuses it
MAX_NODES = 200_000  # with what aliases stand for
MAX_DEPTH = 32
MAX_FILES = 100
MAX_SCALAR = 16 << 10


class YamlError(ValueError):
    """Why a text is not read as YAML; the words go on after the name of its source."""


def parse(text: str) -> Any:
    """Parses a YAML text: None, bools, numbers, dates, text, lists and dicts.

    Raises:
        YamlError: it is no YAML, a key stands in it twice, it has tags such as `!!binary`, or it is larger or deeper
            than the bounds of this module, aliases counted as often as they are named.
    """
    kind = yaml.SafeLoader if _SURROGATES.search(text) else LOADER
    limit = MAX_BYTES if kind is LOADER else MAX_SLOW_BYTES
    if len(text) > limit:
        raise YamlError(f"more than {limit} bytes")
    try:
        _check_events(text, kind)
        loader = kind(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_nothing_twice(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        found = yaml.reader.Reader.NON_PRINTABLE.search(text)
        line = text.count("\n", 0, found.start() if found else 0) + 1
        raise YamlError(f"not valid YAML (line {line}: a character that is not allowed)") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}: {shown(error.problem or error.context, bare=True)})" if mark else ""
        raise YamlError(f"not valid YAML{where}") from error
    except YamlError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: such as a date of the 45th
        raise YamlError(f"not valid YAML ({shown(str(error), bare=True)})") from error


def check_size(path: str | os.PathLike) -> None:
    """Raises YamlError for a file that is too large, before it is read."""
    if os.path.getsize(path) > MAX_BYTES:
        raise YamlError(f"more than {MAX_BYTES} bytes")


def read_tree(path: str | os.PathLike) -> dict:
    """Reads a YAML file of keys and values.

    Raises:
        UsageError: the file is missing or cannot be read, it is not such a file, or `parse` refuses it.
    """
    try:
        if not is_file(path):
            raise UsageError(f"{path}: no such config file")
        check_size(path)
        tree = parse(read_text(path))
    except CaitError as error:
        raise UsageError(str(error)) from error
    except YamlError as error:
        raise UsageError(f"{path}: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: must hold keys and values")
    return tree


def read_with_bases(path: str | os.PathLike) -> list[tuple[pathlib.Path, dict]]:
    """Reads a YAML file after the files that its `BASE` names, and theirs; later values win.

    Raises:
        UsageError: as `read_tree`, or files include each other, or are more than MAX_FILES.
    """
    found: list[tuple[pathlib.Path, dict]] = []

    def read(file: pathlib.Path, around: tuple[pathlib.Path, ...]) -> None:
        if file.resolve() in around:
            raise UsageError(f"{file}: BASE files include each other")
        if len(around) + len(found) >= MAX_FILES:
            raise UsageError(f"{file}: more than {MAX_FILES} BASE files, each counted as often as it is named")
        tree = read_tree(file)
        bases = tree.pop("BASE", None) or []
        if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
            raise UsageError(f"{file}: BASE must be a list of file names")
        for base in filter(None, bases):
            read(file.parent / user_path(base), (*around, file.resolve()))
        found.append((file, tree))

    read(pathlib.Path(path), ())
    return found


def _check_events(text: str, loader: type) -> None:
    """Refuses what is beyond the bounds before anything is made of it."""
    tree = _Tree()
    for event in yaml.parse(text, loader):
        assert event.start_mark is not None
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            tree.alias(event, line)
        elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)):
            tree.node(event, line)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            tree.close()
        if len(tree.opened) > MAX_DEPTH:
            raise YamlError(f"line {line}: nested more than {MAX_DEPTH} deep")
        if tree.nodes > MAX_NODES:
            raise YamlError(f"line {line}: more than {MAX_NODES} values, with those that aliases stand for")


class _Tree:
    """How deep a document is nested, and how many values it has with all that its aliases stand for.

    Attributes:
        opened: the anchors of the lists and dicts around the current place, and the nodes before each.
        nodes: the values so far.
    """

    def __init__(self):
        self.opened: list[tuple[str | None, int]] = []
        self.nodes = 0
        self._sizes: dict[str | None, int] = {}  # nodes below an anchor

    def alias(self, event: yaml.AliasEvent, line: int) -> None:
        """Counts what an alias stands for; one without an anchor is refused by the loader."""
        if any(anchor == event.anchor for anchor, _ in self.opened):
            raise YamlError(f"line {line}: an alias of what it stands in")
        self.nodes += self._sizes.get(event.anchor, 1)

    def node(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, line: int) -> None:
        """Counts a value, or the beginning of a list or dict."""
        if event.tag is not None:
            raise YamlError(f"line {line}: tags such as {shown(event.tag)} are not read")
        if not isinstance(event, yaml.ScalarEvent):
            self.opened.append((event.anchor, self.nodes))
        elif len(event.value) > MAX_SCALAR:
            raise YamlError(f"line {line}: a value of more than {MAX_SCALAR} characters")
        elif event.anchor:
            self._sizes[event.anchor] = 1
        self.nodes += 1

    def close(self) -> None:
        """The list or dict that was opened last ends here."""
        anchor, before = self.opened.pop()
        if anchor:
            self._sizes[anchor] = self.nodes - before


def _check_nothing_twice(root: yaml.Node) -> None:
    """YAML keeps the last of two equal keys, and so would lose a whole section. `A: {B: 1}` and `A.B: 1` are equal."""
    lines: dict[str, int] = {}

    def visit(node: yaml.Node, prefix: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = f"{prefix}{key.value}", key.start_mark.line + 1
            if name in lines:
                raise YamlError(
                    f"{shown(name, bare=True)} stands twice, in lines {lines[name]} and {line}, and one of them would "
                    "be lost: leave one, with all that belongs to it"
                )
            lines[name] = line
            visit(value, f"{name}.")

    visit(root, "")
