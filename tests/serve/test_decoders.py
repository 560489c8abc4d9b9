"""The processes that decode images for the service: the same pixels, and bounds that hold whatever an image does."""

import asyncio
import concurrent.futures
import contextlib
import io
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from cait.data.decoding import UnreadableImage
from cait.deploy.pixel_reader import PixelReader
from cait.errors import CaitError
from cait.serve import decoder, decoders, service
from cait.serve.decoder import DecodeLimits
from cait.serve.decoders import CannotDecode, Decoders
from hostile_images import SLOW, bmp_of_line_ends, jpeg_of_empty_scans, png_of_zeros
from project import ROOT
from serve_load import form, post
from serving import ask, ask_about, connected, counted, served

pytestmark = pytest.mark.any_paddle

CASES = ROOT / "tests" / "images"
READER = PixelReader((16, 12), 0.9, 3, True)
LONG = DecodeLimits(60.0, 2000)


def file_of(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(value=0, kind="PNG"):
    return file_of(Image.new("L", (8, 8), value), kind)


@pytest.fixture(scope="module")
def slow():
    """A file that takes minutes."""
    return jpeg_of_empty_scans()


@contextlib.contextmanager
def pool(reader=READER, limits=LONG):
    """Processes in the running event loop."""
    found = Decoders(reader, limits)
    found.attach()
    try:
        yield found
    finally:
        found.stop()


async def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def images_of_all_kinds():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), "uint8"))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    yield file_of(noise, "JPEG", exif=exif)
    yield file_of(noise.convert("CMYK"), "JPEG", progressive=True)
    yield file_of(noise.convert("RGBA"), "WEBP", lossless=True)
    yield file_of(noise.convert("P"), "GIF")
    yield file_of(noise.convert("L"), "TIFF")
    yield file_of(noise.resize((900, 700)), "BMP")


@pytest.mark.parametrize("channels, exif", [(3, True), (1, True), (3, False)])
def test_pixels_are_those_of_infer_to_the_last_bit(channels, exif):
    reader = PixelReader((16, 12), 0.9, channels, exif)

    async def check():
        with pool(reader) as each:
            for data in images_of_all_kinds():
                pixels, png = await each.decode("x", data, True)
                assert pixels.shape == reader.shape
                np.testing.assert_array_equal(pixels, reader(io.BytesIO(data), "x"))
                np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))).reshape(reader.shape), pixels)
                assert (await each.decode("x", data))[1] == b""

    asyncio.run(check())


@pytest.mark.parametrize("name", SLOW)
def test_an_image_that_takes_too_long_costs_itself_alone(name):
    hostile = SLOW[name]()
    assert len(hostile) < 5_000_000

    async def check():
        with pool(limits=DecodeLimits(0.7, 2000)) as each:
            await each.decode("warm", picture())
            started = time.monotonic()
            cut = asyncio.ensure_future(each.decode(name, hostile))
            await until(lambda: cut.done() or any(one.line for one in each._decoders))
            for value in range(5):  # others meanwhile
                await each.decode("good", picture(value))
            words = f"^{name}: the image cannot be read .decoding it takes longer than 0.7 seconds.$"
            with pytest.raises(UnreadableImage, match=words):
                await cut
            assert time.monotonic() - started < 10 and each.replaced == 1
            await asyncio.gather(*(each.decode("good", picture()) for _ in range(4)))

    asyncio.run(check())


def test_an_image_that_takes_too_much_memory_costs_itself_alone():
    if not sys.platform.startswith("linux"):
        pytest.skip("no bound on memory here")
    hostile = png_of_zeros()

    async def check():
        with pool(limits=DecodeLimits(60.0, 20)) as each:
            with pytest.raises(
                UnreadableImage, match="zeros.png: the image cannot be read .there is not enough memory"
            ):
                await each.decode("zeros.png", hostile)
            assert (await each.decode("good", picture()))[0].shape == READER.shape
        with pool(limits=DecodeLimits(60.0, 1000)) as each:
            assert not (await each.decode("zeros.png", hostile))[0].any()

    asyncio.run(check())


def test_a_process_that_dies_is_replaced(slow):
    async def check():
        with pool() as each:
            await each.decode("warm", picture())
            (first,) = each._decoders
            first.process.kill()  # idle
            await until(lambda: each.replaced == 1)
            await each.decode("good", picture())
            lost = asyncio.ensure_future(each.decode("slow.jpg", slow))
            await until(lambda: any(one.line and one.line[0].name == "slow.jpg" for one in each._decoders))
            next(one for one in each._decoders if one.line).process.send_signal(signal.SIGSEGV)
            with pytest.raises(UnreadableImage, match="slow.jpg: .*its decoder ended with signal 11"):
                await lost
            await each.decode("good", picture())
            assert each.replaced == 2

    asyncio.run(check())


def test_who_leaves_frees_the_processes(slow):
    async def check():
        with pool() as each:
            left = [asyncio.ensure_future(each.decode("slow.jpg", slow)) for _ in range(6)]
            await until(lambda: sum(len(one.line) for one in each._decoders) == decoders.PROCESSES)
            for one in left:
                one.cancel()
            started = time.monotonic()
            await each.decode("good", picture())
            assert time.monotonic() - started < 10 and each.replaced <= decoders.PROCESSES
            await asyncio.gather(*left, return_exceptions=True)

    asyncio.run(check())


def test_many_images_of_one_request_let_others_go_first():
    order = []

    async def check():
        with pool() as each:

            async def one(name, place):
                await each.decode(name, picture(), place=place)
                order.append(name)

            await asyncio.gather(*(one("many", place) for place in range(40)), one("alone", 0), one("alone", 0))

    asyncio.run(check())
    assert order.index("alone") <= 4 and order[:8].count("alone") == 2 and len(order) == 42


def test_small_images_wait_in_no_line_behind_a_slow_one():
    small = bmp_of_line_ends(1500)  # seconds
    assert len(small) <= decoder.SMALL_BYTES

    async def check():
        with pool(limits=DecodeLimits(0.7, 2000)) as each:
            await each.decode("warm", picture())
            for repeat in range(2):  # in the line behind it, and behind it in both processes
                hostile = [asyncio.ensure_future(each.decode("slow.jpg", small)) for _ in range(repeat + 1)]
                good = [each.decode(f"good {number}", picture(number)) for number in range(12)]
                results = await asyncio.gather(*good)
                assert [int(pixels.max()) for pixels, _ in results] == list(range(12))
                for cut in await asyncio.gather(*hostile, return_exceptions=True):
                    assert isinstance(cut, UnreadableImage) and "longer than 0.7 seconds" in str(cut)

    asyncio.run(check())


def test_processes_that_cannot_start_are_told_and_tried_again(monkeypatch, capfd):
    monkeypatch.setattr(decoders, "RETRY_SECONDS", 0.2)
    start = decoder.START

    async def check():
        with pool() as each:
            assert each.can_work
            monkeypatch.setattr(decoder, "START", "raise SystemExit(3)")
            with pytest.raises(CannotDecode, match="can start .its decoder ended with exit code 3"):
                await each.decode("x", picture())
            assert not each.can_work
            monkeypatch.setattr(decoder, "START", start)
            await until(lambda: each.can_work)  # without an image that asks for it
            await each.decode("x", picture())

    asyncio.run(check())
    monkeypatch.setattr(decoder, "START", "raise SystemExit('no memory')")
    with pytest.raises(CaitError, match="cannot start"):
        Decoders(READER, LONG).warm_up()
    assert "no memory" in capfd.readouterr().err


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_process_outlives_the_service(slow, tmp_path):
    (tmp_path / "slow.jpg").write_bytes(slow)
    script = f"""
import asyncio, pathlib, sys
sys.path.insert(0, {str(ROOT / "CaiT")!r})
from cait.serve.decoders import Decoders
from cait.serve.decoder import DecodeLimits
from cait.deploy.pixel_reader import PixelReader
async def main():
    pool = Decoders({READER}, {LONG})
    pool.attach()
    tasks = [asyncio.ensure_future(pool.decode("x", pathlib.Path("slow.jpg").read_bytes())) for _ in range(2)]
    while sum(len(one.line) for one in pool._decoders) < 2:
        await asyncio.sleep(0.02)
    print(*[one.process.pid for one in pool._decoders], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        time.sleep(0.3)  # they are in the decoder
        assert len(pids) == 2 and all(map(alive, pids))
        parent.kill()
    deadline = time.monotonic() + 5
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_system_ends_a_process_whose_parent_forgets_it(slow):
    async def check():
        with pool(limits=DecodeLimits(0.2, 2000)) as each:
            await each.decode("warm", picture())
            cut = asyncio.ensure_future(each.decode("slow.jpg", slow))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            process = each._decoders[0].process
            time.sleep(0.1)
            deadline = time.monotonic() + 10
            while process.poll() is None:  # the event loop stands still
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert process.returncode == -signal.SIGALRM
            with pytest.raises(UnreadableImage):
                await cut

    asyncio.run(check())


DARK = ("dark.png", picture(0))
HOSTILE = {"max_upload_bytes": 5_000_000, "answer_seconds": 60.0}
MAX_PIXELS = 10_000_000


def test_a_request_with_hostile_images_is_answered(slow):
    broken = ("broken.jpg", (CASES / "tiff_type_error.jpg").read_bytes())
    narrow = ("narrow.png", file_of(Image.new("L", (1, 2_000_000))))  # which decodes, and cannot be resized
    with served(decoding=(DecodeLimits(0.7, 2000), MAX_PIXELS), **HOSTILE) as (address, *_):
        status, _, answer = ask_about(address, DARK, ("slow.jpg", slow), narrow, broken)
        assert status == 200 and answer["results"][0]["classes"][0]["class_name"] == "dark"
        errors = [result["error"] for result in answer["results"][1:]]
        assert errors[0] == "slow.jpg: the image cannot be read (decoding it takes longer than 0.7 seconds)"
        assert "narrow.png: the image cannot be read (its sides of 1 and 2000000" in errors[1]
        assert errors[2].startswith("broken.jpg: the image cannot be read (TypeError")
        status, _, answer = ask_about(address, ("slow.jpg", slow))
        assert status == 422 and answer["detail"] == errors[0]
        assert counted(address, "cait_decoders_replaced") == 2


def test_health_watches_the_processes_and_callers_who_left_free_them(slow, monkeypatch):
    request = post(*form([("slow.jpg", slow)] * 3))
    with served(decoding=(LONG, MAX_PIXELS), **HOSTILE) as (address, _, running, _):
        with connected(address) as one, connected(address) as other:
            one.sendall(request)
            other.sendall(request)
            deadline = time.monotonic() + 20
            while ask(address, "/health")[::2] != (200, b'{"status":"slow"}'):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            for caller in (one, other):  # reset: one that only ends what it sends may still read
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert ask_about(address, DARK)[0] == 200
        assert ask(address, "/health")[::2] == (200, b'{"status":"ok"}')
        assert counted(address, "cait_queue_images") == 0
        monkeypatch.setattr(decoder, "START", "raise SystemExit(3)")
        monkeypatch.setattr(decoders, "RETRY_SECONDS", 60.0)
        for each in list(running._decoders._decoders):
            each.process.kill()
        while ask(address, "/health")[::2] != (503, b'{"status":"failed"}'):
            assert time.monotonic() < deadline + 20
            time.sleep(0.05)


def test_the_end_waits_for_no_hostile_image(slow, monkeypatch):
    monkeypatch.setattr(service, "CLOSING_SECONDS", 0.5)
    with (
        served(decoding=(LONG, MAX_PIXELS), **HOSTILE) as (address, _, running, server),
        concurrent.futures.ThreadPoolExecutor(3) as callers,
    ):
        asked = [callers.submit(ask_about, address, ("slow.jpg", slow), ("slow.jpg", slow)) for _ in range(3)]
        deadline = time.monotonic() + 20
        while not running.is_slow:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started = time.monotonic()
        server.should_exit = True
        answers = {(each.result()[0], each.result()[2]["detail"]) for each in asked}
        assert answers == {(503, "the service is about to end; come again later")}
        assert time.monotonic() - started < 5
        pids = [process.pid for process in running._decoders._ended]
    assert pids and not any(map(alive, pids))
