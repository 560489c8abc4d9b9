"""The order of the house: who sees the config, and how long things are."""

import ast

import pytest

from project import ROOT

PACKAGE = ROOT / "CaiT" / "cait"
SEES_CONFIG = {
    "align.ladder",
    "bench.step",
    "config.__main__",
    "config.flags",
    "config.read",
    "config.saved",
    "data.build",
    "data.class_names",
    "train.jobs",
    "train.resume",
    "train.job_folder",
    "train.recipe",
    "train.run",
    "train.training",
    "visualize.sources",
    "zoo",
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            yield name, path


def imported(path):
    """The modules of the package that a file imports."""
    known = {name for name, _ in modules()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cait":
            base = node.module.removeprefix("cait").removeprefix(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                yield full if full in known else base


@pytest.mark.parametrize("name, path", list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_only_builders_see_the_config(name, path):
    if name in SEES_CONFIG:
        return
    assert "config.read" not in imported(path)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and "config" in [argument.arg for argument in node.args.args]:
            assert node.name.startswith("build_"), f"{name}.{node.name}"


def test_inference_never_needs_the_model():
    for name, path in modules():
        if name.startswith(("deploy.", "serve.")) and name not in ("deploy.export", "deploy.fused"):
            assert not {"model", "weights.load", "zoo", "train.loop", "config.read"} & set(imported(path)), name


def test_scripts_are_short():
    for path in (*ROOT.glob("CaiT/*.py"), *ROOT.glob("test_tipc/*.py")):
        assert len(path.read_text().splitlines()) < 95, path.name


def test_modules_are_not_long():
    for name, path in modules():
        assert len(path.read_text().splitlines()) <= 350, name


def test_every_file_is_written_through_replacing():
    for name, path in modules():
        if name in ("files", "data.prepare.digits"):  # the digits go to a temporary folder, which is then renamed
            continue
        source = path.read_text()
        assert ".write_text(" not in source.replace("files.write_text(", ""), name
        assert source.count("open(temporary") == source.count(', "w"'), name


def test_there_is_no_room_for_everything_else():
    assert not [name for name, _ in modules() if name.rsplit(".", 1)[-1] in ("utils", "misc", "helpers", "common")]
