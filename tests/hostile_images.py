"""Small image files that take very long to decode, or much memory; the same bytes every time."""

import io
import struct

from PIL import Image

SHORT, LONG = 3, 4  # kinds of values in a TIFF


def jpeg_of_empty_scans(scans=10_000, side=2000):
    """A progressive JPEG whose last scan, which changes nothing, comes again and again: each walks through all."""
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "JPEG", progressive=True)
    data = file.getvalue()[:-2]
    return data + data[data.rindex(b"\xff\xda") :] * scans + b"\xff\xd9"


def ppm_of_comments(comments=500_000):
    """A PPM of text with comments between its numbers, each of which Pillow cuts out by a copy of the rest."""
    return b"P3\n100 100\n255\n" + b"#\n" * comments + b"1 " * 30_000


def bmp_of_line_ends(lines=10_000, side=10_000):
    """An RLE bitmap with one pixel a line; Pillow fills each line byte by byte."""
    pixels = b"\1\1\0\0" * lines + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(pixels), 0, 0, 54 + 1024) + head + bytes(1024) + pixels


def tiff_of_strips(strips=1_000_000):
    """A TIFF whose rows are strips of their own, all of which are the same bytes; Pillow makes objects of each."""
    tags = [
        (256, SHORT, 1, 10), (257, LONG, 1, strips), (258, SHORT, 1, 8), (259, SHORT, 1, 1), (262, SHORT, 1, 1),
        (273, SHORT, strips, 200), (277, SHORT, 1, 1), (278, SHORT, 1, 1), (279, SHORT, strips, 200 + 2 * strips),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + struct.pack("<H", 8) * strips + struct.pack("<H", 10) * strips


def png_of_zeros(side=3000):
    """A PNG of much memory: all of it the same colour."""
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG", compress_level=1)
    return file.getvalue()


SLOW = {
    "scans.jpg": jpeg_of_empty_scans,
    "comments.ppm": ppm_of_comments,
    "lines.bmp": bmp_of_line_ends,
    "strips.tif": tiff_of_strips,
}
