"""Pillow's bicubic resizing and affine transforms, bit for bit, by loops that are compiled on the user's machine.

They need g++ and a processor with AVX2. Where these are missing, or the loops do not give the pixels of the Pillow
that is installed, Pillow itself does the work.
"""

import ctypes
import dataclasses
import functools
import math
import pathlib

import numpy as np
from PIL import Image

from cait.machine.compiled import CannotBuild, build_once, cache_folder, key_of
from cait.machine.processor import processor_fields

SOURCE = pathlib.Path(__file__).with_suffix(".cc")
NAME = "cait_pixels"
COMPILER = ["g++", "-O3", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off"]
# What the compiler may use, the widest first: its flags, which are the kernel's names too.
INSTRUCTIONS = {"avx512": ("avx512f", "avx512bw", "avx512vl", "avx512dq"), "avx2": ("avx2",)}
RAW_MODES = {"RGB": "RGBX", "L": "L"}  # in which Pillow hands its pixels over without repacking them
BICUBIC = Image.Resampling.BICUBIC
Size = tuple[int, int]
Box = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Loops:
    """The compiled loops.

    Attributes:
        library: with the functions of `pixels.cc`.
        columns_may_come_first: Pillow, since 13, resizes columns first where the height shrinks by more than twice as
            many pixels as the width; before, it always began with the rows.
    """

    library: ctypes.CDLL
    columns_may_come_first: bool

    def resize(self, image: Image.Image, size: Size, window: Box, flip: bool) -> np.ndarray:
        """Like the function of that name, for an image in mode RGB or L."""
        pixels = np.frombuffer(image.tobytes("raw", RAW_MODES[image.mode]), "uint8")
        return self.resize_decoded(pixels.reshape(image.height, image.width, -1), size, window, flip)

    def resize_decoded(self, pixels: np.ndarray, size: Size, window: Box, flip: bool) -> np.ndarray:
        """The same of an array as the function of that name takes it."""
        left, top, right, bottom = window
        height, width, stored = pixels.shape
        shrunk = width - size[0], height - size[1]
        columns_first = self.columns_may_come_first and shrunk[1] > max(0, 2 * shrunk[0])
        channels = min(stored, 3)
        out = np.empty((bottom - top, right - left, channels), "uint8")
        sizes = (*size, left, top, right - left, bottom - top, int(flip), int(columns_first))
        places = ctypes.c_void_p(pixels.ctypes.data), ctypes.c_void_p(out.ctypes.data)
        if self.library.cait_resize(places[0], channels, width, height, places[1], *sizes):
            raise MemoryError(f"{width} x {height} pixels cannot be resized")
        return out

    def transform(self, image: Image.Image, matrix: tuple[float, ...], fill: tuple[int, ...]) -> Image.Image:
        """Like the function of that name, for an image in mode RGB."""
        pixels = image.tobytes("raw", "RGBX")
        out = np.empty(len(pixels), "uint8")
        colour = int.from_bytes(bytes((*fill, 255)), "little", signed=True)
        numbers, target = (ctypes.c_double * 6)(*matrix), ctypes.c_void_p(out.ctypes.data)
        if self.library.cait_transform(pixels, *image.size, numbers, colour, target):
            raise MemoryError(f"{image.width} x {image.height} pixels cannot be transformed")
        return Image.frombytes("RGB", image.size, out, "raw", "RGBX")


def load(instructions: str) -> Loops:
    """The loops for an instruction set of this processor, built where that was never done.

    Raises:
        CannotBuild: they cannot be built or loaded, or do not give Pillow's pixels.
    """
    command = [*COMPILER, *(f"-m{flag}" for flag in INSTRUCTIONS[instructions])]
    folder = cache_folder(NAME, key_of([*command, SOURCE.read_bytes()]))
    library = folder / f"{NAME}.so"
    words = [*command, str(SOURCE), "-o", f"{{folder}}/{library.name}"]
    build_once(folder, [library.name], words, "building the loops that resize images, once: about a second")
    try:
        loaded = ctypes.CDLL(str(library))
        _ = loaded.cait_resize, loaded.cait_transform
    except (OSError, AttributeError) as error:
        raise CannotBuild(f"{library} cannot be loaded") from error
    for columns_may_come_first in (True, False):
        loops = Loops(loaded, columns_may_come_first)
        if _as_pillow(loops):
            return loops
    raise CannotBuild("they do not give the pixels of this Pillow")


def _as_pillow(loops: Loops) -> bool:
    """Whether the loops resize and transform some noise as Pillow does, to the last bit."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), "uint8")
    image, fill = Image.fromarray(noise), (1, 2, 3)
    for case in (image, image.transpose(Image.Transpose.ROTATE_90), image.getchannel(0)):
        for size in ((20, 7), (7, 20), (45, 50)):
            expected = np.asarray(case.resize(size, BICUBIC)).reshape(size[1], size[0], -1)
            if not np.array_equal(loops.resize(case, size, (0, 0, *size), False), expected):
                return False
    matrices = ((0.9, 0.3, 2.5, -0.4, 1.1, 3.25), (1, 0.2, 0, 0, 1, 0))
    return all(loops.transform(image, m, fill) == _transform_by_pillow(image, m, fill) for m in matrices)


@functools.cache
def loops_or_reason() -> tuple[Loops | None, str]:
    """The loops and the instruction set that they use; or None, and why they cannot be used here."""
    flags = set(processor_fields().get("flags", "").split())
    for name, needed in INSTRUCTIONS.items():
        if flags >= set(needed):
            try:
                return load(name), name
            except CannotBuild as reason:
                return None, str(reason)
    return None, "this processor has no AVX2"


def how() -> str:
    """Describes for the log what resizes the images of this process."""
    loops, word = loops_or_reason()
    return f"images resized with {word}" if loops else f"images resized by Pillow ({word})"


def resize(image: Image.Image, size: Size, window: Box | None = None, flip: bool = False) -> np.ndarray:
    """A part of an image after `Image.resize` with the antialiased bicubic filter.

    Args:
        image: in mode RGB or L.
        size: (width, height) of the whole image resized.
        window: (left, top, right, bottom) of the part; None: all of the image. Beyond the image it is black.
        flip: mirror the part, left to right.

    Returns:
        uint8 [height, width, channels] of the part.
    """
    window = window or (0, 0, *size)
    left, top, right, bottom = window
    loops = loops_or_reason()[0]
    if loops is not None and 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]:
        return loops.resize(image, size, window, flip)
    return _resize_by_pillow(image, size, window, flip)


def resize_decoded(pixels: np.ndarray, size: Size, flip: bool = False) -> np.ndarray:
    """The same of all of an image that was not decoded by Pillow.

    Args:
        pixels: contiguous uint8 [height, width, 4], of which the last does not count, or grey [height, width, 1].
        size, flip: as above.
    """
    loops = loops_or_reason()[0]
    if loops is not None:
        return loops.resize_decoded(pixels, size, (0, 0, *size), flip)
    image = Image.fromarray(pixels[:, :, :3] if pixels.shape[2] == 4 else pixels[:, :, 0])
    return _resize_by_pillow(image, size, (0, 0, *size), flip)


def _resize_by_pillow(image: Image.Image, size: Size, window: Box, flip: bool) -> np.ndarray:
    left, top, right, bottom = window
    if _rows_come_first(image.size, size) and right - left < size[0]:
        # Pillow resizes rows and then columns, each to whole pixels. One by one, columns that the window leaves out
        # need not be resized. (Its `box` takes float32: other pixels.)
        image = image.resize((size[0], image.height), BICUBIC).crop((left, 0, right, image.height))
        left, right, size = 0, right - left, (right - left, size[1])
    image = image.resize(size, BICUBIC).crop((left, top, right, bottom))
    array = np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image)
    return array if array.ndim == 3 else array[:, :, None]


def _rows_come_first(size: Size, resized: Size) -> bool:
    """Whether Pillow certainly resizes along the rows first: (width, height) before and after.

    It does where as many pixels weigh in along both sides and the width shrinks no less than the height.
    """
    across, down = size[0] / resized[0], size[1] / resized[1]
    return size[0] > size[1] and across >= down and math.ceil(2 * max(1, across)) == math.ceil(2 * max(1, down))


def transform(image: Image.Image, matrix: tuple[float, ...], fill: tuple[int, ...]) -> Image.Image:
    """`Image.transform` by an affine matrix of six numbers, with the bicubic filter.

    Args:
        image: in mode RGB or L.
        matrix: (a, b, c, d, e, f): pixel (x, y) becomes that at (a x + b y + c, d x + e y + f).
        fill: colour of the pixels that lie outside, a value for each channel.
    """
    loops = loops_or_reason()[0]
    if loops is not None and image.mode == "RGB":
        return loops.transform(image, matrix, fill)
    return _transform_by_pillow(image, matrix, fill)


def _transform_by_pillow(image: Image.Image, matrix: tuple[float, ...], fill: tuple[int, ...]) -> Image.Image:
    colour = fill if image.mode == "RGB" else fill[0]
    return image.transform(image.size, Image.Transform.AFFINE, matrix, BICUBIC, fillcolor=colour)
