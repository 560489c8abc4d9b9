"""An inference bundle: a static program, its parameters, and one file that says all that inference needs.

`inference.yaml` lies beside `inference.json` (PaddlePaddle 3) or `inference.pdmodel` (2.6) and `inference.pdiparams`;
`inference.onnx`, where it was asked for, is the same network for other runtimes. `fused_fp32.*` or `fused_bf16.*` is
the same for CPUs, of the operators in `cait.ops`; where these cannot be used, the plain program does. The file holds
the preprocessing, the labels, where the weights come from, and a self-test: a fixed input and its logits.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import gc
import hashlib
import os
import pathlib
from collections.abc import Collection, Iterable, Iterator

import numpy as np
import yaml

from cait.advice import without_bundle
from cait.command import stops
from cait.deploy.bundle_folder import DESCRIPTION, STEM, bundle_folder
from cait.deploy.bundle_schema import BEFORE, FORMAT, check, in_new_format
from cait.errors import CaitError, shown
from cait.files import check_readable, is_file, read_bytes, text_of, write_text
from cait.files.digest import sha256_of
from cait.files.yaml_file import check_size, parse

PROGRAM_SUFFIXES, PARAMETERS_SUFFIX = (".json", ".pdmodel"), ".pdiparams"
PARAMETERS = f"{STEM}{PARAMETERS_SUFFIX}"
PROGRAMS = tuple(f"{STEM}{suffix}" for suffix in PROGRAM_SUFFIXES)
ONNX = f"{STEM}.onnx"


@dataclasses.dataclass(frozen=True)
class Description:
    """What stands in `inference.yaml`; `cait.deploy.bundle_schema` says what each field may hold.

    Attributes:
        variant: name of the model.
        image_size: [height, width] of the input in pixels.
        crop_pct: see `EvalTransform`.
        interpolation: of the resizing; always bicubic.
        deep_grey: what becomes of grey pixels of more than 8 bits, "scale" or "clip"; see `in_mode`.
        patch_size: side of a patch in pixels.
        grid: [rows, columns] of patches, image_size / patch_size, and of the attention maps.
        heads: of the attention; None: not known, in a bundle of an earlier format.
        channels: 3 for RGB, 1 for grey.
        mean, std: of each channel, for pixels in 0-1; the input is (pixel / 255 - mean) / std, [B, channels, h, w].
        class_names: by class index.
        weights: SHA-256 of the weights file that was exported, or of its tensors.
        versions: of the software that exported it.
        precision: in which the bundle is meant to run, and was tried.
        outputs: of the program, in order: "logits" [B, classes]; "class_attention" [B, class-attention blocks, heads,
            1 + patches], each row of which sums to one and starts with the class token.
        files: SHA-256 of programs, parameters and ONNX file by file name.
        self_test_seed: the input of the self-test is `numpy.random.default_rng(seed).standard_normal`, float32.
        self_test_logits: what the model answers to it.
        format: version of this file's form.
    """

    variant: str
    image_size: list[int]
    crop_pct: float
    interpolation: str
    deep_grey: str
    patch_size: int
    grid: list[int]
    heads: int | None
    channels: int
    mean: list[float]
    std: list[float]
    class_names: list[str]
    weights: str
    versions: dict[str, str]
    precision: str
    outputs: list[str]
    files: dict[str, str]
    self_test_seed: int
    self_test_logits: list[float]
    format: int = FORMAT

    @property
    def program(self) -> str:
        """The name of the program's file.

        Raises:
            CaitError: the files are not one program and its parameters.
        """
        programs = [name for name in PROGRAMS if name in self.files]
        if len(programs) != 1 or PARAMETERS not in self.files:
            raise CaitError(f"{DESCRIPTION}: `files` must name one program and {PARAMETERS}; export the model anew")
        return programs[0]

    def fused_files(self, precision: str) -> tuple[str, str] | None:
        """The names of program and parameters of the fused program of a precision, if the bundle has one."""
        stem = fused_stem(precision)
        for program in (f"{stem}{suffix}" for suffix in PROGRAM_SUFFIXES):
            if program in self.files:
                return program, f"{stem}{PARAMETERS_SUFFIX}"
        return None

    def self_test_input(self) -> np.ndarray:
        """Normalised image [1, channels, height, width], float32."""
        rng = np.random.default_rng(self.self_test_seed)
        return rng.standard_normal((1, self.channels, *self.image_size)).astype("float32")


def fused_stem(precision: str) -> str:
    """Returns the name of the fused program's files for a precision, without suffix."""
    return f"fused_{precision}"


def find_program(folder: str | os.PathLike, stem: str = STEM) -> pathlib.Path:
    """A program of a bundle, in whichever format this PaddlePaddle or another one wrote it.

    Raises:
        CaitError: there is none.
    """
    names = [f"{stem}{suffix}" for suffix in PROGRAM_SUFFIXES]
    for name in names:
        if (pathlib.Path(folder) / name).is_file():
            return pathlib.Path(folder) / name
    raise CaitError(f"{folder}: holds no {' or '.join(names)}{without_bundle(folder)}")


def write_description(folder: pathlib.Path, description: Description) -> None:
    """Writes `inference.yaml`, whole or not at all."""
    text = yaml.safe_dump(dataclasses.asdict(description), sort_keys=False, allow_unicode=True, width=120)
    write_text(folder / DESCRIPTION, "# What inference with this bundle needs; written by export_model.py.\n" + text)


def digest_of_bundle(folder: str | os.PathLike) -> str:
    """The SHA-256 of a bundle's `inference.yaml`, which holds those of all its other files."""
    return sha256_of(bundle_folder(folder) / DESCRIPTION)


def read_description(folder: str | os.PathLike, trusted: Collection[str] = ()) -> Description:
    """Reads `inference.yaml` and verifies that program and parameters are those it was written for.

    Args:
        folder: of the bundle.
        trusted: what `digest_of_bundle` may be; none: anything.

    Raises:
        CaitError: a file is missing, malformed or not the one that was exported, or the bundle is another one than
            those that are trusted.
    """
    path = bundle_folder(folder) / DESCRIPTION
    if not is_file(path):
        raise CaitError(f"{folder}: holds no bundle ({DESCRIPTION} is missing){without_bundle(folder)}")
    try:
        check_size(path)
        data = read_bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        if trusted and digest not in trusted:
            raise CaitError(f"{path}: not the bundle of --trusted-digest, nothing of it was run (it has {digest})")
        content = parse(text_of(path, data))
        if not isinstance(content, dict):
            raise ValueError("it holds no keys and values")
        content = {"format": FORMAT} | content
        version = content["format"]
        if type(version) is int and version not in (BEFORE, FORMAT):
            words = f"format {shown(version)}, and this version reads {BEFORE} and {FORMAT}"
            raise CaitError(f"{path}: {words}; export the model anew")
        check(content)
    except CaitError:
        raise
    except ValueError as error:
        raise CaitError(f"{path}: not the description of a bundle ({error})") from error
    description = Description(**in_new_format(content))
    for name in (description.program, PARAMETERS):
        verify(folder, description, name)
    return description


@contextlib.contextmanager
def read_beside(
    folder: str | os.PathLike, precision: str | None, trusted: Collection[str] = ()
) -> Iterator[concurrent.futures.Future[Description]]:
    """Reads the bundle in a thread while the body imports Paddle; `result()` of what it yields is the description.

    The thread also computes the checksums of the fused program, during which the body can use the interpreter. Garbage
    collection is off while the body imports modules, and what it makes is never collected: looking through it takes a
    tenth of the time of an import.

    Args:
        folder: of the bundle.
        precision: of the fused program; None: that of the bundle.
        trusted: as for `read_description`.
    """

    def read() -> Description:
        description, found = read_description(folder, trusted), bundle_folder(folder)
        for name in description.fused_files(precision or description.precision) or ():
            if (found / name).is_file():
                _checksum(found / name)
        return description

    gc.disable()
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            with stops.held(*stops.STOPS):  # by the thread, as `cait.command.stops` tells
                future = pool.submit(read)
            yield future
    finally:
        gc.freeze()
        gc.enable()


def _checksum(file: pathlib.Path) -> str:
    return _checksum_of(file, _state(file))


def _state(file: pathlib.Path) -> tuple[int, ...]:
    """What differs once a file was written, exchanged or moved; nobody sets the last number at will."""
    status = file.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@functools.lru_cache(maxsize=16)
def _checksum_of(file: pathlib.Path, state: tuple[int, ...]) -> str:
    """The checksum of a file in this state: it is computed once."""
    return sha256_of(file)


def verify(folder: str | os.PathLike, description: Description, name: str) -> pathlib.Path:
    """The path of a file of the bundle, once its checksum is right.

    Raises:
        CaitError: it is missing or not the one that was exported.
    """
    file = bundle_folder(folder) / name
    if not is_file(file):
        raise CaitError(f"{file}: missing; the bundle is not whole, export the model anew")
    check_readable(file)
    if _checksum(file) != description.files.get(name):
        raise CaitError(f"{file}: not the file that was exported (its checksum differs); export the model anew")
    return file


@contextlib.contextmanager
def verified(folder: str | os.PathLike, description: Description, names: Iterable[str]) -> Iterator[None]:
    """Context in which files of the bundle may be loaded by name: their checksums are right, and still are afterwards.

    Raises:
        CaitError: one is missing, is not the one that was exported, or was exchanged while the body loaded it.
    """
    files = [verify(folder, description, name) for name in names]
    states = [_state(file) for file in files]
    yield
    for file, state in zip(files, states):
        if not is_file(file) or _state(file) != state:
            raise CaitError(f"{file}: was changed while it was loaded; start again")
