"""Small image files that take very long to decode, or much memory, or are damaged; the same bytes every time."""

import asyncio
import contextlib
import functools
import io
import random
import struct
import zlib

from PIL import Image

SHORT, LONG = 3, 4  # kinds of values in a TIFF
RUNNING = contextlib.ExitStack()  # what decodes, once it is asked
SECONDS, MEGABYTES = 2.0, 1000  # that an image may take


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

KINDS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "GIF", "TIFF", "AVIF", "JPEG2000", "TGA")
HUGE = b"\xff\xff\xff\x7f"  # a size of 2 ** 31 - 1 where the lowest byte comes first, and almost so otherwise
DAMAGES = 12  # of each format, at places that are the same every time
# Formats of Pillow's that are not read, by what their files begin with: some start other programs.
FOREIGN = {
    "eps.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) (w) file\nshowpage\n%%EOF\n",
    "pdf.jpg": b"%PDF-1.4\n1 0 obj <</Type /Catalog>> endobj\ntrailer <</Root 1 0 R>>\n%%EOF",
    "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "wmf.png": b"\xd7\xcd\xc6\x9a" + bytes(40),
    "psd.jpg": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 30000, 30000, 8, 3) + bytes(12),
    "ico.png": b"\0\0\1\0\xff\xff" + bytes(16) * 200,
    "fli.gif": bytes(4) + b"\x12\xaf" + b"\xff" * 122,
    "pcx.bmp": b"\n\5\1\x08" + b"\xff" * 124,
    "xbm.jpg": b"#define x_width 999999\n#define x_height 999999\nstatic char x_bits[] = {",
    "im.tif": b"Image type: L\r\nImage size (x*y): 99999*99999\r\n" + bytes(512),
    "hdf5.jpg": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "zip.jpg": b"PK\3\4" + bytes(64),
}


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_file(*chunks, size=(8, 8), kind=0):
    head = struct.pack(">IIBBBBB", *size, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*each) for each in [(b"IHDR", head), *chunks, (b"IEND", b"")])


def tiff_file(*tags):
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 8) + bytes(200)


def crafted():
    """Files whose sizes and counts are lies, and those that grow when they are unpacked."""
    pixels, zeros = zlib.compress(bytes(72)), zlib.compress(bytes(50_000_000))
    yield "huge.png", png_file((b"IDAT", pixels), size=(0x7FFFFFFF, 0x7FFFFFFF))
    yield "wide.png", png_file((b"IDAT", pixels), size=(100_000_001, 1))
    yield "empty.png", png_file((b"IDAT", pixels), size=(0, 8))
    yield "unpacks.png", png_file((b"IDAT", zeros))
    yield "profile.png", png_file((b"iCCP", b"x\0\0" + zeros), (b"IDAT", pixels))
    yield "text.png", png_file((b"zTXt", b"x\0\0" + zeros), (b"IDAT", pixels))
    yield "texts.png", png_file(*[(b"tEXt", b"x\0y")] * 50_000, (b"IDAT", pixels))
    yield "frames.png", png_file((b"acTL", struct.pack(">II", 1 << 31, 0)), (b"IDAT", pixels))
    yield "palette.png", png_file((b"PLTE", bytes(5)), (b"IDAT", pixels), kind=3)
    yield "zeros.png", png_of_zeros(9000)
    yield "huge.gif", b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\1\0\0;"
    yield "comments.gif", b"GIF89a\1\0\1\0\0\0\0" + b"!\xfe\1x\0" * 200_000 + b";"
    yield "huge.bmp", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 1 << 30, 1 << 30, 1, 24, *[0] * 6)
    yield "negative.bmp", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, -8, -(1 << 31), 1, 24, *[0] * 6)
    yield "palette.bmp", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 8, 8, 1, 8, 0, 0, 0, 0, 1 << 31, 0)
    yield "huge.ppm", b"P6 99999999999 99999999999 255\n"
    yield "digits.ppm", b"P6 " + b"9" * 1_000_000 + b" 1 255\n"
    yield "zero.ppm", b"P6 0 0 255\n"
    yield "bits.pbm", b"P4 99999 99999\n"
    yield "maximum.pgm", b"P2 2 2 99999999999\n1 1 1 1"
    yield "loop.tif", tiff_file((256, SHORT, 1, 8), (257, SHORT, 1, 8))
    yield "counts.tif", tiff_file(*((256 + i, LONG, 0xFFFFFFFF, 8) for i in range(20)))
    yield "samples.tif", tiff_file((256, SHORT, 1, 8), (257, SHORT, 1, 8), (277, SHORT, 1, 65535), (273, LONG, 1, 8))
    yield "huge.tif", tiff_file((256, LONG, 1, 0x7FFFFFFF), (257, LONG, 1, 0x7FFFFFFF), (273, LONG, 1, 8))
    yield "codec.tif", tiff_file((256, SHORT, 1, 8), (257, SHORT, 1, 8), (259, SHORT, 1, 34712), (273, LONG, 1, 8))
    yield "huge.tga", b"\0\0\2" + bytes(9) + b"\xff\xff\xff\xff\x18\0"
    yield "runs.tga", b"\0\0\x0a" + bytes(9) + b"\xff\x7f\xff\x7f\x18\0" + b"\xff\0\0\0" * 1000
    yield "huge.webp", b"RIFF\xff\xff\xff\x7fWEBPVP8X\n\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff"
    yield "huge.jpg", b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0\xff\xd9"
    yield "segments.jpg", b"\xff\xd8" + b"\xff\xe1\0\x08Exif\0\0" * 100_000 + b"\xff\xd9"
    yield "box.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\1jp2h\x7f" + b"\xff" * 40
    yield "box.avif", b"\0\0\0\x1cftypavif" + bytes(16) + b"\0\0\0\1meta" + b"\xff" * 40


def cases():
    """Hostile images, each the one file `case` of its folder."""
    from cait.data.decoding import formats

    found = {f"slow: {name}": make() for name, make in SLOW.items()}
    found |= {f"foreign: {name}": data for name, data in FOREIGN.items()}
    found |= {f"crafted: {name}": data for name, data in crafted()}
    rng = random.Random(0)
    picture = Image.merge("RGB", [Image.radial_gradient("L").resize((48, 40))] * 3)
    for kind in (kind for kind in KINDS if kind in formats()):
        file = io.BytesIO()
        picture.save(file, kind)
        whole = file.getvalue()
        found[f"{kind}: nothing behind the head"] = whole[:32]
        found[f"{kind}: cut"] = whole[: len(whole) // 2]
        found[f"{kind}: zeros from the middle on"] = whole[: len(whole) // 2].ljust(len(whole), b"\0")
        found[f"{kind}: much behind the end"] = whole + bytes(1_000_000)
        for number in range(DAMAGES):
            place = rng.randrange(4, min(len(whole) - 4, 80 if number % 2 else len(whole)))
            found[f"{kind}: damage {number}"] = whole[:place] + HUGE + whole[place + 4 :]
    return ((name, {"case": data}) for name, data in found.items())


@functools.cache
def _service():
    """The processes that decode, with small limits, and the event loop they belong to."""
    from cait.deploy.pixel_reader import PixelReader
    from cait.serve.decoder import DecodeLimits
    from cait.serve.decoders import Decoders

    loop = asyncio.new_event_loop()
    decoders = Decoders(PixelReader((16, 16), 0.9, 3, True), DecodeLimits(SECONDS, MEGABYTES))

    async def attach():
        decoders.attach()

    loop.run_until_complete(attach())
    RUNNING.callback(decoders.stop)
    return loop, decoders


def read(folder):
    """As the service does."""
    loop, decoders = _service()
    path = folder / "case"
    loop.run_until_complete(decoders.decode("case", path.read_bytes() if path.exists() else b""))
