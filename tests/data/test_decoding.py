"""Image files of every format, and everything that a damaged one can raise, through everything that reads images."""

import ast
import contextlib
import functools
import io
import os
import pathlib
import struct
import sys
import types
import warnings
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from cait.align.live import LiveReference
from cait.data import decoding
from cait.data.check import check_data, look
from cait.data.dataset import ImageDataset
from cait.data.decoding import UnreadableImage, formats, has_image_suffix, identified, suffixes, unreadable
from cait.data.fast import FastTrainTransform
from cait.data.sources import FileSource
from cait.data.transforms import EvalTransform, TrainTransform
from cait.deploy.bundle import read_description
from cait.deploy.classify import Reader, classify
from cait.errors import CaitError
from cait.serve.decoder_process import ERROR, decode
from pictures import loader_of
from project import ROOT
from serving import DESCRIPTION

CASES = ROOT / "tests" / "images"
ERRORS = [
    RuntimeError("broken"), MemoryError(), TypeError("broken"), EOFError(), struct.error("broken"), zlib.error("x"),
    OSError("broken"), ValueError("broken"), SyntaxError("broken"), IndexError("broken"), KeyError("broken"),
    ZeroDivisionError("broken"), AttributeError("broken"), OverflowError("broken"), RecursionError("broken"),
    NotImplementedError(), AssertionError(), Image.DecompressionBombError("x"), UnicodeDecodeError("a", b"", 0, 1, ""),
]  # fmt: skip


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "train" / "one" / "photo.jpg"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(path)
    return str(path)


def training(path, transform=TrainTransform, **options):
    dataset = ImageDataset(FileSource([path], [0]), transform((8, 8)), 3, seed=0)
    loader = loader_of(dataset, 4, **{"skip_bad_images": True} | options)
    assert list(loader) == []
    return loader.errors


def strict_training(path):
    with pytest.raises(CaitError) as error:
        training(path, skip_bad_images=False)
    return [str(error.value)]


def inference(path, description):
    results = list(classify(None, Reader(description, True), [path], 4, 1))
    return [result.error for result in results]


def service(path):
    """What its processes do with an image, in this one; `test_decoders.py` has the processes."""
    read = Reader(DESCRIPTION, True, 100_000).pixels
    kind, sentence = decode(read, pathlib.Path(path).name, pathlib.Path(path).read_bytes(), False)
    assert kind == ERROR
    return [b"".join(sentence).decode()]


def raised(call):
    with pytest.raises(UnreadableImage) as error:
        call()
    return [str(error.value)]


def lines_of_check(path):
    said = []
    with pytest.raises(CaitError, match="1 of 1 images cannot be read"):
        check_data(pathlib.Path(path).parents[2], "folder", said.append)
    return [line for line in said if "the image cannot be read" in line]


def alignment(path):
    reference = LiveReference.__new__(LiveReference)
    reference.files = [path]
    return raised(reference._opened)


@pytest.fixture
def readers(tiny_bundle):
    """Everything that reads an image: (path) -> sentences on the unreadable ones."""
    description = read_description(tiny_bundle)
    return {
        "training": training,
        "training, error": strict_training,
        "evaluation": lambda path: training(path, EvalTransform),
        "inference, pictures, gate": lambda path: inference(path, description),
        "service": service,
        "alignment": alignment,
        "check": lines_of_check,
        "look before training": lambda path: look(FileSource([path], [0]), "RGB", 5).bad,
    }


def assert_named(readers, path, words="the image cannot be read ("):
    for reader, read in readers.items():
        (sentence,) = read(path)
        assert f"{pathlib.Path(path).name}: {words}" in sentence, reader


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_decoding_raises_is_an_unreadable_image(readers, photo, monkeypatch, error):
    def load(self):
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert_named(readers, photo, unreadable("", error).removeprefix(": "))


@pytest.mark.parametrize("name", ["damaged_avif.jpg", "tiff_type_error.jpg"])
def test_files_found_in_the_wild_are_unreadable_images(readers, tmp_path, name):
    path = tmp_path / "train" / "one" / name
    path.parent.mkdir(parents=True)
    path.write_bytes((CASES / name).read_bytes())
    assert_named(readers, str(path))


@pytest.mark.timeout(60)
def test_what_is_no_regular_file_is_never_waited_for(readers, tmp_path):
    folder = tmp_path / "train" / "one"
    folder.mkdir(parents=True)
    for name in ("pipe.jpg", "pipe"):
        os.mkfifo(folder / name)
    readers = {name: read for name, read in readers.items() if name != "service"}  # which gets bytes
    readers["fast reader"] = lambda path: training(path, FastTrainTransform)
    assert_named(readers, str(folder / "pipe.jpg"), "the image cannot be read (it is not a regular file)")
    assert not identified(str(folder / "pipe"))


def test_pillow_prints_no_warnings_that_name_no_file():
    path = str(CASES / "tiff_type_error.jpg")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert look(FileSource([path], [0]), "RGB", 5).bad and caught  # else this shows nothing
        caught.clear()
        formats.__wrapped__()
        assert look(FileSource([path], [0]), "RGB", 5).bad and not caught


def test_the_fast_reader_leaves_whatever_it_cannot_decode_to_pillow(photo, monkeypatch):
    simplejpeg = pytest.importorskip("simplejpeg")

    def decode(*_, **__):
        raise MemoryError

    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode)
    dataset = ImageDataset(FileSource([photo], [0]), FastTrainTransform((8, 8)), 3, seed=0)
    assert dataset[1, 0][0].shape == (8, 8, 3)
    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    assert "(there is not enough memory for it)" in dataset[1, 0][3]


@pytest.mark.parametrize("error", [RuntimeError("broken"), MemoryError(), IndexError("broken")], ids=repr)
def test_a_transform_that_breaks_on_an_image_costs_that_image(photo, error):
    def transform(image, rng):
        raise error

    sample = ImageDataset(FileSource([photo], [0]), transform, 3, seed=0)[1, 0]
    assert sample[0] is None and unreadable("photo.jpg", error) in sample[3]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_passes(photo, monkeypatch, stop):
    def load(self):
        raise stop

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(stop):
        ImageDataset(FileSource([photo], [0]), TrainTransform((8, 8)), 3, seed=0)[1, 0]


SAVED = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".jpe": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP",
    ".ppm": "PPM", ".pgm": "PPM", ".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF", ".avif": "AVIF", ".jp2": "JPEG2000",
    ".tga": "TGA",
}  # fmt: skip


@pytest.mark.parametrize("suffix", SAVED)
def test_every_format_on_the_list_is_found_and_read(readers, tmp_path, suffix):
    if SAVED[suffix] not in formats():
        pytest.skip(f"this Pillow has no {SAVED[suffix]}")
    path = tmp_path / f"image{suffix.upper()}"
    Image.new("L" if suffix == ".pgm" else "RGB", (40, 30), 77).save(path, SAVED[suffix])
    assert suffix in suffixes() and has_image_suffix(path.name)
    array, *_ = ImageDataset(FileSource([str(path)], [0]), EvalTransform((8, 8)), 3, seed=0)[1, 0]
    assert array.shape == (8, 8, 3) and np.abs(array.astype(int) - 77).max() < 80
    path.rename(tmp_path / "image")
    assert identified(str(tmp_path / "image")) == (suffix != ".tga")  # which has no signature


def test_heic_is_on_the_list_where_its_plugin_is_installed(monkeypatch):
    """A stand-in for pillow-heif."""

    def register_heif_opener():
        monkeypatch.setitem(Image.OPEN, "HEIF", Image.OPEN["PNG"])
        monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")

    plugin = types.SimpleNamespace(register_heif_opener=register_heif_opener)
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    monkeypatch.setattr(decoding, "formats", functools.cache(formats.__wrapped__))
    monkeypatch.setattr(decoding, "suffixes", functools.cache(suffixes.__wrapped__))
    assert "HEIF" in decoding.formats() and has_image_suffix("IMG_0001.HEIC")


def test_no_format_is_tried_that_starts_other_programs_or_holds_no_photographs():
    assert not {"EPS", "PDF", "WMF", "MPEG", "FITS", "GRIB", "HDF5", "PSD", "IPTC"} & set(formats())
    assert not {".eps", ".ps", ".pdf", ".wmf", ".mpg", ".h5", ".txt", ".npy", ""} & suffixes()
    encapsulated = io.BytesIO()
    Image.new("RGB", (8, 8)).save(encapsulated, "EPS")
    (sentence,) = raised(lambda: Reader(DESCRIPTION, True).read(encapsulated, "drawing.jpg"))
    assert sentence == "drawing.jpg: the image cannot be read (cannot identify image file)"


def test_an_unreadable_image_says_why_in_a_line():
    assert unreadable("a.jpg", PermissionError(13, "Permission denied", "a.jpg")).endswith("(Permission denied)")
    assert unreadable("a.jpg", FileNotFoundError(2, "x")).endswith("(no such file)")
    assert unreadable("a.jpg", RuntimeError("one\ntwo")).endswith("(RuntimeError: one)")
    assert unreadable("a.jpg", MemoryError()).endswith("(there is not enough memory for it)")


@pytest.mark.any_paddle
@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"])
def test_no_library_writes_of_damage_by_itself(compression, capfd):
    """libtiff writes a line for each damaged row or strip, straight to standard error."""
    mode = "1" if compression.startswith("group") else "L"
    file, rng = io.BytesIO(), np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 2, (400, 64), "uint8") * 255).convert(mode).save(
        file, "TIFF", compression=compression
    )
    with Image.open(file) as image:
        start, size = image.tag_v2[273][0], image.tag_v2[279][0]
    for seed in range(5):
        data = bytearray(file.getvalue())
        data[start : start + size] = np.random.default_rng(seed).bytes(size)
        with (
            contextlib.suppress(UnreadableImage),
            decoding.reading("x"),
            decoding.open_image(io.BytesIO(data)) as image,
        ):
            image.load()
    assert capfd.readouterr().err == ""


def test_a_drawing_named_as_a_photo_starts_no_other_program(readers, photo, tmp_path, monkeypatch):
    mark, program = tmp_path / "started", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it remembers
    Image.new("RGB", (8, 8)).save(photo, "EPS")
    assert_named(readers, photo, "the image cannot be read (cannot identify image file)")
    assert not mark.exists()
    with contextlib.suppress(OSError), Image.open(photo) as image:
        image.load()
    assert mark.exists()  # else this shows nothing


def opens_images(path):
    """The calls in a file that open images by themselves."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            words = ast.unparse(node)
            if words in ("Image.open", "ImageFile.Parser") or words.endswith((".image_load", ".imread")):
                yield words
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from (name for name in names if name.split(".")[0] in ("cv2", "imageio", "skimage"))
            yield from ("PIL.Image.open" for name in names if name == "open" and names[-1].startswith("PIL"))


def test_images_are_opened_in_one_place():
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("CaiT", "test_tipc")
        for path in (ROOT / folder).rglob("*.py")
        if list(opens_images(path))
    }
    own_photos_for_others = "CaiT/cait/bench/input.py"
    assert found == {"CaiT/cait/data/decoding.py", own_photos_for_others}
