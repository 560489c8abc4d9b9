"""The doctor's findings, as lines, as text for an issue and as JSON, without the user's private paths."""

import os
import pathlib
import re
import sys
import tempfile
from typing import Any, NamedTuple

from cait.errors import one_line

OK, DIFFERS, FAILED, MISSING = "ok", "differs", "failed", "not available"
ROOT = pathlib.Path(__file__).resolve().parents[3]
MARK = "<!-- written by doctor.py -->"
PUBLIC = ("/proc", "/sys", "/dev", "/usr", "/lib", "/lib64", "/bin", "/sbin", "/opt/nvidia")  # the same everywhere
_QUOTED = re.compile(r"""(['"`])(/[^'"`\n]+)\1""")  # may have blanks
_PATH = re.compile(r"(?<![\w.~/:…])(/[\w.+@%~-]+){2,}/?")


class Line(NamedTuple):
    """One thing that was checked.

    Attributes:
        check: which of the checks it belongs to.
        name: what was looked at.
        verdict: OK, DIFFERS (numbers are further off than allowed), FAILED (it did not work) or MISSING.
        detail: by how much, or why; one line.
        numbers: for JSON, such as the difference and what was allowed, or images a second by batch size.
    """

    check: str
    name: str
    verdict: str
    detail: str = ""
    numbers: dict[str, Any] = {}

    def text(self) -> str:
        """The line, as it is printed."""
        return f"{self.verdict:<13}  {self.check}: {self.name}{self.detail and f': {self.detail}'}"


def judged(check: str, name: str, difference: float, allowed: float, *, of: str = "", more: str = "") -> Line:
    """A line that is OK if a difference is finite and at most what is allowed.

    Args:
        of: what the difference is relative to.
        more: said after it.
    """
    verdict = OK if difference <= allowed else DIFFERS
    detail = f"differs by {difference:.1e}{of and f' of {of}'}, allowed are {allowed:.1e}{more and f'; {more}'}"
    return Line(check, name, verdict, detail, {"difference": difference, "allowed": allowed})


def public(text: str) -> str:
    """A text in which no path tells where the user keeps things.

    The project's folder is `.`, the home `~`; of any other path that is not the same on every machine the name is left.
    """
    places = [(str(pathlib.Path.home()), "~"), (str(ROOT), "."), (sys.prefix, "<python>"), (os.getcwd(), ".")]
    places += [(tempfile.gettempdir(), "<tmp>")]
    for place, name in sorted(places, key=lambda pair: -len(pair[0])):
        if len(place) > 1:
            text = re.sub(rf"{re.escape(place)}(?=$|[/\s:;,'\")\]])", name, text)
    text = _QUOTED.sub(lambda found: f"{found[1]}{_shortened(found[2])}{found[1]}", text)
    return _PATH.sub(lambda found: _shortened(found[0]), text)


def _shortened(path: str) -> str:
    if any(path == place or path.startswith(f"{place}/") for place in PUBLIC):
        return path
    return f"…/{pathlib.PurePosixPath(path).name}"


def public_values(value: Any) -> Any:
    """The same of every text within dicts, lists and tuples; a number that is not finite becomes None, as JSON has."""
    if isinstance(value, dict):
        return {name: public_values(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [public_values(entry) for entry in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return public(value) if isinstance(value, str) else value


def machine_text(machine: dict[str, dict[str, str]]) -> str:
    """The facts as a part of an issue report."""
    parts = [MARK, "### Machine and environment"]
    for section, facts in machine.items():
        lines = [f"- {name}: {one_line(value)}" for name, value in facts.items()]
        parts.append("\n".join([f"**{section}**", "", *lines]))
    return public("\n\n".join(parts))


def checks_text(lines: list[Line], command: str) -> str:
    """The lines of the checks as a part of an issue report."""
    counts = {verdict: sum(line.verdict == verdict for line in lines) for verdict in (OK, DIFFERS, FAILED, MISSING)}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    shown = "\n".join(one_line(line.text()) for line in lines)
    return public(f"### Checks\n\n`{command}`: {summary or 'nothing was checked'}\n\n```\n{shown}\n```")


def document(machine: dict[str, dict[str, str]], lines: list[Line], command: str) -> dict[str, Any]:
    """All of it, for JSON; `passed` says that nothing differs and nothing failed."""
    return public_values(
        {
            "command": command,
            "machine": machine,
            "passed": has_passed(lines),
            "checks": [line._asdict() for line in lines],
        }
    )


def has_passed(lines: list[Line]) -> bool:
    """Whether nothing differs and nothing failed; what is not available is no fault."""
    return all(line.verdict in (OK, MISSING) for line in lines)
