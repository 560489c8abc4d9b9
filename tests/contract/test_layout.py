"""The order of the house: who may import whom, who sees the config, how files are written, how long things are."""

import ast
import shutil

import pytest

from project import ROOT

PACKAGE = ROOT / "CaiT" / "cait"
# A room is a package or a module beside them. What a room never imports; scripts may import everything.
NEVER = {
    "weights": {"train", "zoo", "config"},
    "data": {"train"},
    "deploy": {"train", "serve"},
    "serve": {"train", "weights"},
    "visualize": {"train"},
}
ON_TOP = {"bench": {"doctor"}, "doctor": set()}  # and by whom alone they are imported
SEES_CONFIG = {
    "align.ladder",
    "bench.step",
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
    "visualize.attention_models",
    "zoo",
}


def modules(package=PACKAGE):
    """Name and path of every module but those that begin a package."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[-1] not in ("__init__", "__main__"):
            yield ".".join(parts), path


def imported(path, package=PACKAGE):
    """The modules and packages below `cait` that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("cait."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cait":
            base = node.module.removeprefix("cait").removeprefix(".")
            for alias in node.names:
                place = package.joinpath(*base.split("."), alias.name) if base else package / alias.name
                is_module = place.is_dir() or place.with_suffix(".py").is_file()
                yield f"{base}.{alias.name}".lstrip(".") if is_module else base


def room(name):
    """The room of a module; what makes data sets is one beside what reads them."""
    return "data.prepare" if name.startswith("data.prepare") else name.split(".")[0]


def arrows(package=PACKAGE):
    """(module, imported module) for every import from one room into another."""
    found = {(name, other) for name, path in modules(package) for other in imported(path, package) if other}
    return {(name, other) for name, other in found if room(name) != room(other)}


def wrong_arrows(package=PACKAGE):
    """The imports that the order of the rooms does not allow, in words."""
    found = arrows(package)
    wrong = [f"{a} imports {b}" for a, b in found if room(b) in NEVER.get(room(a), ())]
    wrong += [f"{a} imports {b}" for a, b in found if room(b) in ON_TOP and room(a) not in ON_TOP[room(b)]]
    below = {}
    for a, b in found:
        below.setdefault(room(a), set()).add(room(b))
    while rooms := [name for name in below if not below[name] & below.keys()]:  # those that stand on rooms taken away
        for name in rooms:
            del below[name]
    return wrong + ([f"a circle of {', '.join(sorted(below))}"] if below else [])


def test_no_room_imports_what_it_must_not():
    assert not wrong_arrows()
    assert len({room(name) for name, _ in modules()}) < 30 and len({(room(a), room(b)) for a, b in arrows()}) < 150


@pytest.mark.parametrize(
    "place, line, words",
    [
        ("weights/find.py", "from cait.train.optim import adamw", "weights.find imports train.optim"),
        ("serve/batcher.py", "    from cait.weights import load", "serve.batcher imports weights.load"),
        ("data/loader.py", "import cait.train.ema", "data.loader imports train.ema"),
        ("deploy/bundle.py", "from cait import serve", "deploy.bundle imports serve"),
        ("files/digest.py", "from cait.bench.measure import tell", "files.digest imports bench.measure"),
        ("errors.py", "from cait.zoo import build_model", "a circle of "),
    ],
)
def test_a_planted_import_is_found(tmp_path, place, line, words):
    package = shutil.copytree(PACKAGE, tmp_path / "cait")
    text = (package / place).read_text()
    (package / place).write_text(f"{text}\n\nif True:\n    {line.strip()}\n")
    assert any(words in found for found in wrong_arrows(package))


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
            assert not {"model", "weights.load", "zoo", "config.read"} & set(imported(path)), name


def test_the_tests_mirror_the_packages():
    packages = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")} - {"."}
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders - {".", "contract"} == packages


def test_scripts_are_short():
    for path in (*ROOT.glob("CaiT/*.py"), *ROOT.glob("test_tipc/*.py")):
        assert len(path.read_text().splitlines()) <= 110, path.name


def test_modules_are_not_long():
    for name, path in modules():
        assert len(path.read_text().splitlines()) <= 350, name


def test_every_file_is_written_through_replacing():
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if name in ("files/__init__.py", "data/prepare/digits.py"):  # digits: into a folder that is renamed then
            continue
        source = path.read_text()
        assert ".write_text(" not in source.replace("files.write_text(", ""), name
        assert source.count("open(temporary") == source.count(', "w"'), name


def test_there_is_no_room_for_everything_else():
    assert not [name for name, _ in modules() if name.rsplit(".", 1)[-1] in ("utils", "misc", "helpers", "common")]
