"""One inference engine in a process of its own, which is told when to run.

    python -m cait.bench.runtime_worker '{"kind": "fused", "source": "BUNDLE"}'

answers every line of its input with a line of JSON: `N` with the seconds of N runs, `operators N` with the milliseconds
of each kind of operator of Paddle's, and its first line says that it is ready, or why there is no such engine here.
"""

import collections
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cait.command.run import run_command
from cait.machine.processor import peak_mb

GPU_KINDS = ("gpu", "tensorrt")


class Missing(Exception):
    """Why an engine is not to be had here, in a phrase."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """What is run.

    Attributes:
        kind: `fused` or `plain`, of a bundle's programs on the CPU; `gpu` or `tensorrt`, of a bundle; `eager`;
            `openvino`, `onnxruntime`; `timm`, `timm compiled`.
        source: folder of a bundle; name of a variant; ONNX file; timm's name of a model.
        batch_size: images a run.
        precision: fp32 or bf16; of a bundle on a GPU also fp16.
        threads: to compute with on the CPU.
    """

    kind: str
    source: str
    batch_size: int = 1
    precision: str = "fp32"
    threads: int = 1


# Images [B, *shape] -> logits, and the shape of an image.
Ready = tuple[Callable[[np.ndarray], Any], tuple[int, ...]]


def _bundle(spec: Spec) -> Ready:
    from cait.deploy.engine import Engine
    from cait.deploy.engine_config import why_not
    from cait.deploy.predictor import Predictor

    fused = spec.kind == "fused"
    engine = Engine(precision=spec.precision, cpu_threads=spec.threads, fused=fused)
    if spec.kind in GPU_KINDS:
        is_trt, size = spec.kind == "tensorrt", spec.batch_size
        engine = Engine(use_gpu=True, precision=spec.precision, tensorrt=is_trt, max_batch_size=size)
    if reason := why_not(engine):
        raise Missing(reason)
    predictor = Predictor(spec.source, engine)
    if fused and not predictor.program.startswith("fused"):
        raise Missing(predictor.program)
    description = predictor.description
    return predictor, (description.channels, *description.image_size)


def _eager(spec: Spec) -> Ready:
    import paddle

    from cait.zoo import create_model

    if spec.precision != "fp32":
        raise Missing("PaddlePaddle has no eager bf16 on the CPU")
    paddle.set_device("cpu")  # before the weights are made: they lie where they were made
    model = create_model(spec.source)
    model.eval()

    def run(images: np.ndarray) -> Any:
        with paddle.no_grad():
            return model(paddle.to_tensor(images)).numpy()

    return run, (3, *model.image_size)


def _timm(spec: Spec) -> Ready:
    import torch
    from timm import create_model

    torch.set_num_threads(spec.threads)
    dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
    model = create_model(spec.source).eval().to(dtype)
    call = torch.compile(model) if spec.kind == "timm compiled" else model

    def run(images: np.ndarray) -> Any:
        with torch.inference_mode():
            return call(torch.from_numpy(images).to(dtype)).float().numpy()

    return run, model.pretrained_cfg["input_size"]


def _onnxruntime(spec: Spec) -> Ready:
    import onnxruntime

    if spec.precision != "fp32":
        raise Missing("ONNX Runtime computes in bf16 only what was exported in it")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec.threads
    session = onnxruntime.InferenceSession(spec.source, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return lambda images: session.run(None, {entry.name: images}), tuple(entry.shape[1:])


def _openvino(spec: Spec) -> Ready:
    import openvino

    core = openvino.Core()
    model = core.read_model(spec.source)
    shape = tuple(side.get_length() for side in list(model.input(0).partial_shape)[1:])
    model.reshape([spec.batch_size, *shape])
    settings = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[spec.precision],
        "INFERENCE_NUM_THREADS": spec.threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda images: request.infer({0: images}), shape


_MAKERS = {
    "fused": _bundle,
    "plain": _bundle,
    "gpu": _bundle,
    "tensorrt": _bundle,
    "eager": _eager,
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
    "timm": _timm,
    "timm compiled": _timm,
}


def _operators(run: Callable[[], Any], times: int) -> dict[str, float]:
    """Milliseconds a run of each kind of operator, by Paddle's profiler, which works once in a process."""
    from paddle import profiler

    recorder = profiler.Profiler(targets=[profiler.ProfilerTarget.CPU], on_trace_ready=lambda _: None)
    recorder.start()
    for _ in range(times):
        run()
    recorder.stop()
    total: dict[str, float] = collections.defaultdict(float)

    def add(node: Any) -> None:
        if node.type == profiler.TracerEventType.Operator:
            total[node.name.rpartition(".")[2]] += (node.end_ns - node.start_ns) / 1e6 / times
            return  # what an operator calls is part of it
        for child in node.children_node:
            add(child)

    for root in recorder.profiler_result.get_data().values():
        add(root)
    return dict(total)


def _gpu_peak_mb() -> float:
    """The largest memory that Paddle had for tensors on the GPU; TensorRT has its own beside it."""
    import paddle

    return paddle.device.cuda.max_memory_allocated() / 2**20


def _serve(spec: Spec) -> None:
    start_mb = peak_mb()
    try:
        call, shape = _MAKERS[spec.kind](spec)
    except (Missing, ImportError, RuntimeError) as reason:  # RuntimeError: a torchvision that does not fit torch
        print(json.dumps({"missing": str(reason).strip().splitlines()[0]}), flush=True)
        return
    images = np.random.default_rng(0).standard_normal((spec.batch_size, *shape)).astype("float32")
    call(images)
    print(json.dumps({"missing": ""}), flush=True)
    for line in sys.stdin:
        *word, number = line.split()
        if word:
            print(json.dumps(_operators(lambda: call(images), int(number))), flush=True)
            continue
        seconds = []
        for _ in range(int(number)):
            started = time.perf_counter()
            call(images)
            seconds.append(time.perf_counter() - started)
        found = {"seconds": seconds, "start_mb": start_mb, "peak_mb": peak_mb(), "gpu_peak_mb": None}
        if spec.kind in GPU_KINDS:
            found["gpu_peak_mb"] = _gpu_peak_mb()
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    run_command(lambda: _serve(Spec(**json.loads(sys.argv[1]))), leave_at_once=True)
