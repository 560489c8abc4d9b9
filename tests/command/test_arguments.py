"""The kinds of values that flags take, and that all flags and keys that name paths expand `~`."""

import argparse
import os
import pathlib
import re
import runpy
import sys

import pytest

from cait.command import arguments
from cait.config import flags, kinds, read
from cait.config.kinds import TEXT
from cait.deploy.classify import find_images
from cait.errors import UsageError
from cait.files import user_cache, user_path
from harness import cli as harness_cli
from project import ROOT, SCRIPTS

# Flags and keys whose value is a word and no path. Whatever is not here has a kind of its own.
WORDS = {
    "--base-url", "--host", "--models", "--variant", "--variants", "-o", "mode", "benchmark", "--model-name",
    "--fp-item", "--device-num",
}  # fmt: skip
WORD_KEYS = {"AUG.AUTO_AUGMENT", "MODEL.NAME"}
PATHS = (arguments.path, arguments.text_path)
# What names a folder for files whose names are not known before the work: they refuse what is there in their own ways.
FOLDERS = {"digits", "lists", "lite", "export_model.py", "visualize.py"}


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


def options(parser, of_command=None):
    """Every argument of a parser and of its commands, each with the name of the script or command."""
    of_command = of_command or pathlib.Path(parser.prog).name
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from options(command, name)
        else:
            action.of_command = of_command
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
        if action.nargs == 0 or action.choices or set(names) & {*WORDS, *flags.FLAGS, *flags.SWITCHES}:
            continue
        assert action.type not in (None, str, pathlib.Path), f"{script.name}: {names[0]} is a path, or one of WORDS"
        suffix = getattr(action.type, "suffixes", [""])[0]
        if action.type in PATHS or hasattr(action.type, "suffixes") or hasattr(action.type, "names"):
            assert str(action.type(f"~/a{suffix}")) == f"{tmp_path}/a{suffix}"


@pytest.mark.any_paddle
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_flag_may_stand_twice_with_different_values(script, monkeypatch):
    """But for those that set keys of the config, where the last one wins, and those that keep all their values."""
    parser = parser_of(script, monkeypatch)
    for action in options(parser) if parser else ():
        if (
            not action.option_strings
            or action.nargs == 0
            or isinstance(action, (flags.KeyFlag, argparse._AppendAction))
        ):
            continue
        namespace = argparse.Namespace()
        for value in ("a", "a"):
            action(parser, namespace, value)
        assert getattr(namespace, action.dest) == "a"
        with pytest.raises(UsageError, match=f"{action.option_strings[0]}.*: stands twice, with different values"):
            action(parser, namespace, "b")
        action(parser, argparse.Namespace(), "b")  # of another command line


@pytest.mark.any_paddle
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_option_that_names_what_is_written_refuses_files_of_the_users(script, monkeypatch, tmp_path):
    parser = parser_of(script, monkeypatch)
    for action in options(parser) if parser else ():
        words = action.option_strings or [action.dest]
        if action.nargs == 0 or not any(re.search("output|save|reprod_log", word) for word in words):
            continue
        if action.dest in flags.FLAGS:  # the folder of a run
            continue
        kind = action.type
        is_file, is_folder = hasattr(kind, "suffixes"), hasattr(kind, "names")
        assert is_file or is_folder or action.of_command in FOLDERS, f"{script.name}: {words}"
        if is_file:
            for name in ("photo.jpg", "notes.txt", "none"):
                with pytest.raises(argparse.ArgumentTypeError, match="must end in"):
                    kind(str(tmp_path / name))
        for name in [f"a{suffix}" for suffix in getattr(kind, "suffixes", ())] + list(getattr(kind, "names", ())):
            (tmp_path / name).write_bytes(b"\xff\xd8 a photo \0")
            with pytest.raises(argparse.ArgumentTypeError, match=f"{name}: is there and not .*, so it is not replaced"):
                kind(str(tmp_path / name if is_file else tmp_path))
            (tmp_path / name).unlink()


def test_every_key_that_may_be_a_path_expands_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert {key.name for key in read.KEYS if key.kind is TEXT} == WORD_KEYS
    paths = [key.name for key in read.KEYS if key.kind is kinds.PATH]
    assert "OUTPUT_DIR" in paths
    for name in paths:
        assert read.parse_override(name, "~/a", "-o") == f"{tmp_path}/a"
    known = {flag: name for flag, name in flags.FLAGS.items() if name in paths}
    for flag, name in known.items():
        section, _, key = name.rpartition(".")
        parsed = flags.parse_command([f"{flag}=~/a"])
        assert (parsed[section] if section else parsed)[key] == f"{tmp_path}/a"


def test_config_files_expand_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text("OUTPUT_DIR: ~/run\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.yaml").write_text("BASE: [~/base.yaml]\nDATA: {LABELS: ~/names}\n")
    parsed = flags.parse_command(["-cfg=~/elsewhere/mine.yaml"])
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
        read.parse_override("OUTPUT_DIR", "~no-one/a", "-o")
    monkeypatch.setattr(os.path, "expanduser", lambda text: text)  # as where the user is in no list of users
    for home in ("", None):
        monkeypatch.setenv("HOME", home) if home is not None else monkeypatch.delenv("HOME")
        with pytest.raises(UsageError, match="~/a: this user has no home directory"):
            user_path("~/a")
