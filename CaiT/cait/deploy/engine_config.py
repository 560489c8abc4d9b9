"""Checks whether this machine can run an `Engine`, and configures Paddle Inference for it."""

import pathlib

import paddle
from paddle import inference

from cait.deploy.bundle import PARAMETERS, Description
from cait.deploy.bundle_folder import STEM
from cait.deploy.engine import Engine, why_never
from cait.machine.device import has_gpu
from cait.machine.processor import CPUINFO, processor_fields
from cait.ops.library import OperatorsUnavailable, register

GPU_MEMORY_MB = 256  # reserved at first; it grows
TENSORRT_WORKSPACE = 1 << 30
# What Paddle Inference and Paddle's TensorRT call the precisions.
PRECISION_TYPES = {"fp32": "Float32", "fp16": "Half", "bf16": "Bfloat16"}
TENSORRT_MODES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16"}


def why_not(engine: Engine) -> str:
    """Why this machine cannot run an engine; empty if it can."""
    if reason := why_never(engine):
        return reason
    if engine.use_gpu and not has_gpu():
        return "a GPU was asked for, but there is none, or this PaddlePaddle is the CPU build"
    if engine.tensorrt and (reason := why_no_tensorrt()):
        return reason
    if engine.use_gpu and engine.precision == "bf16" and not paddle.amp.is_bfloat16_supported():
        return "this GPU has no bf16"
    if not engine.use_gpu and engine.precision == "bf16" and not processor_has_bf16():
        return "this processor has no bf16 instructions"
    return ""


def why_no_tensorrt() -> str:
    """Every PaddlePaddle for GPUs was built with it, but it has to be installed as well."""
    built_with = inference.get_trt_compile_version()
    if not any(built_with):
        return "this PaddlePaddle was built without TensorRT"
    if not any(inference.get_trt_runtime_version()):
        version = ".".join(map(str, built_with))
        return f"TensorRT is not installed, or its libraries are not found; this PaddlePaddle was built with {version}"
    return ""


def processor_has_bf16(cpuinfo: str = CPUINFO) -> bool:
    """Whether the processor says that it has AVX-512 or AMX instructions for bf16."""
    return bool(set(processor_fields(cpuinfo).get("flags", "").split()) & {"avx512_bf16", "amx_bf16"})


def choose_program(engine: Engine, description: Description) -> tuple[tuple[str, str], str]:
    """The files of the program and parameters that an engine runs, and a line that tells which they are and why."""
    plain = (description.program, PARAMETERS)
    if engine.use_gpu or not engine.onednn:
        return plain, "plain program: the fused one is for CPUs with oneDNN"
    if not engine.fused:
        return plain, "plain program, as asked for"
    files = description.fused_files(engine.computes_in)
    if not files:
        return plain, f"plain program: the bundle was exported without a fused one of {engine.precision}"
    try:
        return files, f"fused program, {engine.precision}, {register()} instructions"
    except OperatorsUnavailable as reason:
        return plain, f"plain program: the fused operators cannot be used here: {reason}"


def paddle_config(
    folder: pathlib.Path,
    files: tuple[str, str],
    engine: Engine,
    description: Description,
    scratch: pathlib.Path | None,
) -> inference.Config:
    """Paddle's configuration for a bundle.

    Args:
        folder: of the bundle.
        files: as `choose_program` says.
        engine: one that this machine can run, with a precision.
        description: of the bundle.
        scratch: for TensorRT, a folder that may be emptied once the predictor is made.
    """
    program, parameters = (folder / name for name in files)
    if engine.tensorrt and program.suffix == ".json" and scratch is not None:
        program, parameters = _through_tensorrt(folder, engine, description, scratch)
    config = inference.Config(str(program), str(parameters))
    if program.suffix == ".json":  # without these two, creating a predictor with memory optimisation fails
        config.enable_new_ir()
        config.enable_new_executor()
    config.enable_memory_optim()
    config.disable_glog_info()
    if engine.use_gpu:
        precision = getattr(inference.PrecisionType, PRECISION_TYPES[engine.computes_in])
        config.enable_use_gpu(GPU_MEMORY_MB, 0, precision)
        if engine.tensorrt and program.suffix == ".pdmodel":
            config.enable_tensorrt_engine(
                workspace_size=TENSORRT_WORKSPACE,
                max_batch_size=engine.max_batch_size,
                min_subgraph_size=3,
                precision_mode=precision,
                use_static=False,
                use_calib_mode=False,
            )
            config.enable_tuned_tensorrt_dynamic_shape()
        return config
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(engine.cpu_threads)
    if engine.onednn:
        config.enable_mkldnn()
        if engine.precision == "bf16" and files[1] == PARAMETERS:  # the fused program has it in its weights
            config.enable_mkldnn_bfloat16()
    elif hasattr(config, "disable_mkldnn"):  # PaddlePaddle 3 uses oneDNN by default
        config.disable_mkldnn()
    return config


def _through_tensorrt(
    folder: pathlib.Path, engine: Engine, description: Description, scratch: pathlib.Path
) -> tuple[pathlib.Path, pathlib.Path]:
    """PaddlePaddle 3 makes a new program with TensorRT's engines in it; there is none for the CPU to try this with."""
    from paddle import tensorrt

    def shape(batch_size: int) -> tuple[int, ...]:
        return (batch_size, description.channels, *description.image_size)

    largest = shape(engine.max_batch_size)
    inputs = tensorrt.Input(min_input_shape=shape(1), optim_input_shape=largest, max_input_shape=largest)
    config = tensorrt.TensorRTConfig(inputs=[inputs])
    config.precision_mode = getattr(tensorrt.PrecisionMode, TENSORRT_MODES[engine.computes_in])
    config.workspace_size = TENSORRT_WORKSPACE
    config.save_model_dir = str(scratch / STEM)
    tensorrt.convert(str(folder / STEM), config)
    return scratch / f"{STEM}.json", scratch / PARAMETERS
