"""Inputs made to break the readers of foreign files end in an answer or a sentence, in bounded time and memory."""

import json

import pytest

import hostile
from project import ROOT, run_python

MOST_SECONDS, MOST_MEGABYTES = 20, 400  # a reader's bounds take a few seconds on a slow machine


@pytest.mark.slow
@pytest.mark.parametrize("family", hostile.FAMILIES)
def test_hostile_inputs_end_in_a_sentence(family):
    result = run_python(ROOT / "tests" / "helpers" / "hostile.py", family)
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr[-2000:]
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["name"] for line in lines] == [name for name, _ in hostile.FAMILIES[family].cases()]
    for line in lines:
        assert line["end"].isprintable() and len(line["end"]) < 1000, line
        assert line["seconds"] < MOST_SECONDS and line["megabytes"] < MOST_MEGABYTES, line


def test_no_two_cases_have_the_same_name():
    for name, family in hostile.FAMILIES.items():
        names = [case for case, _ in family.cases()]
        assert len(names) == len(set(names)), name
