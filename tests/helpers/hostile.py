"""Inputs that are made to break the readers of foreign files, by family, for `tests/contract/test_hostile.py`.

A family gives named cases, each the files of one folder, and a function that reads such a folder as a command would.
Whatever a case holds, that must end in an answer or in one sentence (a CaitError), in little time and memory. To add a
family, write its cases and its reader and enter both in FAMILIES; large ones have modules of their own.

    python tests/helpers/hostile.py FAMILY    reads the cases of a family and prints a line of JSON for each
"""

import contextlib
import gzip
import hashlib
import io
import json
import pathlib
import pickle
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import hostile_images
import hostile_requests
from hostile_bundles import bundles, run_bundle

Files = dict[str, bytes]
NEEDED_BYTES = 64  # of a storage, in the checkpoints below


class Family(NamedTuple):
    """`cases` gives names and files, `read` gets a folder with the files of a case.

    Time is measured by `clock`: what other threads and processes do for the reader needs one that goes on meanwhile.
    `running` holds what the reader has started, to be ended after the last case.
    """

    cases: Callable[[], Iterator[tuple[str, Files]]]
    read: Callable[[pathlib.Path], None]
    clock: Callable[[], float] = time.process_time
    running: contextlib.ExitStack = contextlib.ExitStack()


def ops(value) -> bytes:
    """The instructions that put a plain value on the stack."""
    return pickle.dumps(value, protocol=2)[2:-1]


KEY, SIZE, ZERO = ops("0"), ops(NEEDED_BYTES // 4), ops(0)
SHAPE, STRIDE, NO_SHAPE = ops((4, 4)), ops((4, 1)), ops(())


def storage(kind: bytes = b"FloatStorage", key: bytes = KEY, size: bytes = SIZE) -> bytes:
    """The instructions for a reference to the storage of a tensor."""
    return b"(" + ops("storage") + b"ctorch\n" + kind + b"\n" + key + ops("cpu") + size + b"tQ"


def tensor(shape: bytes = SHAPE, stride: bytes = STRIDE, offset: bytes = ZERO, source: bytes | None = None) -> bytes:
    """The instructions for a tensor; each argument is instructions itself."""
    parts = (source or storage()) + offset + shape + stride
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + parts + b"tR"


def numpy_like(kind: bytes) -> bytes:
    """A tensor of one element: what looks like a number to numpy, and counts as it does."""
    return tensor(NO_SHAPE, NO_SHAPE, ZERO, storage(kind, ops("number"), ops(1)))


def torch_file(pickled: bytes, compress: int = zipfile.ZIP_STORED, **more: bytes) -> bytes:
    """A checkpoint's archive with a storage of NEEDED_BYTES, named 0, and one with a large number."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compress) as archive:
        archive.writestr("a/data.pkl", pickled)
        contents = {"data/0": bytes(NEEDED_BYTES), "data/number": struct.pack("<q", 1 << 62), **more}
        for name, content in contents.items():
            archive.writestr(f"a/{name}", content)
    return file.getvalue()


def state(*tensors: bytes, names: tuple[bytes, ...] = ()) -> bytes:
    """The pickle of a dict of tensors."""
    pairs = [(names[i] if i < len(names) else ops(f"t{i}")) + value for i, value in enumerate(tensors)]
    return b"\x80\x02}(" + b"".join(pairs) + b"u."


def overlapping(count: int, size: int) -> bytes:
    """An archive whose names all stand for the same bytes."""
    pickled = state(*(tensor(ops((size // 4,)), ops((1,)), source=storage(key=ops(str(i)))) for i in range(count)))
    parts = [torch_file(pickled, **{"data/0": bytes(size)})]
    with zipfile.ZipFile(io.BytesIO(parts[0])) as archive:
        first = archive.getinfo("a/data/0")
        entries = [(name, archive.getinfo(name)) for name in ("a/data.pkl", "a/data/0")]
        entries += [(f"a/data/{i}", first) for i in range(1, count)]
        content, directory = parts[0][: archive.start_dir], b""
    for name, info in entries:
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, info.CRC, info.compress_size, info.file_size,
            len(name), 0, 0, 0, 0, 0, info.header_offset,
        ) + name.encode()  # fmt: skip
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(entries), len(entries), len(directory), len(content), 0)
    return content + directory + end


def torch_pickles() -> Iterator[tuple[str, bytes]]:
    """Pickles for a checkpoint of PyTorch."""
    huge = ops(1 << 62)
    for name, bad in {
        "0-d array": numpy_like(b"LongStorage"), "bool": ops(True), "float": ops(4.0), "text": ops("4"),
        "none": ops(None), "negative": ops(-1), "64 bits": huge, "1000 bits": ops(1 << 1000), "list": ops([4]),
        "byte array": numpy_like(b"ByteStorage"), "bool array": numpy_like(b"BoolStorage"), "storage": storage(),
    }.items():  # fmt: skip
        yield f"size: {name}", state(tensor(b"(" + bad + ops(4) + b"t"))
        yield f"stride: {name}", state(tensor(stride=b"(" + ops(4) + bad + b"t"))
        yield f"offset: {name}", state(tensor(offset=bad))
        yield f"storage size: {name}", state(tensor(source=storage(size=bad)))
        yield f"storage key: {name}", state(tensor(source=storage(key=bad)))
    yield "shape is a tensor", state(tensor(shape=tensor()))
    yield "fewer strides than sizes", state(tensor(stride=ops((1,))))
    yield "100 dimensions", state(tensor(ops((1,) * 100), ops((1,) * 100)))
    yield "one element of a million places", state(tensor(ops((1000, 1000)), ops((0, 0))))
    yield "empty but huge", state(tensor(ops((0, 1 << 62)), ops((1, 1))))
    yield "tensor of a tensor", state(tensor(source=tensor()))
    yield "tensor of a tensor's end", state(tensor(ops((4,)), ops((4,)), ops(3), tensor()))
    yield "tensor of nothing", state(b"ctorch._utils\n_rebuild_tensor_v2\n)R")
    yield "parameter of text", state(b"ctorch._utils\n_rebuild_parameter\n(" + ops("x") + b"tR")
    yield "storage is called", state(b"ctorch\nFloatStorage\n)R")
    yield "one tensor a thousand times", state(*[tensor()] * 1000)
    yield "memo of 64 million places", b"\x80\x02Nr\xff\xff\xff\x03."
    yield "memo that is not there", b"\x80\x02h\x07."
    levels = 100_000
    nested = {"tuple": b")" + b"\x85" * levels, "list": b"(" * levels + b"l" * levels}
    nested["dict"] = b"(K\x01" * levels + b"(d" + b"d" * levels
    for kind, instructions in nested.items():
        yield f"{kind} of many levels", b"\x80\x02" + instructions + b"."
        yield f"{kind} of many levels as a key", b"\x80\x02}" + instructions + b"Ns."
    yield "list that holds itself", b"\x80\x02]q\x00h\x00a."
    yield "dict that holds itself", b"\x80\x02}q\x00(" + ops("model") + b"h\x00u."
    yield "tuple as a key", state(tensor(), names=(ops((1, 2)),))
    yield "tensor as a key", state(tensor(), names=(tensor(),))
    yield "key with an escape", state(tensor(), names=(ops("a\x1b[31m\nb"),))
    yield "key of a million letters", state(tensor(), names=(ops("a" * 1_000_000),))
    yield "text of 4 GB", b"\x80\x02X\xff\xff\xff\xff."
    yield "bytes of 16 EB", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f."
    yield "number of 2 GB", b"\x80\x02\x8b\xff\xff\xff\x7f."
    yield "a million numbers", b"\x80\x02(" + b"K\x00" * 1_200_000 + b"t."
    yield "code", b"\x80\x02cposix\nsystem\n(" + ops("touch owned") + b"tR."
    yield "a class's inside", b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}" + ops({"__code__": 1}) + b"b."
    yield "state of a tensor", b"\x80\x02" + tensor() + b"(K\x01)cnumpy\ndtype\nNNtb."
    yield "object by __new__", b"\x80\x02ccollections\nOrderedDict\n)\x81."
    settings = b"cargparse\nNamespace\n"
    yield "settings alone", b"\x80\x02" + settings + b")\x81."
    yield "settings as the weights", b"\x80\x02}" + ops("model") + settings + b")\x81s."
    yield "settings among the weights", state(tensor(), settings + b")\x81}" + ops("a") + ops(1) + b"sb")
    yield "settings as a key", state(tensor(), names=(settings + b")\x81",))
    yield "settings as a storage", state(tensor(source=settings + b")\x81"))
    yield "settings with arguments", b"\x80\x02" + settings + ops((1,)) + b"\x81."
    yield "settings of no class", b"\x80\x02" + ops("Namespace") + b")\x81."
    yield "settings by a call", b"\x80\x02" + settings + b")R."
    yield (
        "settings with a state that runs code",
        b"\x80\x02" + settings + b")\x81cposix\nmkdir\n" + ops("owned") + b"\x85Rb.",
    )
    yield "settings of many levels", b"\x80\x02" + (settings + b")\x81") + nested["tuple"] + b"b."
    yield "settings that hold themselves", b"\x80\x02" + settings + b")\x81q\x00}" + ops("a") + b"h\x00sb."
    yield "settings of settings", b"\x80\x02" + settings + b")\x81)\x81."
    yield "extension", b"\x80\x02\x82\x01."
    yield "persistent id of text", b"\x80\x02Pstorage\n."
    yield "no stop", b"\x80\x02}"
    yield "nothing", b""
    yield "marks alone", b"\x80\x02" + b"(" * 1000 + b"."
    yield "mark in a tuple", b"\x80\x02(\x85."
    yield "values without a key", b"\x80\x02}(K\x01u."


def checkpoints() -> Iterator[tuple[str, Files]]:
    """Files that end in .pth."""
    for name, pickled in torch_pickles():
        yield name, {"case.pth": torch_file(pickled)}
    good = state(tensor())
    yield "compressed", {"case.pth": torch_file(good, zipfile.ZIP_DEFLATED, **{"data/0": bytes(5_000_000)})}
    yield "overlapping storages", {"case.pth": overlapping(200, 1_000_000)}
    yield "empty archive", {"case.pth": b"PK\5\6" + bytes(18)}
    yield "two pickles", {"case.pth": torch_file(good, **{"b/data.pkl": good})}
    yield "directory of 4 GB", {"case.pth": b"PK\5\6" + bytes(6) + b"\xff" * 10 + bytes(2)}


def read_checkpoint(folder: pathlib.Path) -> None:
    """As conversion reads it."""
    from cait.weights.torch_file import read_torch_file

    read_torch_file(folder / "case.pth")


RUNS_CODE = b"\x80\x02}(U\x04datacposix\nmkdir\n(U\x05ownedtRu."


def cifar_array(
    shape: bytes = b"(K\x01M\x00\x0ct", dtype: bytes = b"U\x02u1", content: bytes = b"T\x00\x0c\0\0" + bytes(3072),
    function: bytes = b"cnumpy.core.multiarray\n_reconstruct\n", end: bytes = b"b",
) -> bytes:  # fmt: skip
    """The instructions for an array as in CIFAR's archives."""
    made = function + b"(cnumpy\nndarray\n(K\0tU\x01btR"
    return made + b"(K\x01" + shape + b"cnumpy\ndtype\n(" + dtype + b"K\0K\x01tR\x89" + content + b"t" + end


def cifar_batch(data: bytes | None = None, labels: bytes = b"](K\x01e") -> bytes:
    """The pickle of a batch of one image."""
    return b"\x80\x02}(U\x04data" + (data or cifar_array()) + b"U\x06labels" + labels + b"u."


def tar_header(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """The header of a file in a tar file; `size` are its 12 bytes."""
    block = (
        name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0") + b"0" * 11 + b"\0"
    )
    block += b" " * 8 + kind + bytes(100) + b"ustar\x0000" + bytes(247)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:512]


def tar_file(content: bytes, name: str = "cifar/data_batch_1") -> bytes:
    """A packed tar file with one file."""
    return gzip.compress(tar_header(name, b"%011o" % len(content)) + content + bytes(-len(content) % 512 + 1024))


def batches() -> Iterator[tuple[str, bytes]]:
    """Pickles in place of a batch of CIFAR."""
    yield "code", RUNS_CODE
    yield "code by another name", b"\x80\x04\x8c\x05posix\x8c\x05mkdir\x93\x8c\x05owned\x85R."
    yield "objects in an array", cifar_batch(cifar_array(dtype=b"U\x02O8"))
    yield "records in an array", cifar_batch(cifar_array(dtype=b"](U\x01aU\x02u1\x86e"))
    yield "text in an array", cifar_batch(cifar_array(dtype=b"U\x02S1"))
    yield "another type of numbers", cifar_batch(cifar_array(b"(K\x01M\x00\x03t", b"U\x02u4"))
    for name, shape in {
        "too large": ops((1 << 40, 3072)), "negative": ops((-1, 3072)), "product that wraps": ops((1 << 33, 1 << 33)),
        "flat": ops((3072,)), "nothing": ops(()), "list": ops([1, 3072]), "floats": ops((1.0, 3072.0)),
        "an array": cifar_array(), "hundred sizes": ops((1,) * 99 + (3072,)), "bool": ops((True, 3072)),
    }.items():  # fmt: skip
        yield f"shape: {name}", cifar_batch(cifar_array(shape))
    yield "array without bytes", cifar_batch(cifar_array(content=b"N"))
    yield "array of text outside Latin-1", cifar_batch(cifar_array(content=ops("\u20ac" * 3072)))
    yield "array that is never filled", cifar_batch(cifar_array(end=b"\x86"))
    yield "array that is filled twice", cifar_batch(cifar_array() + b"(K\x01)NNNtb")
    yield "array of another class", cifar_batch(cifar_array(function=b"cpandas\nDataFrame\n"))
    yield "no data", b"\x80\x02}U\x06labels](K\x01es."
    yield "no labels", b"\x80\x02}U\x04data" + cifar_array() + b"s."
    for name, labels in {
        "too few": b"]", "text": b"](U\x01ae", "negative": b"](J\xff\xff\xff\xffe", "too large": b"](K\x0ae",
        "bool": b"](\x88e", "none": b"N", "float": b"](G?\xf0\0\0\0\0\0\0e",
        "nested": b"](](K\x01ee", "array of images": cifar_array(), "huge": b"](" + ops(1 << 1000) + b"e",
    }.items():  # fmt: skip
        yield f"labels: {name}", cifar_batch(labels=labels)
    yield "a list", b"\x80\x02]."
    yield "no pickle", b"<html>"
    yield "empty", b""
    yield "deep", b"\x80\x02)" + b"\x85" * 100_000 + b"."
    yield "memo of 64 million places", b"\x80\x02Nr\xff\xff\xff\x03."


def archives() -> Iterator[tuple[str, Files]]:
    """Archives of CIFAR-10."""
    good = cifar_batch()
    found = {f"batch: {name}": tar_file(content) for name, content in batches()}
    found["no tar file"] = gzip.compress(b"hello" * 1000)
    found["no archive"] = b"<!DOCTYPE html>"
    found["empty"] = b""
    found["bad checksum of gzip"] = tar_file(good)[:-8] + bytes(8)
    found["cut"] = tar_file(good)[:-20]
    found["a gigabyte of zeros"] = gzip.compress(tar_header("data_batch_1", b"%011o" % (1 << 30))) + gzip.compress(
        bytes(20 << 20)
    )
    found["size of 8 GB"] = gzip.compress(tar_header("data_batch_1", b"77777777777") + bytes(1024))
    found["negative size"] = gzip.compress(tar_header("data_batch_1", b"\xff" * 11 + b"\0") + bytes(1024))
    found["size that is no number"] = gzip.compress(tar_header("data_batch_1", b"zzzzzzzzzzz") + bytes(1024))
    for name, kind in {"pax": b"x", "global pax": b"g", "long name": b"L", "long link": b"K"}.items():
        found[f"header of 200 MB: {name}"] = gzip.compress(
            tar_header("a", b"%011o" % (200 << 20), kind) + bytes(1 << 20)
        )
        many = tar_header("a", b"%011o" % 512, kind) + b"9 path=a\n".ljust(512, b"\0")
        found[f"header of many: {name}"] = gzip.compress(many * 1500 + bytes(1024))
    found["ten thousand files"] = gzip.compress(tar_header("a", b"0" * 11) * 10_000 + bytes(1024))
    found["link"] = gzip.compress(tar_header("data_batch_1", b"0" * 11, b"2") + bytes(1024))
    found["device"] = gzip.compress(tar_header("data_batch_1", b"0" * 11, b"3") + bytes(1024))
    found["no batch"] = tar_file(good, "cifar/other")
    return ((name, {"case.tar.gz": content}) for name, content in found.items())


def read_archive(folder: pathlib.Path) -> None:
    """As training reads it."""
    from cait.data.cifar import read_cifar

    read_cifar(folder / "case.tar.gz", "cifar10", "train")


def laughs(levels: int = 12, width: int = 9) -> str:
    """Aliases of aliases, which stand for `width` to the power `levels` values."""
    lines = ["l0: &l0 [lol]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


def yaml_texts() -> Iterator[tuple[str, str]]:
    """Texts in place of any YAML file."""
    yield "aliases that expand", laughs()
    yield "aliases that expand in a key of ours", laughs() + "MODEL: {DEPTH: *l11}\n"
    yield (
        "aliases that expand by merging",
        "a0: &a0 {k: 1}\n"
        + "".join(
            f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}, *a{i - 1}], k{i}: {{<<: [*a{i - 1}, *a{i - 1}]}}}}\n"
            for i in range(1, 25)
        ),
    )
    yield "an alias of itself", "MODEL: &a [*a]\n"
    yield "an alias of what it stands in", "MODEL: &a {DEPTH: {x: [*a]}}\n"
    yield "an alias of nothing", "MODEL: *a\n"
    for name, opening, closing in (("lists", "[", "]"), ("mappings", "{a: ", "}"), ("keys", "? [", "]")):
        yield f"deep {name}", "MODEL: " + opening * 50_000 + "1" + closing * 50_000
        yield f"deep {name} that do not end", "MODEL: " + opening * 50_000
    yield "deep block lists", "MODEL:\n  " + "- " * 5_000 + "1\n"
    yield "deep block mappings", "".join(" " * i + "a:\n" for i in range(1500))
    yield "a long value", "MODEL: {NAME: " + "x" * 3_000_000 + "}\n"
    yield "a long key", "x" * 3_000 + ": 1\n"
    yield "a long key in quotes", '"' + "x" * 900 + '": 1\n'
    yield "a large text", "#" * 5_000_000
    yield "many values", "MODEL: [" + "1," * 300_000 + "]\n"
    yield "many keys", "".join(f"k{i}: 1\n" for i in range(150_000))
    yield "a number of 10000 digits", "SEED: " + "9" * 10_000 + "\n"
    yield "a number of 40000 bits", "SEED: 0x" + "f" * 10_000 + "\n"
    yield "a number of base 60", "SEED: 1" + ":59" * 5_000 + "\n"
    yield "a number that is none", "SEED: 0b_\n"
    yield "a date of the 45th", "SEED: 2024-13-45\n"
    tags = "!!python/object/apply:os.system [touch owned]|!!binary aGk=|!!timestamp x|!!bool x|!!int ''|!!set {a, b}"
    for tag in f"{tags}|!!omap [a: 1]|!mine x|! x|!!float x|!!null x|!!str {{a: 1}}".split("|"):
        yield f"tag {tag}", f"MODEL: {{DEPTH: {tag}}}\n"
    yield "an unknown handle", "MODEL: !x!y 1\n"
    yield "a directive", "%YAML 9.9\n---\nSEED: 1x\n"
    yield "two documents", "SEED: 1\n---\nSEED: 2\n"
    yield "a key that is a list", "? [a, b]\n: 1\n"
    yield "a key that is a mapping", "? {a: b}\n: 1\n"
    yield "a key that is a number", "1: 2\n"
    yield "a key that is null", "~: 2\n"
    yield "a key twice", "SEED: 1\nSEED: 2\n"
    yield "a key that steers a terminal", '"\\e[31m\\nred": 1\n'
    yield "a value that steers a terminal", 'SEED: "\\e[31m\\nred"\n'
    yield "a control character", "SEED: \x07\n"
    yield "a merge of a number", "MODEL: {<<: 1}\n"
    yield "an equals sign", "SEED: =\n"
    yield "a list", "- 1\n"
    yield "text", "hello\n"
    yield "an open list", "SEED: [1,\n"
    yield "a tab", "MODEL:\n\tDEPTH: 1\n"


def configs() -> Iterator[tuple[str, Files]]:
    """Files for -cfg."""
    for name, text in yaml_texts():
        yield name, {"case.yaml": text.encode()}
    yield "no UTF-8", {"case.yaml": b"SEED: \xff\xfe\n"}
    yield "UTF-16", {"case.yaml": "SEED: x\n".encode("utf-16")}
    for key, value in (("NAME", "yes"), ("NAME", "2024-01-01"), ("NAME", "1.5"), ("NAME", "~"), ("DEPTH", "yes")):
        yield f"{key} is {value}", {"case.yaml": f"MODEL: {{{key}: {value}}}\n".encode()}
    files = {f"{i}.yaml": f"BASE: [{i + 1}.yaml, {i + 1}.yaml]\n".encode() for i in range(14)}
    yield "BASE files that include the next twice", files | {"14.yaml": b"SEED: x\n", "case.yaml": b"BASE: [0.yaml]\n"}
    chain = {f"{i}.yaml": f"BASE: [{i + 1}.yaml]\n".encode() for i in range(2000)}
    yield "BASE files in a chain", chain | {"case.yaml": b"BASE: [0.yaml]\n"}


def read_config(folder: pathlib.Path) -> None:
    """As -cfg does."""
    from cait.config.read import read_yaml

    read_yaml(folder / "case.yaml")


DESCRIPTION = {
    "variant": "x", "image_size": [8, 8], "crop_pct": 1.0, "interpolation": "bicubic", "deep_grey": "scale",
    "patch_size": 4, "grid": [2, 2], "heads": 2, "channels": 1, "mean": [0.5], "std": [0.5], "class_names": ["a", "b"],
    "weights": "0" * 64, "versions": {}, "precision": "fp32", "outputs": ["logits"], "files": {}, "self_test_seed": 0,
    "self_test_logits": [0.0, 1.0], "format": 3,
}  # fmt: skip
# JSON for YAML, field by field: what no description may hold.
BAD_FIELDS = {
    "variant": ["1", "true", "null", "[]", '"a\\nb"', '"\\u001b[31m"', f'"{"x" * 2000}"', "2024-01-01"],
    "image_size": ["8", "[8]", "[8, 8, 8]", "[8, -8]", "[8, 0]", "[8, 8.0]", "[8, true]", "[8, 100000]", '["8", "8"]'],
    "crop_pct": ["0", "-1", "2", ".nan", ".inf", '"1"', "true", "null", "1e-5"],
    "interpolation": ["nearest", "1", "null", "[bicubic]"],
    "patch_size": ["0", "-4", "3", "4.0", "true", "null", "16", "99999999999999999999"],
    "deep_grey": ["cut", "true", "null", "[scale]"],
    "grid": ["2", "[2]", "[2, 2, 2]", "[2, -2]", "[4, 1]", "[1, 2]", "[2.0, 2]", "[true, 2]", "null", "[100000, 2]"],
    "heads": ["0", "-1", "2.0", "true", "null", "[2]", "100000"],
    "channels": ["0", "2", "true", "4", "1.0", "null", "3"],
    "mean": ["0.5", "[]", "[0.5, 0.5]", "[.nan]", "[2]", "[x]", "[[0.5]]", "{a: 1}"],
    "std": ["[0]", "[-1]", "[.inf]", "[0.5, 0.5, 0.5]", "[null]", "null"],
    "class_names": ["[]", "a", "[a]", "[a, 1]", "[a, true]", "[a, null]", "[a, [b]]", "{a: b}",
                    '[a, "\\u001b[31m"]'],
    "weights": ['""', "other", "0", "null", f'"{"0" * 63}g"'],
    "versions": ["[]", "null", "{a: 1}", "{1: a}", "{a: [b]}"],
    "precision": ["int8", '"FP32"', "true", "null", "[fp32]", '"fp32; rm"'],
    "outputs": ["[]", "logits", "[class_attention]", "[logits, logits]", "[class_attention, logits]", "[logits, x]",
                "null"],
    "files": ["[]", "null", "{a: b}", "{../inference.json: x}", "{1: x}", "{inference.json: 1}",
              "{inference.json: [x]}", "{/etc/inference.json: x}", "{inference.pdiparams: x}"],
    "self_test_seed": ["-1", "1.0", "null", "true", "[1]", "99999999999999999999999", '"0"'],
    "self_test_logits": ["[]", "[0.0]", "[.inf, 0.0]", "[.nan, 0.0]", "[x, y]", "[true, false]", "0.0", "[0, 0, 0]",
                         "[-.inf, 1]"],
    "format": ["1", "2", "4", "true", "null", '"3"', "[3]", "3.0", "2.0"],
}  # fmt: skip


def descriptions() -> Iterator[tuple[str, Files]]:
    """Bundles whose inference.yaml is wrong."""
    programs = {"inference.json": b"{}", "inference.pdiparams": b""}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in programs.items()}
    fields = {name: json.dumps(value) for name, value in (DESCRIPTION | {"files": digests}).items()}

    def bundle(changed):
        return programs | {"inference.yaml": "".join(f"{name}: {text}\n" for name, text in changed.items()).encode()}

    for name, texts in BAD_FIELDS.items():
        for text in texts:
            yield f"{name}: {text[:40]}", bundle(fields | {name: text})
        if name != "format":
            yield f"no {name}", bundle({field: text for field, text in fields.items() if field != name})
    yield "another field", bundle(fields | {"extra": "1"})
    yield "a field twice", {**programs, "inference.yaml": bundle(fields)["inference.yaml"] + b"variant: y\n"}
    yield "no fields", {**programs, "inference.yaml": b""}
    for name, text in yaml_texts():
        yield f"yaml: {name}", {**programs, "inference.yaml": text.encode()}


def read_bundle(folder: pathlib.Path) -> None:
    """As inference does before it runs anything."""
    from cait.deploy.bundle import read_description

    read_description(folder)


def safetensors_file(header: bytes | dict, data: bytes = bytes(64), length: int | None = None) -> bytes:
    """A file with this header."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def safetensors() -> Iterator[tuple[str, Files]]:
    """Files that end in .safetensors."""
    good = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}
    found = {"nothing": b"", "a length alone": bytes(8), "cut": safetensors_file({"a": good})[:-1]}
    for length in (1, 1 << 20, 1 << 31, 1 << 40, (1 << 64) - 1):
        found[f"header of {length} bytes"] = safetensors_file({"a": good}, length=length)
    for kind in ("F8_E4M3", "F8_E5M2", "F4", "BF16", "C64", "F128", "f32", "", "x" * 10_000, "\x1b[31m"):
        found[f"type {kind[:10]!r}"] = safetensors_file({"a": good | {"dtype": kind}})
    for field, values in {
        "dtype": [None, 1, ["F32"], {}, True],
        "shape": [None, 4, [-4, -4], [4.0, 4], [True, 16], ["4", 4], [[4], 4], [1 << 62, 4], [1 << 63], [1 << 200],
                  [4, 5], [0, 4], [1] * 100, "44", {}],
        "data_offsets": [None, 0, [], [0], [0, 64, 64], [64, 0], [-64, 0], [0, 65], [0, 1 << 62], [1, 65], [0.0, 64],
                         [False, 64], ["0", "64"], [1 << 100, (1 << 100) + 64]],
    }.items():  # fmt: skip
        for value in values:
            found[f"{field}: {str(value)[:40]}"] = safetensors_file({"a": good | {field: value}})
        found[f"no {field}"] = safetensors_file({"a": {key: value for key, value in good.items() if key != field}})
    for name, entry in {"a number": 1, "null": None, "a list": [good], "text": "F32"}.items():
        found[f"tensor: {name}"] = safetensors_file({"a": entry})
    found["overlap"] = safetensors_file({"a": good, "b": good})
    found["partly overlap"] = safetensors_file({"a": good, "b": good | {"data_offsets": [32, 96]}}, bytes(96))
    found["a gap"] = safetensors_file({"a": good | {"data_offsets": [8, 72]}}, bytes(72))
    found["more data"] = safetensors_file({"a": good}, bytes(128))
    found["no tensors"] = safetensors_file({}, b"")
    once = json.dumps(good)
    found["a name twice"] = safetensors_file(f'{{"a": {once}, "a": {once}}}'.encode())
    found["a field twice"] = safetensors_file(f'{{"a": {once[:-1]}, "dtype": "F32"}}}}'.encode())
    found["deep"] = safetensors_file(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
    found["deep lists"] = safetensors_file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    found["a list"] = safetensors_file(b"[" + b"1," * 1000 + b"1]")
    found["no JSON"] = safetensors_file(b"{hello")
    found["no UTF-8"] = safetensors_file(b'{"\xff": 1}')
    found["a number of 10000 digits"] = safetensors_file(b'{"a": ' + b"9" * 10_000 + b"}")
    found["infinite"] = safetensors_file(b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, NaN]}}')
    found["a name with an escape"] = safetensors_file({"\x1b[31m\n": good})
    found["a name of a million letters"] = safetensors_file({"x" * 1_000_000: good})
    record = {"grid": [2, 2], "patch_size": 4, "heads": 2, "channels": 3}
    for text in ("", "x", "[]", "1", "null", '"a"', "{}", "[" * 100_000, '{"grid":' * 100_000, "9" * 10_000, "NaN"):
        found[f"record: {text[:20]}"] = safetensors_file({"a": good, "__metadata__": {"cait": text}})
    for field, values in {
        "grid": [None, 4, [4], [2, 2, 2], [2, -2], [2, 2.0], [True, 2], ["2", "2"], [1 << 62, 1 << 62], [[2], 2], {}],
        "patch_size": [None, 0, -1, 4.0, True, "4", [4], 1 << 200],
        "heads": [None, 0, 2.5, 1 << 62],
        "channels": [None, 0, True, 1 << 62, "\x1b[31m"],
        "mean": [1, "x" * 5000, [], [0.5], [0.5] * 4, [float("nan")] * 3, [float("inf")] * 3, [True] * 3, ["a"] * 3,
                 [10**400] * 3],
        "std": [{}, [None] * 3, [[0.5]] * 3],
    }.items():  # fmt: skip
        for value in values:
            text = json.dumps(record | {field: value})
            found[f"record: {field} {str(value)[:40]}"] = safetensors_file({"a": good, "__metadata__": {"cait": text}})
    for value in (1, [], {"cait": 1}, {"cait": {}}, {"cait": None}, "cait"):
        found[f"metadata: {value}"] = safetensors_file({"a": good, "__metadata__": value})
    found["a header of 17 MB"] = safetensors_file(b'{"a":' + b" " * (17 << 20) + once.encode() + b"}")
    return ((name, {"case.safetensors": content}) for name, content in found.items())


def read_weights(folder: pathlib.Path) -> None:
    """As conversion reads it."""
    from cait.weights.input_record import read_input
    from cait.weights.read import read_torch_layout

    read_input(folder / "case.safetensors", read_torch_layout(folder / "case.safetensors"))


FAMILIES = {
    "safetensors": Family(safetensors, read_weights),
    "checkpoints": Family(checkpoints, read_checkpoint),
    "archives": Family(archives, read_archive),
    "configs": Family(configs, read_config),
    "descriptions": Family(descriptions, read_bundle),
    "images": Family(hostile_images.cases, hostile_images.read, time.monotonic, hostile_images.RUNNING),
    "requests": Family(hostile_requests.cases, hostile_requests.read, time.monotonic, hostile_requests.RUNNING),
    "bundles": Family(bundles, run_bundle),
}


def trial(family: str) -> None:
    """Reads the cases of a family and prints for each what it ended in, the seconds, and the growth in megabytes."""
    import resource

    from cait.errors import CaitError

    cases, read, clock, running = FAMILIES[family]
    with running, contextlib.redirect_stdout(sys.stderr):
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(CaitError):
            read(pathlib.Path(folder))  # the imports, which are no case's
        for name, files in cases():
            with tempfile.TemporaryDirectory(prefix="cait-hostile-") as folder:
                for file, content in files.items():
                    path = pathlib.Path(folder, file)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                del files, content
                before, start, end = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, clock(), "an answer"
                try:
                    read(pathlib.Path(folder))
                except CaitError as error:
                    end = f"error: {error}"
                seconds = clock() - start
                grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
                line = {"name": name, "end": end, "seconds": seconds, "megabytes": grown}
                print(json.dumps(line), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "CaiT"))
    trial(sys.argv[1])
