"""Reports the cost of an inference run in AutoLog's format, which Paddle's tools parse (TIPC), and as JSON.

Every figure is measured in the run that prints it; what a machine does not have is `None`.
"""

import contextlib
import json
import pathlib
import platform
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator

import numpy as np
import paddle

from cait.deploy.predictor import Predictor
from cait.files import writable_folder, write_text
from cait.machine.processor import peak_mb

STAGES = ("preprocess", "inference", "postprocess")
WARM_UP_BATCHES = 5
GPU_SAMPLE_SECONDS = 0.5


class Stopwatch:
    """Seconds of every batch in each stage: `with stopwatch.stage("inference"): ...`."""

    def __init__(self):
        self.seconds: dict[str, list[float]] = {name: [] for name in STAGES}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times what runs within as one batch's share of the stage."""
        started = time.perf_counter()
        yield
        self.seconds[name].append(time.perf_counter() - started)


def warm_up(predictor: Predictor, batch_size: int) -> None:
    """Runs the predictor until its kernels for this batch size are chosen and its memory is reserved."""
    images = np.repeat(predictor.description.self_test_input(), batch_size, axis=0)
    for _ in range(WARM_UP_BATCHES):
        predictor(images)


class GpuSampler:
    """Asks nvidia-smi about the first GPU twice a second within its block; without one it does nothing.

    Attributes:
        memory_mb: largest memory in use on the device, by all processes; None: not measured.
        utilization: mean share of the time that it computed, in percent; None: not measured.
    """

    def __init__(self, use_gpu: bool):
        self._samples: list[list[float]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True) if use_gpu else None

    def _sample(self) -> None:
        while not self._done.is_set():
            line = ask_nvidia("memory.used,utilization.gpu")
            words = (line or "").replace(",", " ").split()
            if len(words) == 2 and all(word.replace(".", "").isdecimal() for word in words):  # not "[N/A]"
                self._samples.append([float(word) for word in words])
            self._done.wait(GPU_SAMPLE_SECONDS)

    def __enter__(self) -> "GpuSampler":
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        if self._thread:
            self._thread.join()

    @property
    def memory_mb(self) -> float | None:
        return max((memory for memory, _ in self._samples), default=None)

    @property
    def utilization(self) -> float | None:
        return statistics.fmean(share for _, share in self._samples) if self._samples else None


def ask_nvidia(fields: str) -> str | None:
    """Returns what nvidia-smi reports about the first GPU, comma-separated and without units; None without a GPU."""
    if not shutil.which("nvidia-smi"):
        return None
    words = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "-i", "0"]
    result = subprocess.run(words, capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else None


def measurements(
    predictor: Predictor, stopwatch: Stopwatch, gpu: GpuSampler, batch_size: int, num_images: int
) -> dict[str, dict]:
    """Everything that the report says, by section."""
    description, paddle_config = predictor.description, predictor.paddle_config
    with_cuda = paddle.device.is_compiled_with_cuda()
    seconds = stopwatch.seconds
    total = sum(sum(values) for values in seconds.values())
    perf = {
        "cpu_rss(MB)": peak_mb(),
        "gpu_rss(MB)": gpu.memory_mb,
        "gpu_util": gpu.utilization,
        "total time spent(s)": total,
    }
    perf |= {f"{name}_time(ms)": 1000 * statistics.fmean(values) for name, values in seconds.items()}
    perf |= {f"{name}_time_median(ms)": 1000 * statistics.median(values) for name, values in seconds.items()}
    perf |= {"num_batches": len(seconds["inference"]), "images_per_second": num_images / total}
    return {
        "env": {
            "OS_version": _system(),
            "CUDA_version": paddle.version.cuda() if with_cuda else None,
            "CUDNN_version": paddle.version.cudnn() if with_cuda else None,
            "drivier_version": ask_nvidia("driver_version"),  # so it is spelt
        },
        "paddle": {
            "paddle_version": paddle.__version__,
            "paddle_commit": paddle.version.commit,
            "log_api_version": "1.0",
        },
        "conf": {
            "runtime_device": "gpu" if paddle_config.use_gpu() else "cpu",
            "ir_optim": paddle_config.ir_optim(),
            "enable_memory_optim": _memory_optim(paddle_config),
            "enable_tensorrt": predictor.engine.tensorrt,
            "enable_mkldnn": paddle_config.mkldnn_enabled(),
            "cpu_math_library_num_threads": paddle_config.cpu_math_library_num_threads(),
        },
        "model": {"model_name": description.variant, "precision": predictor.engine.precision},
        "data": {
            "batch_size": batch_size,
            "input_shape": ",".join(str(side) for side in (description.channels, *description.image_size)),
            "data_num": num_images,
        },
        "perf": perf,
    }


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:  # not every system has that file
        return platform.platform()


def _memory_optim(paddle_config) -> bool:
    (line,) = [line for line in paddle_config.summary().splitlines() if line.startswith("| memory_optim ")]
    return line.split("|")[2].strip() == "true"


def report(values: dict[str, dict], folder: pathlib.Path | None = None) -> str:
    """The AutoLog block, a time stamp before every line; with a folder, also as files there.

    `benchmark.log` gets the block and `benchmark.json` the values, with the medians that the block has no place for.
    """
    perf = values["perf"]
    titles = {
        "env": f"{'-' * 22} Env info {'-' * 22}",
        "paddle": f"{'-' * 22} Paddle info {'-' * 22}",
        "conf": f"{'-' * 23} Conf info {'-' * 23}",
        "model": f"{'-' * 23} Model info {'-' * 22}",
        "data": f"{'-' * 23} Data info {'-' * 23}",
    }
    lines = []
    for section, title in titles.items():
        lines += [title, *(f" {key}: {value}" for key, value in values[section].items())]
    rss, gpu_rss, gpu_util = perf["cpu_rss(MB)"], perf["gpu_rss(MB)"], perf["gpu_util"]
    lines.append(f"{'-' * 23} Perf info {'-' * 23}")
    lines.append(f" cpu_rss(MB): {rss and f'{rss:.4f}'}, gpu_rss(MB): {gpu_rss}, gpu_util: {gpu_util}%")
    lines.append(f" total time spent(s): {perf['total time spent(s)']:.4f}")
    lines.append(" " + ", ".join(f"{name}_time(ms): {perf[f'{name}_time(ms)']:.4f}" for name in STAGES))
    stamp = time.strftime("[%Y/%m/%d %H:%M:%S] root INFO: ")
    text = "\n".join(stamp + line for line in lines)
    if folder is not None:
        folder = writable_folder(folder)
        write_text(folder / "benchmark.log", text + "\n")
        write_text(folder / "benchmark.json", json.dumps(values, indent=2) + "\n")
    return text
