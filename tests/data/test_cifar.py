"""CIFAR's archives are read as Paddle reads them, but as data."""

import io
import pickle
import struct
import tarfile

import numpy as np
import paddle
import pytest

import hostile
from cait.data import cifar
from cait.errors import CaitError

READERS = {"cifar10": paddle.vision.datasets.Cifar10, "cifar100": paddle.vision.datasets.Cifar100}
FILES = {"cifar10": ["data_batch_2", "data_batch_1", "test_batch", "readme.html"], "cifar100": ["train", "test"]}
KEYS = {"cifar10": "labels", "cifar100": "fine_labels"}


class _Python2(pickle._Pickler):
    """Writes bytes and text as Python 2 writes its strings, as in the published archives."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        self.write(b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value)))
        self.write(value)
        self.memoize(value)

    def save_str(self, value):
        self.save_bytes(value.encode("latin-1"))

    dispatch[bytes], dispatch[str] = save_bytes, save_str


def python_2(value):
    file = io.BytesIO()
    _Python2(file, 2).dump(value)
    return file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


WRITERS = {"python 2": python_2}
WRITERS |= {f"protocol {i}": lambda value, i=i: pickle.dumps(value, i) for i in range(2, pickle.HIGHEST_PROTOCOL + 1)}


def write_tar(path, contents, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"cifar-python/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_archive(folder, dataset, dumps, labels=list, order="C", mode="w:gz"):
    rng, contents = np.random.default_rng(0), {}
    for name in FILES[dataset]:
        pixels = np.asarray(rng.integers(0, 256, (5, 3072), dtype="uint8"), order=order)
        values = labels(rng.integers(0, cifar.CLASSES[dataset], 5))
        extra = {b"batch_label": b"one of \xe9", b"filenames": [f"{i}.png".encode() for i in range(5)]}
        contents[name] = dumps({b"data": pixels, KEYS[dataset].encode(): values, b"coarse_labels": [1] * 5, **extra})
    contents |= {"readme.html": b"<html>"} if dataset == "cifar10" else {}
    return write_tar(folder / cifar.ARCHIVES[dataset], contents, mode)


@pytest.mark.parametrize("dataset", READERS)
@pytest.mark.parametrize(
    "writer, options",
    [
        *((writer, {}) for writer in WRITERS),
        ("python 2", {"labels": lambda values: values.tolist()}),
        ("protocol 2", {"labels": lambda values: values.astype(">i4")}),
        ("protocol 5", {"labels": lambda values: values, "order": "F"}),
        ("python 2", {"order": "F", "mode": "w"}),
    ],
)
def test_images_and_labels_are_those_of_paddle(tmp_path, dataset, writer, options):
    archive = write_archive(tmp_path, dataset, WRITERS[writer], **options)
    for split in ("train", "test"):
        theirs = READERS[dataset](data_file=str(archive), mode=split, download=False, backend="pil")
        ours = cifar.read_cifar(archive, dataset, split)
        assert len(ours.names) == len(theirs) and ours.names[0] == f"{archive.name}:{split}/0"
        for index, (image, label) in enumerate(theirs[i] for i in range(len(theirs))):
            assert ours.labels[index] == label and type(ours.labels[index]) is int
            assert np.array_equal(ours.open(index), image)


@pytest.mark.parametrize("writer", WRITERS)
def test_class_names_are_text(tmp_path, writer):
    meta = WRITERS[writer]({"num_vis": 3072, "label_names": ["a plane", "caf\xe9"]})
    archive = write_tar(tmp_path / "a.tar.gz", {"batches.meta": meta, "readme.html": b""})
    assert cifar.cifar_class_names(archive, "cifar10") == ["a plane", "caf\xe9"]


def test_hostile_archives_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, files in hostile.archives():
        (tmp_path / "case.tar.gz").write_bytes(files["case.tar.gz"])
        with pytest.raises(CaitError, match=r"case\.tar\.gz: ") as caught:
            cifar.read_cifar(tmp_path / "case.tar.gz", "cifar10", "train")
        assert str(caught.value).isprintable() and len(str(caught.value)) < 500, name
        assert [path.name for path in tmp_path.iterdir()] == ["case.tar.gz"], name


def test_code_in_the_class_names_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive = write_tar(tmp_path / "a.tar.gz", {"batches.meta": hostile.RUNS_CODE})
    with pytest.raises(CaitError, match=r"no class names of cifar10 \(it asks for posix\.mkdir"):
        cifar.cifar_class_names(archive, "cifar10")
    assert not (tmp_path / "owned").exists()


def test_memory_for_a_text_that_is_named_often_is_bounded(tmp_path):
    """Each array of Python 2 is text that must be encoded; the memo names one text as often as a file likes."""
    import tracemalloc

    text = "x" * 3_000_000
    array = b"cnumpy.core.multiarray\n_reconstruct\n)R"
    state = b"(K\x01" + hostile.ops((1000, 3000)) + b"cnumpy\ndtype\n(U\x02u1tR\x89h\x63tb"
    pickled = b"\x80\x02](T" + struct.pack("<i", len(text)) + text.encode() + b"q\x63" + (array + state) * 200 + b"e."
    archive = write_tar(tmp_path / "a.tar.gz", {"data_batch_1": pickled})
    tracemalloc.start()
    with pytest.raises(CaitError, match="more text than the file has"):
        cifar.read_cifar(archive, "cifar10", "train")
    assert tracemalloc.get_traced_memory()[1] < 10 * len(text)
    tracemalloc.stop()
