"""YAML of users and of strangers is read within bounds, and what is wrong is told in one sentence."""

import time

import pytest
import yaml

import hostile
from cait.config.read import parse_override, read_yaml
from cait.errors import UsageError, shown
from cait.files import yaml_file

TEXTS = dict(hostile.yaml_texts())
SLOW_IN_PYTHON = ("many values", "many keys", "a long value")  # without libyaml: seconds


def test_what_is_read_is_what_yaml_says():
    text = "a: [1, 1.5, yes, ~, text, 'no', 2024-01-01]\nb: &b {c: 1, d: [*e, *e]}\n".replace("*e", "x")
    text += "merged: {<<: *b, f: *b}\nfolded: >\n  two\n  lines\n"
    assert yaml_file.parse(text) == yaml.safe_load(text)
    assert yaml_file.parse("") is None and yaml_file.parse("# nothing\n") is None


@pytest.mark.parametrize("loader", ["libyaml", "python"])
@pytest.mark.parametrize("name", TEXTS)
def test_hostile_configs_are_refused(tmp_path, monkeypatch, name, loader):
    if loader == "python":
        if name in SLOW_IN_PYTHON:
            pytest.skip("slow by its size alone")
        monkeypatch.setattr(yaml_file, "LOADER", yaml.SafeLoader)
    (tmp_path / "case.yaml").write_text(TEXTS[name])
    start = time.process_time()
    with pytest.raises(UsageError, match=r"case\.yaml: ") as caught:
        read_yaml(tmp_path / "case.yaml")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500
    assert time.process_time() - start < 10


def test_hostile_config_files_are_refused(tmp_path):
    for name, files in hostile.configs():
        if name in TEXTS:
            continue
        for file, content in files.items():
            (tmp_path / file).write_bytes(content)
        with pytest.raises(UsageError, match=r"\.yaml: ") as caught:
            read_yaml(tmp_path / "case.yaml")
        assert str(caught.value).isprintable() and len(str(caught.value)) < 500, name


def test_a_file_may_be_the_base_of_many(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.yaml").write_text(f"BASE: [{i + 1}.yaml, {i + 1}.yaml]\n")
    (tmp_path / "5.yaml").write_text("SEED: 3\n")
    assert read_yaml(tmp_path / "0.yaml") == {"SEED": 3}


@pytest.mark.parametrize("value", ["yes", "2024-01-01", "1.5", "12"])
def test_text_that_yaml_reads_as_something_else_is_to_be_quoted(tmp_path, value):
    (tmp_path / "a.yaml").write_text(f"MODEL: {{NAME: {value}}}\n")
    with pytest.raises(UsageError, match="MODEL.NAME must be text, not .*; put it in quotes"):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text(f"MODEL: {{NAME: '{value}'}}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"MODEL.NAME": value}


@pytest.mark.parametrize("text", ["[" * 5000, "!!timestamp x", hostile.laughs(), "0x" + "f" * 10_000])
def test_values_of_the_command_line_are_read_alike(text):
    with pytest.raises(UsageError, match="-o: SEED must be a whole number") as caught:
        parse_override("SEED", text, "-o")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with open(tmp_path / "a.yaml", "wb") as file:
        file.truncate(1 << 40)  # takes no room
    with pytest.raises(UsageError, match=r"a\.yaml: more than 4194304 bytes"):
        read_yaml(tmp_path / "a.yaml")


def test_what_is_shown_is_short_and_one_line():
    for value in (1 << 100_000, [1 << 100_000], [[[[[1]]]]] * 1000, "x" * 10_000, dict.fromkeys(range(1000)), "\x1b\n"):
        assert shown(value).isprintable() and len(shown(value)) < 300
    assert shown("a b", bare=True) == "a b" and shown("a b") == "'a b'" and shown("\n", bare=True) == r"'\n'"
