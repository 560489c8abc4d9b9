"""Commands, composed from the lines of the parameter file.

With SAVE = `<output>/<trainer>_gpus_<g>_autocast_<a>`, and numbers for lines:

    training            16 + 5 + 8=SAVE + 7 + 10 + 6 + 9 + 13
    evaluation          24 + 10=SAVE/11 + 5
    export              30 + 29=SAVE/11 + 28=SAVE
    inference, CPU      40 + 41 + 42 + 43 + 47 + 44 + 46 + 48 + 50
    inference, GPU      40 + 41 + 45 + 46 + 47 + 44 + 48 + 50

The model's own predictions, which inference is compared with, come from the evaluation command with `-pred` for `-eval`
and 8=SAVE/pred behind it.
"""

import pathlib
from collections.abc import Iterator

from harness.devices import why_not_infer
from harness.parameters import Parameters
from harness.rows import Row, inference_rows


def train_words(parameters: Parameters, row: Row, line: int, save: pathlib.Path, epochs: str, batch: str) -> list[str]:
    """The training command."""
    words = [parameters.value(3)]
    hosts, _, numbers = row.gpus.rpartition(";")
    if "," in numbers or hosts:
        words += ["-m", "paddle.distributed.launch", *([f"--ips={hosts}"] if hosts else []), f"--gpus={numbers}"]
    words += parameters.words(line)
    words += parameters.pair(5, row.device) + parameters.pair(8, save) + parameters.pair(7, epochs)
    return words + parameters.pair(10) + parameters.pair(6, row.autocast) + parameters.pair(9, batch)


def eval_words(parameters: Parameters, device: str, weights: str) -> list[str]:
    """The evaluation command."""
    return [parameters.value(3), *parameters.words(24), *parameters.pair(10, weights), *parameters.pair(5, device)]


def pred_words(parameters: Parameters, device: str, weights: str, folder: pathlib.Path) -> list[str]:
    """The command for the model's own predictions."""
    words = ["-pred" if word == "-eval" else word for word in eval_words(parameters, device, weights)]
    return words + parameters.pair(8, folder)


def export_words(parameters: Parameters, line: int, weights: str, folder: pathlib.Path) -> list[str]:
    """The export command."""
    return [parameters.value(3), *parameters.words(line), *parameters.pair(29, weights), *parameters.pair(28, folder)]


def inference_commands(
    parameters: Parameters, bundle: pathlib.Path, images: str
) -> Iterator[tuple[str, list[str], str, str]]:
    """Every configuration of lines 41 to 46: name of its log, command, why it cannot run here, precision."""
    head = [parameters.value(3), *parameters.words(40)]
    for row in inference_rows(parameters):
        number, precision = row.threads, row.precision
        if row.on_gpu:
            name = f"python_infer_gpu_usetrt_{row.tensorrt}_precision_{precision}_batchsize_{row.batch_size}"
            middle = parameters.pair(45, row.tensorrt) + parameters.pair(46, precision)
            end = parameters.pair(44, row.batch_size)
        else:
            name = f"python_infer_cpu_usemkldnn_{row.mkldnn}_threads_{number}_precision_{precision}"
            name += f"_batchsize_{row.batch_size}"
            middle = parameters.pair(42, row.mkldnn) + parameters.pair(43, number)
            end = parameters.pair(44, row.batch_size) + parameters.pair(46, precision)
        words = head + parameters.pair(41, row.use_gpu) + middle + parameters.pair(47, bundle) + end
        words += parameters.pair(48, images) + parameters.pair(50)
        yield name, words, why_not_infer(row.engine), precision
