"""Bundles whose files are not what they were, with checksums that are right all the same."""

import functools
import hashlib
import json
import pathlib
import random
import tempfile


@functools.cache
def _bundle():
    """The files of a bundle of a tiny model, with its fused programs where the operators can be used."""
    from cait.align.golden import load_golden_weights
    from cait.config.read import make_config
    from cait.deploy.export import build_description, export
    from cait.weights.write import save_weights
    from cait.zoo import build_model
    from project import CLASS_NAMES, TINY

    config = make_config(dict(TINY))
    model = load_golden_weights(build_model(config))
    with tempfile.TemporaryDirectory() as folder:
        weights = pathlib.Path(folder, "tiny.pdparams")
        save_weights(model, weights)
        export(model, build_description(config, CLASS_NAMES, weights), pathlib.Path(folder, "bundle"))
        return {path.name: path.read_bytes() for path in sorted(pathlib.Path(folder, "bundle").iterdir())}


OTHER_NUMBERS = (0, -1, 3, 1 << 20, (1 << 31) - 1, -(1 << 31))


def _damaged(data, rng):
    """Ways to spoil a file of a program or of parameters."""
    yield "nothing", b""
    yield "cut", data[: len(data) // 2]
    yield "cut by one", data[:-1]
    yield "zeros", bytes(len(data))
    yield "noise", rng.randbytes(len(data))
    yield "text", b"hello"
    yield "twice", data + data


def _other_attributes(program):
    """The program of the fused operators with other attributes; only PaddlePaddle 3 writes it as JSON."""
    tree = json.loads(program)
    for operator in tree["program"]["regions"][0]["blocks"][0]["ops"]:
        for attribute in operator["A"] if "cait_" in operator["#"] else []:
            value = attribute["AT"]["D"]
            for other in OTHER_NUMBERS:
                attribute["AT"]["D"] = other
                yield f"{operator['#']} with {attribute['N']} {other}", json.dumps(tree).encode()
            attribute["AT"]["D"] = value


def _with_checksums(files):
    """The same with an inference.yaml that has the right checksums of all."""
    import yaml

    fields = yaml.safe_load(files["inference.yaml"])
    fields["files"] = {name: hashlib.sha256(files[name]).hexdigest() for name in fields["files"]}
    return files | {"inference.yaml": yaml.safe_dump(fields).encode()}


def bundles():
    """Bundles with one file that is spoiled, with its old checksum and with a new one."""
    whole, rng = _bundle(), random.Random(0)
    names = [name for name in whole if name != "inference.yaml"]
    for name in names:
        for how, data in _damaged(whole[name], rng):
            yield f"{name}: {how}", whole | {name: data}
            yield f"{name}: {how}, with its checksum", _with_checksums(whole | {name: data})
        yield f"no {name}", {other: data for other, data in whole.items() if other != name}
        for other in names:
            if other != name and other.rpartition(".")[2] == name.rpartition(".")[2]:
                yield f"{other} as {name}", _with_checksums(whole | {name: whole[other]})
    for name in names:
        if name.startswith("fused") and name.endswith(".json"):
            for how, data in _other_attributes(whole[name]):
                yield f"{name}: {how}", _with_checksums(whole | {name: data})


def run_bundle(folder):
    """As inference does with each of the programs, the self-test included."""
    from cait.deploy.engine import Engine
    from cait.deploy.predictor import Predictor

    Predictor(folder, Engine(fused=False))
    Predictor(folder, Engine())
