"""Reads the YAML files that users write: nothing in them is dropped, and what is wrong is named by its line."""

import os

import yaml

from cait.errors import CaitError, UsageError
from cait.files import is_file, read_text


def read_tree(path: str | os.PathLike) -> dict:
    """What a YAML file of keys and values holds.

    Raises:
        UsageError: the file is missing or cannot be read, it is not such a file, or a key stands in it twice.
    """
    try:
        if not is_file(path):
            raise UsageError(f"{path}: no such config file")
        text = read_text(path)
    except CaitError as error:
        raise UsageError(str(error)) from error
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{path}: must hold keys and values")
        _check_nothing_twice(node, path)
        return loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UsageError(f"{path}: not valid YAML (line {line}: a character that is not allowed)") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}: {error.problem or error.context})" if mark else ""
        raise UsageError(f"{path}: not valid YAML{where}") from error
    except CaitError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: such as a date of the 45th
        raise UsageError(f"{path}: not valid YAML ({error})") from error


def _check_nothing_twice(root: yaml.MappingNode, path: str | os.PathLike) -> None:
    """YAML keeps the last of two equal keys, and so would lose a whole section. `A: {B: 1}` and `A.B: 1` are equal."""
    lines: dict[str, int] = {}

    def visit(node: yaml.Node, prefix: str, outer: tuple[yaml.Node, ...]) -> None:
        if not isinstance(node, yaml.MappingNode) or node in outer:  # an alias may name what it stands in
            return
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = f"{prefix}{key.value}", key.start_mark.line + 1
            if name in lines:
                raise UsageError(
                    f"{path}: {name} stands twice, in lines {lines[name]} and {line}, and one of them would be lost: "
                    "leave one, with all that belongs to it"
                )
            lines[name] = line
            visit(value, f"{name}.", (*outer, node))

    visit(root, "", ())
