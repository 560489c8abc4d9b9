"""Images on disk to classes: `infer.py` and what is below it."""

import contextlib
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image, ImageOps

from cait.deploy import autolog
from cait.deploy.autolog import Stopwatch
from cait.deploy.bundle import digest_of_bundle, read_description
from cait.deploy.classify import Reader, classify, find_images, read_ahead
from cait.deploy.engine import Engine
from cait.deploy.pixel_reader import MAX_PIXELS
from cait.deploy.predictor import Predictor
from cait.errors import CaitError
from project import ROOT, run_python

INFER = str(ROOT / "CaiT" / "infer.py")


def test_batches_change_nothing_and_a_bad_image_costs_the_others_nothing(tiny_bundle, digits):
    predictor = Predictor(tiny_bundle, Engine())
    paths = find_images(str(digits / "train"))
    bad = paths[3]
    open(bad, "wb").close()
    read = Reader(predictor.description, apply_exif=True)
    single, batched = (list(classify(predictor, read, paths, size, 3)) for size in (1, 16))
    assert [result.path for result in single] == [result.path for result in batched] == paths
    for left, right in zip(single, batched):
        assert [index for index, _ in left.classes] == [index for index, _ in right.classes]
        np.testing.assert_allclose([p for _, p in left.classes], [p for _, p in right.classes], rtol=1e-4)
    assert [result.path for result in single if result.error] == [bad]
    assert single[3].error.startswith(f"{bad}: the image cannot be read")


def test_reading_stays_a_bounded_number_of_images_ahead():
    started = []

    def read(path):
        started.append(path)
        return np.zeros(1)

    results = read_ahead((str(index) for index in range(1000)), read, depth=8)
    next(results)
    next(results)
    assert len(started) <= 10
    assert len(list(results)) == 998


def test_reading_begins_at_once():
    started = threading.Event()
    images = read_ahead(["one"], lambda path: started.set(), depth=1)
    assert started.wait(10) and list(images) == [("one", None)]


def save(path, mode="RGB", size=(30, 20), **options):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype="uint8")
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return str(path)


def test_every_kind_of_image(tiny_bundle, tmp_path):
    read = Reader(read_description(tiny_bundle), apply_exif=True)
    kinds = {
        "cmyk.jpg": "CMYK", "palette.png": "P", "alpha.png": "RGBA", "grey.png": "L", "bit.png": "1", "a.gif": "P",
    }  # fmt: skip
    for name, mode in kinds.items():
        assert read(save(tmp_path / name, mode)).shape == (1, 16, 16)
    assert read(save(tmp_path / "one.png", size=(1, 1))).shape == (1, 16, 16)


def test_exif_orientation_is_applied_unless_told_otherwise(tiny_bundle, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    path = save(tmp_path / "turned.png", exif=exif)
    description = read_description(tiny_bundle)
    turned, plain = Reader(description, True)(path), Reader(description, False)(path)
    assert not np.array_equal(turned, plain)
    unmarked = save(tmp_path / "plain.png")
    assert np.array_equal(Reader(description, True)(unmarked), plain)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow says that the block is damaged
def test_a_damaged_exif_block_does_not_cost_the_image(tiny_bundle, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    path = save(tmp_path / "image.jpg", exif=exif)
    content = bytearray((tmp_path / "image.jpg").read_bytes())
    read = Reader(read_description(tiny_bundle), True)
    start = content.index(b"Exif")
    length = int.from_bytes(content[start - 2 : start], "big") - 2  # of the block, as it says itself
    failed = 0
    for place in range(start, start + length):  # one byte at a time
        (tmp_path / "damaged.jpg").write_bytes(content[:place] + b"\x01" + content[place + 1 :])
        with Image.open(tmp_path / "damaged.jpg") as image, contextlib.suppress(OSError):
            try:
                ImageOps.exif_transpose(image)
            except Exception:
                failed += 1
        assert read(str(tmp_path / "damaged.jpg")).shape == read(path).shape
    assert failed  # else this shows nothing


def test_too_many_pixels_are_refused_before_they_are_decoded(tiny_bundle, tmp_path):
    path = tmp_path / "large.png"
    Image.new("1", (20000, 20000)).save(path)
    with pytest.raises(CaitError, match=f"20000x20000 pixels, more than the {MAX_PIXELS} allowed"):
        Reader(read_description(tiny_bundle), True)(str(path))


def test_ways_to_name_images(digits, tmp_path):
    folder = digits / "val" / "zero"
    names = sorted(str(path) for path in folder.glob("*.png"))
    (tmp_path / "list.txt").write_text("\n".join(names))
    assert (
        find_images(str(folder))
        == find_images(str(folder / "*.png"))
        == find_images(str(tmp_path / "list.txt"))
        == names
    )
    assert find_images(names[0]) == names[:1]
    for wrong in ("nowhere.png", "no*.png"):
        with pytest.raises(CaitError, match="no such image, folder, list or pattern"):
            find_images(wrong)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_commands_agree_with_prediction_by_the_model(
    tiny_bundle, tiny_weights, tiny_yaml, digits, tmp_path, suffix
):
    _, _, path = tiny_weights
    output = tmp_path / f"results{suffix}"
    words = [
        f"--img-path={digits / 'val'}",
        f"--model_dir={tiny_bundle}",
        "--batch-size=4",
        "--top-k=3",
        f"--output={output}",
    ]
    result = run_python(INFER, *words)
    assert result.returncode == 0, result.stderr
    if suffix == ".csv":
        with open(output, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = [json.loads(line) for line in output.read_text().splitlines()]
    shutil.copytree(digits / "val", digits / "test")
    main = str(ROOT / "CaiT" / "main_single_gpu.py")
    words = [f"-cfg={tiny_yaml}", "-dataset=folder", f"-data_path={digits}", f"-pretrained={path}", "-pred"]
    other = run_python(main, *words, f"-output_dir={tmp_path / 'pred'}", "-o", "PREDICT.TOP_K=3")
    assert other.returncode == 0, other.stderr
    with open(tmp_path / "pred" / "predictions.csv", encoding="utf-8-sig", newline="") as file:
        expected = list(csv.DictReader(file))
    assert len(rows) == len(expected) > 60
    for row, reference in zip(rows, expected):
        assert row["image_name"].replace("/val/", "/test/") == reference["image_name"]
        assert int(row["class_id"]) == int(reference["class_id"])
        assert float(row["prob"]) == pytest.approx(float(reference["prob"]), rel=1e-4)
    first = rows[0]
    line = (
        f"image_name: {first['image_name']}, class_id: {first['class_id']}, class_name: {first['class_name']}, prob: "
    )
    assert line in result.stdout


def test_a_folder_with_a_bad_image_ends_with_exit_code_1(tiny_bundle, digits, tmp_path):
    bad = digits / "val" / "zero" / "0000.png"
    bad.write_bytes(b"no image")
    names = find_images(str(digits / "val"))
    count, place = len(names), names.index(str(bad))
    words = [f"--model_dir={tiny_bundle}", "--output=a.csv", "--reprod_log=a.npy", "--top-k=2", "--batch-size=3"]
    result = run_python(INFER, f"--img-path={digits / 'val'}", *words, cwd=tmp_path)
    with open(tmp_path / "a.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(dict.fromkeys(row["image_name"] for row in rows)) == names and len(rows) == 2 * count - 1
    (row,) = [row for row in rows if row["error"]]
    words = f"{bad}: the image cannot be read (cannot identify image file)"
    assert row == dict.fromkeys(row, "") | {"image_name": str(bad), "error": words}
    arrays = np.load(tmp_path / "a.npy", allow_pickle=True).tolist()
    assert arrays["class_id"].shape == arrays["prob"].shape == (count, 2)
    assert arrays["class_id"][place].tolist() == [-1, -1] and arrays["prob"][place].tolist() == [0, 0]
    assert (np.delete(arrays["class_id"], place, axis=0) >= 0).all()
    assert result.returncode == 1
    assert result.stdout.count("class_id: ") == 2 * (count - 1) and f"{bad}: the image cannot be read" in result.stdout
    assert result.stderr.endswith(f"\nerror: 1 of {count} images could not be read\n")


@pytest.mark.parametrize(
    "words, exit_code, message",
    [
        ([], 2, "required: --img-path"),
        (["--img-path=nowhere"], 1, "nowhere: no such image, folder, list or pattern"),
        (["--img-path=.", "--batch-size=0"], 2, "'0' must be a whole number from 1"),
        (["--img-path=.", "--precision=int8"], 2, "invalid choice: 'int8'"),
        (["--img-path=.", "--use_gpu=maybe"], 2, "'maybe' must be True or False"),
        (["--img-path=.", "--output=a.txt"], 2, "must end in .csv or .jsonl"),
        (["--img-path=.", "--save_log_path=logs"], 2, "--save_log_path needs --benchmark=True"),
    ],
)
def test_wrong_usage_is_one_sentence(tmp_path, words, exit_code, message):
    result = run_python(INFER, *words, cwd=tmp_path)
    assert result.returncode == exit_code
    assert result.stderr.startswith("error: ") and message in result.stderr and result.stderr.count("\n") == 1


def test_an_empty_folder_is_no_bundle(digits, tmp_path):
    result = run_python(INFER, f"--img-path={digits / 'val'}", f"--model_dir={tmp_path}")
    assert result.returncode == 1 and result.stderr.startswith(f"error: {tmp_path}: holds no bundle")


def test_16_bits_keep_their_shades_and_32_are_refused(tiny_bundle, tmp_path):
    read = Reader(read_description(tiny_bundle), True)
    shades = np.tile(np.linspace(0, 255, 30).round().astype("uint8"), (20, 1))
    Image.fromarray(shades).save(tmp_path / "8.png")
    Image.fromarray(shades.astype("uint16") * 257).save(tmp_path / "16.png")
    np.testing.assert_array_equal(read(str(tmp_path / "16.png")), read(str(tmp_path / "8.png")))
    Image.fromarray(shades.astype("float32")).save(tmp_path / "32.tif")
    with pytest.raises(CaitError, match=r"32.tif: the image cannot be read \(its pixels have 32 bits"):
        read(str(tmp_path / "32.tif"))


def test_of_an_animation_the_first_image_counts(tiny_bundle, tmp_path):
    read = Reader(read_description(tiny_bundle), True)
    frames = [Image.new("L", (20, 20), shade) for shade in (200, 10)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "one.gif")
    np.testing.assert_array_equal(read(str(tmp_path / "two.gif")), read(str(tmp_path / "one.gif")))


def test_every_bad_image_of_a_folder_gets_its_line(tiny_bundle, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    save(folder / "good.png")
    save(folder / "truncated.jpg", size=(300, 200))
    content = (folder / "truncated.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (folder / "text.png").write_text("not an image")
    (folder / "empty.jpg").touch()
    Image.new("1", (20000, 20000)).save(folder / "large.png")
    Image.new("1", (1, 100_000)).save(folder / "strip.png")
    save(folder / "one.png", size=(1, 1))
    result = run_python(INFER, f"--img-path={folder}", f"--model_dir={tiny_bundle}", "--batch-size=3")
    lines = result.stdout.splitlines()
    assert result.returncode == 1 and result.stderr.endswith("\nerror: 4 of 7 images could not be read\n")
    assert len(lines) == 7 and sum("class_id: " in line for line in lines) == 3
    reasons = {
        "truncated.jpg": "truncated",
        "text.png": "cannot identify",
        "empty.jpg": "cannot",
        "large.png": "pixels",
    }
    for name, words in reasons.items():
        (line,) = [line for line in lines if line.startswith(str(folder / name))]
        assert words in line


def test_an_empty_folder_is_one_sentence(tiny_bundle, tmp_path):
    result = run_python(INFER, f"--img-path={tmp_path}", f"--model_dir={tiny_bundle}")
    assert result.returncode == 1 and result.stderr.startswith(f"error: {tmp_path}: holds no images")


WITH_PEAK = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, *sys.argv[1:]]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, file=sys.stderr)
sys.exit(code)
"""


def test_a_thousand_images_take_no_more_memory_than_a_hundred(tiny_bundle, tmp_path, monkeypatch):
    """Of 500x375 pixels: half a megabyte each once decoded, so that keeping them would show."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "CaiT"))
    first = save(tmp_path / "first.jpg", size=(500, 375))
    peaks = []
    for count in (100, 1000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for index in range(count):
            os.link(first, folder / f"{index:04d}.jpg")
        words = [f"--img-path={folder}", f"--model_dir={tiny_bundle}", "--batch-size=16", f"--output={folder}.csv"]
        result = run_python("-c", WITH_PEAK, INFER, *words)
        assert result.returncode == 0 and result.stdout.count("class_id: ") == count, result.stderr
        peaks.append(float(result.stderr.splitlines()[-1]))
    assert peaks[1] < peaks[0] + 40, peaks


def test_results_for_reprod_log(tiny_bundle, digits, tmp_path):
    words = [f"--img-path={digits / 'val'}", f"--model_dir={tiny_bundle}", "--top-k=3", "--reprod_log=new/arrays.npy"]
    result = run_python(INFER, *words, "--output=folder/a.csv", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    arrays = np.load(tmp_path / "new" / "arrays.npy", allow_pickle=True).tolist()
    with open(tmp_path / "folder" / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert arrays["class_id"].shape == arrays["prob"].shape == (len(find_images(str(digits / "val"))), 3)
    assert arrays["class_id"].ravel().tolist() == [int(row["class_id"]) for row in rows]
    assert arrays["prob"].ravel().tolist() == [float(row["prob"]) for row in rows]


BLOCK = r"""
 OS_version: .+
 CUDA_version: .+
 CUDNN_version: .+
 drivier_version: .+
-{22} Paddle info -{22}
 paddle_version: .+
 paddle_commit: [0-9a-f]+
 log_api_version: 1.0
-{23} Conf info -{23}
 runtime_device: cpu
 ir_optim: True
 enable_memory_optim: True
 enable_tensorrt: False
 enable_mkldnn: False
 cpu_math_library_num_threads: 1
-{23} Model info -{22}
 model_name: tiny
 precision: fp32
-{23} Data info -{23}
 batch_size: 8
 input_shape: 1,16,16
 data_num: NUMBER
-{23} Perf info -{23}
 cpu_rss\(MB\): [0-9.]+, gpu_rss\(MB\): None, gpu_util: None%
 total time spent\(s\): [0-9.]+
 preprocess_time\(ms\): [0-9.]+, inference_time\(ms\): [0-9.]+, postprocess_time\(ms\): [0-9.]+
"""


def test_the_benchmark_speaks_as_autolog_does(tiny_bundle, digits, tmp_path):
    flags = "--use_gpu=False --enable_mkldnn=False --cpu_threads=1 --batch_size=8 --use_tensorrt=False --precision=fp32"
    words = [*flags.split(), f"--image_dir={digits / 'val'}", f"--model_dir={tiny_bundle}", "--benchmark=True"]
    result = run_python(INFER, *words, f"--save_log_path={tmp_path / 'log'}")
    assert result.returncode == 0, result.stderr
    stamp = r"\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\] root INFO: "
    count = len(find_images(str(digits / "val")))
    block = BLOCK.rstrip("\n").replace("\n", f"\n{stamp}").replace("NUMBER", str(count))
    pattern = f"{stamp}-{{22}} Env info -{{22}}{block}"
    text = (tmp_path / "log" / "benchmark.log").read_text()
    assert re.fullmatch(pattern, text.rstrip("\n")) and result.stdout.endswith(text)
    values = json.loads((tmp_path / "log" / "benchmark.json").read_text())
    perf = values["perf"]
    assert perf["num_batches"] == 3 and perf["cpu_rss(MB)"] > 50
    spent = sum(perf[f"{stage}_time(ms)"] for stage in ("preprocess", "inference", "postprocess")) * 3 / 1000
    assert perf["total time spent(s)"] == pytest.approx(spent)
    assert perf["images_per_second"] == pytest.approx(count / spent)


def test_stages_are_timed_apart(tiny_bundle, digits):
    """Each stage is slowed down in turn; its own time, and only that, grows."""
    description = read_description(tiny_bundle)
    paths = find_images(str(digits / "val"))[:4]

    def slow(call, seconds):
        return lambda value: (time.sleep(seconds), call(value))[1]

    predict = Predictor(tiny_bundle, Engine(cpu_threads=1))
    for reading, predicting in ((0.05, 0), (0, 0.05)):
        stopwatch = Stopwatch()
        list(classify(slow(predict, predicting), slow(Reader(description, True), reading), paths, 2, 1, stopwatch))
        seconds = {name: sum(values) for name, values in stopwatch.seconds.items()}
        assert (seconds["preprocess"] >= 0.2) == bool(reading) and (seconds["inference"] >= 0.1) == bool(predicting)
        assert seconds["postprocess"] < 0.05


def test_gpu_figures_come_from_nvidia_smi(tmp_path, monkeypatch):
    """A stand-in for the tool: figures must be those it gave, the largest memory and the mean load."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"""#!/bin/sh
case "$1" in
    *driver*) echo 535.1 ;;
    *) echo x >> {tmp_path}/calls; n=$(wc -l < {tmp_path}/calls); echo "$((100 * n)), $((10 * n))" ;;
esac
""")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(autolog, "GPU_SAMPLE_SECONDS", 0.01)
    with autolog.GpuSampler(True) as gpu:
        while len((tmp_path / "calls").read_text().split() if (tmp_path / "calls").exists() else "") < 3:
            time.sleep(0.01)
    calls = len((tmp_path / "calls").read_text().split())
    assert gpu.memory_mb == 100 * calls and gpu.utilization == pytest.approx(10 * (calls + 1) / 2)
    assert autolog.ask_nvidia("driver_version") == "535.1"
    monkeypatch.setattr(autolog, "ask_nvidia", lambda fields: "1000, [N/A]")
    with autolog.GpuSampler(True) as gpu:
        time.sleep(0.05)
    assert gpu.memory_mb is None and gpu.utilization is None
    with autolog.GpuSampler(False) as gpu:
        assert gpu.memory_mb is None and gpu.utilization is None


def test_a_reader_that_goes_away_costs_no_results(tiny_bundle, digits, tmp_path):
    table, array = tmp_path / "results.csv", tmp_path / "results.npy"
    words = [f"--img-path={digits / 'train'}", f"--model_dir={tiny_bundle}", f"--output={table}"]
    command = [sys.executable, "-u", INFER, *words, f"--reprod_log={array}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0 and "error" not in errors
    images = len(find_images(str(digits / "train")))
    assert len(table.read_text().splitlines()) == images + 1
    assert len(np.load(array, allow_pickle=True).item()["prob"]) == images


def test_a_bundle_without_the_trusted_digest_is_not_run(tiny_bundle, digits):
    digest = digest_of_bundle(tiny_bundle)
    words = [f"--img-path={digits / 'val'}", f"--model_dir={tiny_bundle}", "--no-fused-ops", "--trusted-digest"]
    other, own, wrong = (run_python(INFER, *words, value) for value in ("0" * 64, digest.upper(), "digest"))
    assert other.returncode == 1 and not other.stdout
    assert other.stderr.count("\n") == 1 and f"nothing of it was run (it has {digest})" in other.stderr
    assert own.returncode == 0 and own.stdout
    assert wrong.returncode == 2 and "must be a SHA-256, 64 hexadecimal digits" in wrong.stderr
