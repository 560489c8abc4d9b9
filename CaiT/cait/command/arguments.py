"""The parser and the kinds of values that the flags of all commands share."""

import argparse
import pathlib
import re
from collections.abc import Callable
from typing import Any

from cait.command.outputs import check_output, check_outputs
from cait.errors import CaitError, UsageError
from cait.files import user_path
from cait.machine.processor import usable_cores


class _StoreOnce(argparse.Action):
    """Stores the value of a flag; another value of the same flag later on the command line would be lost otherwise."""

    _stored: tuple[argparse.Namespace, object] | None = None

    def __call__(self, parser, namespace, values, option_string=None):
        if self._stored is not None and self._stored[0] is namespace and self._stored[1] != values:
            parser.error(f"argument {'/'.join(self.option_strings)}: stands twice, with different values")
        self._stored = namespace, values
        setattr(namespace, self.dest, values)


class ArgumentParser(argparse.ArgumentParser):
    """argparse whose complaints are usage errors. It shows a description as it stands, and takes no shortened flags.

    A flag with a value may stand only once, unless it has an action of its own, as those that set keys of the config.
    """

    def __init__(self, **settings):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)
        for name in (None, "store"):
            self.register("action", name, _StoreOnce)

    def error(self, message):
        raise UsageError(f"{message}; -h lists the flags")


def boolean(text: str) -> bool:
    """An argument that is True or False."""
    words = {"true": True, "false": False, "1": True, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text!r} must be True or False")
    return words[text.lower()]


ON: dict[str, Any] = {
    "type": boolean,
    "nargs": "?",
    "const": True,
}  # for `add_argument`: a flag that may stand without a value


def positive(text: str) -> int:
    """An argument that is a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)


def from_zero(text: str) -> int:
    """An argument that is a whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 0")
    return int(text)


def text_path(text: str) -> str:
    """An argument that is a path or a pattern, as it was written but for a `~`."""
    try:
        return user_path(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def path(text: str) -> pathlib.Path:
    """An argument that is a path."""
    return pathlib.Path(text_path(text))


def output_file(*suffixes: str) -> Callable[[str], pathlib.Path]:
    """The kind of an argument that names a file to write; see `cait.command.outputs.check_output`."""
    kind = _checked(lambda file: check_output(file, *suffixes))
    kind.suffixes = suffixes  # type: ignore[attr-defined]
    return kind


def output_folder(*names: str) -> Callable[[str], pathlib.Path]:
    """The kind of an argument that names a folder in which files of these names are written."""
    kind = _checked(lambda folder: check_outputs(folder, *names))
    kind.names = names  # type: ignore[attr-defined]
    return kind


def _checked(check: Callable[[str], pathlib.Path]) -> Callable[[str], pathlib.Path]:
    def parse(text: str) -> pathlib.Path:
        try:
            return check(user_path(text))
        except CaitError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


def port(text: str) -> int:
    """An argument that is a port of TCP; 0 is any free one."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} must be a port from 0 to 65535")
    return int(text)


def seconds(text: str) -> float:
    """An argument that is a time from 0 to an hour."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} must be seconds, from 0 to 3600")
    return value


def above_zero(text: str) -> float:
    """An argument that is a time of more than 0 seconds, up to an hour."""
    if not (value := seconds(text)):
        raise argparse.ArgumentTypeError(f"{text!r} must be more than 0 seconds")
    return value


def host(text: str) -> str:
    """An argument that is the name or the address of a machine, without a port; `*` is any."""
    if not re.fullmatch(r"\*|[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|[0-9A-Fa-f:.]{2,45}", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a name or an address without a port, or *")
    return text


def token(text: str) -> str:
    """An argument that is a secret word, fit to stand in a header of HTTP."""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError("must be printable ASCII without blanks, and not empty")
    return text


def sha256(text: str) -> str:
    """An argument that is a SHA-256, in lower case."""
    digits = text.strip().lower()
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a SHA-256, 64 hexadecimal digits")
    return digits


def add_trust_flag(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that says which bundles may be run, as a list; one that is empty allows all."""
    text = "run no other bundle than that of this digest (or these), which export_model.py prints: a bundle is code"
    parser.add_argument("--trusted-digest", type=sha256, nargs="+", default=[], metavar="SHA256", help=text)


def add_bundle_flags(parser: argparse.ArgumentParser, bundle: pathlib.Path) -> None:
    """Adds the flags that say which bundle is run and how.

    Args:
        bundle: the folder that is meant without `--model_dir`.
    """
    parser.add_argument("--model_dir", "--model-dir", type=path, default=bundle)
    add_trust_flag(parser)
    parser.add_argument("--use-gpu", "--use_gpu", default=None, help="compute on a GPU; default: if there is one", **ON)
    parser.add_argument("--cpu_threads", type=positive, default=usable_cores())
    parser.add_argument(
        "--no-fused-ops", action="store_true", help="run the plain program, not the fused one, on a CPU"
    )
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), help="default: that of the bundle")
    parser.add_argument("--exif", default=True, help="rotate images as their EXIF orientation says", **ON)
