"""The kinds of values that flags take, and that all flags and keys that name paths expand `~`."""

import argparse
import os
import pathlib
import runpy
import sys

import pytest

from cait import arguments, cli, config
from cait.config_kinds import TEXT
from cait.deploy.classify import find_images
from cait.errors import UsageError
from cait.files import user_cache, user_path
from conftest import ROOT
from harness import cli as harness_cli

SCRIPTS = sorted([*ROOT.glob("CaiT/*.py"), *ROOT.glob("test_tipc/*.py")])
# Flags and keys whose value is a word and no path. Whatever is not here has a kind of its own.
WORDS = {
    "--base-url", "--host", "--models", "--variant", "--variants", "-o", "mode", "benchmark", "--model-name",
    "--fp-item", "--device-num",
}  # fmt: skip
WORD_KEYS = {"AUG.AUTO_AUGMENT", "MODEL.NAME"}
PATHS = (arguments.path, arguments.text_path, arguments.results_file)


class _Seen(Exception):
    """Carries the parser that a script made."""


def parser_of(script, monkeypatch):
    """The parser of a script, or None where it reads no arguments."""
    source = script.read_text()
    if not any(word in source for word in ("ArgumentParser", "argv", "cli")):
        return None

    def parse_args(self, *_):
        raise _Seen(self)

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(sys, "argv", [str(script)])
        patch.syspath_prepend(script.parent)
        try:
            runpy.run_path(str(script), run_name="script")["main"]()
        except _Seen as seen:
            return seen.args[0]
    raise AssertionError(f"{script.name}: made no parser")


def options(parser):
    """Every argument of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options(command)
        else:
            yield action


@pytest.mark.any_paddle
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_option_that_may_be_a_path_expands_the_home_directory(script, monkeypatch, tmp_path):
    parser = parser_of(script, monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = list(options(parser)) if parser else []
    assert found or script.name == "demo.py"
    for action in found:
        names = action.option_strings or [action.dest]
        if action.nargs == 0 or action.choices or set(names) & {*WORDS, *cli.FLAGS, *cli.SWITCHES}:
            continue
        assert action.type not in (None, str, pathlib.Path), f"{script.name}: {names[0]} is a path, or one of WORDS"
        if action.type in PATHS:
            assert str(action.type("~/a.csv")) == f"{tmp_path}/a.csv"


@pytest.mark.any_paddle
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_flag_may_stand_twice_with_different_values(script, monkeypatch):
    """But for those that set keys of the config, where the last one wins."""
    parser = parser_of(script, monkeypatch)
    for action in options(parser) if parser else ():
        if not action.option_strings or action.nargs == 0 or isinstance(action, cli.KeyFlag):
            continue
        namespace = argparse.Namespace()
        for value in ("a", "a"):
            action(parser, namespace, value)
        assert getattr(namespace, action.dest) == "a"
        with pytest.raises(UsageError, match=f"{action.option_strings[0]}.*: stands twice, with different values"):
            action(parser, namespace, "b")
        action(parser, argparse.Namespace(), "b")  # of another command line


def test_every_key_that_may_be_a_path_expands_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert {key.name for key in config.KEYS if key.kind is TEXT} == WORD_KEYS
    paths = [key.name for key in config.KEYS if key.kind is config.PATH]
    assert "OUTPUT_DIR" in paths
    for name in paths:
        assert config.parse_override(name, "~/a", "-o") == f"{tmp_path}/a"
    flags = {flag: name for flag, name in cli.FLAGS.items() if name in paths}
    for flag, name in flags.items():
        section, _, key = name.rpartition(".")
        parsed = cli.parse_command([f"{flag}=~/a"])
        assert (parsed[section] if section else parsed)[key] == f"{tmp_path}/a"


def test_config_files_expand_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text("OUTPUT_DIR: ~/run\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.yaml").write_text("BASE: [~/base.yaml]\nDATA: {LABELS: ~/names}\n")
    parsed = cli.parse_command(["-cfg=~/elsewhere/mine.yaml"])
    assert (parsed.OUTPUT_DIR, parsed.DATA.LABELS) == (f"{tmp_path}/run", f"{tmp_path}/names")


def test_patterns_and_lists_of_images_expand_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.png").touch()
    (tmp_path / "list.txt").write_text("~/a.png\n")
    for words in ("~/*.png", "~", "~/list.txt", "~/a.png"):
        assert find_images(arguments.text_path(words)) == [f"{tmp_path}/a.png"]


def test_environment_variables_expand_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "~/cache")
    assert user_cache() == tmp_path / "cache" / "cait"
    monkeypatch.setenv("TIPC_OUTPUT", "~/certificate")
    monkeypatch.chdir(ROOT)
    outputs = []
    monkeypatch.setattr(harness_cli, "plan", lambda parameters, mode, output, benchmark: outputs.append(output))
    monkeypatch.setattr(harness_cli, "Runner", lambda output, log: argparse.Namespace(run=lambda steps: 0))
    file = ROOT / "test_tipc" / "configs" / "CaiT" / "train_infer_python.txt"
    harness_cli._run(argparse.Namespace(file=file, mode="whole_infer", benchmark=""))
    assert outputs[0].parent.parent == tmp_path / "certificate"


@pytest.mark.parametrize("path", ["", "a/~/b", "./~", "a~", "-", "https://host/~user"])
def test_other_paths_stay_as_they_are(path):
    assert user_path(path) == path


def test_a_home_of_another_user_and_those_that_are_not_there(monkeypatch, tmp_path):
    import pwd

    me = pwd.getpwuid(os.getuid())
    assert user_path(f"~{me.pw_name}/a") == f"{me.pw_dir.rstrip('/')}/a"
    with pytest.raises(UsageError, match=r"~no-one/a: there is no user 'no-one'; \./~no-one/a names a file"):
        user_path("~no-one/a")
    with pytest.raises(argparse.ArgumentTypeError, match="there is no user"):
        arguments.path("~no-one/a")
    with pytest.raises(UsageError, match=r"-o: OUTPUT_DIR: ~no-one/a: there is no user 'no-one'"):
        config.parse_override("OUTPUT_DIR", "~no-one/a", "-o")
    monkeypatch.setattr(os.path, "expanduser", lambda text: text)  # as where the user is in no list of users
    for home in ("", None):
        monkeypatch.setenv("HOME", home) if home is not None else monkeypatch.delenv("HOME")
        with pytest.raises(UsageError, match="~/a: this user has no home directory"):
            user_path("~/a")
