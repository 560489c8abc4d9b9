"""The chain to ONNX: export with `--onnx`, inference with ONNX Runtime, compared with the model's own predictions."""

import pathlib

from cait.deploy.onnx_file import missing_tools
from harness import ROOT, TIPC
from harness.data import lite_command
from harness.parameters import LineFile, Rule
from harness.steps import ChainStep, exported, inferred, predicted

_INTEGERS = r"[1-9]\d*(?:\|[1-9]\d*)*", "a whole number from 1; several with | between"


class OnnxParameters(LineFile):
    """The parameter file of the chain to ONNX."""

    rules = {
        2: Rule(("model_name",), r"\w[\w.-]*", "a name of letters, digits, `_`, `.` and `-`"),
        3: Rule(("python",), r"\S+", "the name of a Python interpreter"),
        4: Rule(("2onnx",), words="the export command"),
        5: Rule(("--model_path", "--pretrained"), words="weights, without suffix"),
        6: Rule(("--save-inference-dir", "--save_inference_dir")),
        7: Rule(("inference",), words="the command of inference with ONNX Runtime"),
        8: Rule(("--batch_size",), *_INTEGERS),
        9: Rule(("--model_dir",)),
        10: Rule(("--image_dir",), words="a folder of images"),
        11: Rule(("pred",), words="the command of the model's own predictions"),
        12: Rule(("MODEL.PRETRAINED", "-pretrained")),
        13: Rule(("OUTPUT_DIR", "-output_dir")),
        14: Rule(("DEVICE", "null"), r"cpu|gpu|auto", "cpu, gpu or auto"),
    }
    headers = {1: "paddle2onnx_params"}
    never_null = (2, 3, 4, 5, 7, 8, 10, 11)
    lengths = (14,)


def onnx_prepare_command(parameters: OnnxParameters) -> list[str]:
    """The command that makes the images and weights of the chain."""
    weights, folder = pathlib.Path(parameters.value(5)), pathlib.Path(parameters.value(10)).parent
    return lite_command(parameters.value(3), folder, weights, parameters.words(4))


def onnx_steps(parameters: OnnxParameters, output: pathlib.Path) -> list[ChainStep]:
    """Export, the model's predictions, and ONNX Runtime with every batch size."""
    python, weights = parameters.value(3), parameters.value(5)
    bundle, table = output / "inference", output / "pred" / "predictions.csv"
    missing = missing_tools()
    skip = f"{' and '.join(missing)} not installed (requirements-onnx.txt)" if missing else ""
    words = [python, *parameters.words(4), *parameters.pair(5), *parameters.pair(6, bundle)]
    steps = [
        ChainStep(
            "export", words, output / "export.log", skip=skip, left_undone=exported(ROOT / bundle, "inference.onnx")
        )
    ]
    words = [python, TIPC, "verify", f"--bundle={bundle}", f"--weights={weights}.pdparams"]
    steps.append(ChainStep("verify", words, output / "verify.log", needs=("export",)))
    words = [python, *parameters.words(11), *parameters.pair(12, weights), *parameters.pair(14)]
    words += parameters.pair(13, table.parent)
    steps.append(ChainStep("predict", words, output / "pred.log", skip=skip, left_undone=predicted(ROOT / table)))
    for batch in parameters.values(8):
        name = f"paddle2onnx_infer_cpu_batchsize_{batch}"
        log = output / f"{name}.log"
        words = [python, *parameters.words(7), *parameters.pair(8, batch)]
        words += parameters.pair(9, bundle) + parameters.pair(10)
        steps.append(ChainStep(f"infer {name}", words, log, needs=("verify",), left_undone=inferred(ROOT / log, False)))
        words = [python, TIPC, "compare", f"--table={table}", f"--log={log}", "--precision=fp32"]
        needs = (f"infer {name}", "predict")
        steps.append(ChainStep(f"compare {name}", words, output / f"{name}_compare.txt", needs=needs, proves=True))
    return steps
