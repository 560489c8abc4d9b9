"""The order of the house: who may import whom, who sees the config, and how long things are."""

import ast

import pytest

from conftest import ROOT

PACKAGE = ROOT / "CaiT" / "cait"
# From the bottom up: a module imports only from groups below its own.
LAYERS = [
    {"lines"},
    {
        "errors",
        "digest",
        "device",
        "guard",
        "ownership",
        "ema",
        "plain_pickle",
        "processor",
        "requirement",
        "stops",
        "streams",
        "variants",
        "watchdog_process",
        "deploy.batcher",
    },
    {"command", "outputs", "temporary", "watchdog"},
    {
        "files",
        "next_step",
        "dist",
        "processes",
        "run_lock",
        "deploy",
        "deploy.engine_kind",
        "deploy.server_connections",
        "deploy.server_schema",
        "deploy.uploads",
        "precision",
        "ops",
        "bench",
        "bench.machine",
        "data.shared_memory",
        "bench.measure",
        "doctor",
        "doctor.report",
        "doctor.settings",
    },
    {
        "arguments",
        "compiled",
        "deploy.server_protocol",
        "config_kinds",
        "figure",
        "checkpoint_record",
        "safetensors_file",
        "state_dict",
        "yaml_file",
        "visualize",
        "ops.pack",
        "bench.photos",
        "position_embedding",
    },
    {
        "checkpoint_files",
        "config",
        "confusion",
        "log",
        "metrics",
        "results",
        "model",
        "losses",
        "torch_file",
        "data",
        "ops.library",
        "bench.report",
    },
    {
        "convert",
        "deploy.bundle_folder",
        "deploy.fused",
        "download",
        "input_record",
        "ops.build",
        "optim",
        "watch",
        "visualize.maps",
        "data.pixels",
    },
    {
        "cli",
        "checkpoint",
        "saved_config",
        "deploy.bundle_schema",
        "data.labels",
        "data.augment",
        "data.sampler",
        "data.transforms",
        "data.decoding",
        "data.digits",
        "visualize.draw",
    },
    {"zoo", "data.fast", "data.image_files", "data.list_files", "data.normalize", "deploy.pixel_reader"},
    {"data.imagenet_lists", "deploy.decoder_process"},
    {"data.dataset", "deploy.decoder"},
    {"data.cifar"},
    {"class_names", "data.check", "data.loader", "data.lite", "data.mixup", "stand_in"},
    {"data.build", "deploy.decoders", "engine", "exchange"},
    {"align", "evaluation", "start", "deploy.bundle"},
    {"align_golden", "deploy.inference_engine", "deploy.onnx_file", "deploy.service_metrics"},
    {"align_live", "deploy.predictor", "resume", "teacher"},
    {"training", "deploy.autolog", "deploy.export", "bench.engine", "bench.exported", "bench.step"},
    {"jobs", "deploy.classify", "visualize.sources", "bench.input", "bench.memory", "bench.startup", "bench.train"},
    {"align_deploy", "align_run", "deploy.samples", "deploy.service", "visualize.job", "bench.engine_process"},
    {"bench.model", "deploy.server_gate", "deploy.server_log", "doctor.machine", "doctor.numerics", "doctor.peers"},
    {"deploy.server", "deploy.server_run", "doctor.deployment", "doctor.tipc"},
    {"doctor.throughput"},
    {"doctor.checks"},
]
SEES_CONFIG = {
    "align",
    "class_names",
    "cli",
    "config",
    "jobs",
    "resume",
    "saved_config",
    "start",
    "training",
    "visualize.sources",
    "zoo",
    "data.build",
    "bench.step",
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
def test_imports_point_down(name, path):
    level = {module: number for number, layer in enumerate(LAYERS) for module in layer}
    assert name in level, f"give {name} a place in LAYERS"
    for other in imported(path):
        assert level[other] < level[name], f"{name} imports {other}"


@pytest.mark.parametrize("name, path", list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_only_builders_see_the_config(name, path):
    if name in SEES_CONFIG:
        return
    assert "config" not in imported(path)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and "config" in [argument.arg for argument in node.args.args]:
            assert node.name.startswith("build_"), f"{name}.{node.name}"


def test_inference_never_needs_the_model():
    for name, path in modules():
        if name.startswith("deploy.") and name not in ("deploy.export", "deploy.fused"):
            assert not {"model", "checkpoint", "zoo", "engine", "config"} & set(imported(path)), name


def test_scripts_are_short():
    for path in (*ROOT.glob("CaiT/*.py"), *ROOT.glob("test_tipc/*.py")):
        assert len(path.read_text().splitlines()) < 85, path.name


def test_modules_are_not_long():
    for name, path in modules():
        assert len(path.read_text().splitlines()) <= 350, name


def test_every_file_is_written_through_replacing():
    for name, path in modules():
        if name in ("files", "data.digits"):  # the digits go to a temporary folder, which is then renamed
            continue
        source = path.read_text()
        assert ".write_text(" not in source.replace("files.write_text(", ""), name
        assert source.count("open(temporary") == source.count(', "w"'), name


def test_there_is_no_room_for_everything_else():
    assert not [name for name, _ in modules() if name.rsplit(".", 1)[-1] in ("utils", "misc", "helpers", "common")]
