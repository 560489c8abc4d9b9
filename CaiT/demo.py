"""The demo: real images, training, evaluation, prediction and deployment with the commands a user would type.

    python CaiT/demo.py          # or `make demo`, which makes the environment first

Leaves `output/demo/report.json` and `output/demo/learning_curves.png`; the run itself lies in a folder beside them.
"""

import interruptible  # noqa: F401  # isort: skip

import json
import pathlib
import subprocess
import sys
import time

from cait.command import stops
from cait.command.run import run_command
from cait.errors import CaitError
from cait.files import writable_folder, write_text

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = "configs/demo_digits.yaml"
FP32_ENGINES = ("Paddle Inference, oneDNN", "Paddle Inference, without oneDNN")


def _call(*words: str) -> float:
    """Runs a Python command of the project, shows it, and returns its seconds."""
    print(f"\n$ python {' '.join(words)}", flush=True)
    started = time.perf_counter()
    exit_code = subprocess.run([sys.executable, *words], cwd=ROOT).returncode
    if exit_code:
        stops.wait_for_own(exit_code)
        raise CaitError(f"the command above failed with exit code {exit_code}")
    return time.perf_counter() - started


def main() -> None:
    from cait.records.metrics import plot_learning_curves, read_metrics
    from cait.records.predictions import read_results
    from cait.weights.read import load_tensors

    demo = writable_folder(ROOT / "output" / "demo")
    run = demo.relative_to(ROOT) / time.strftime("run-%Y%m%d-%H%M%S")
    main_script, weights = "CaiT/main_single_gpu.py", f"-pretrained={run}/best_model"
    _call("CaiT/prepare_data.py", "digits")
    train_seconds = _call(main_script, f"-cfg={CONFIG}", f"-output_dir={run}")
    _call(main_script, f"-cfg={CONFIG}", weights, f"-output_dir={run}", "-eval")
    _call(main_script, f"-cfg={CONFIG}", weights, f"-output_dir={run}", "-pred", "-o", "PREDICT.TOP_K=1")
    bundle = [f"--save-inference-dir={run}/inference", "--with-attention"]
    _call("CaiT/export_model.py", f"-cfg={run}/config.yaml", f"--model_path={run}/best_model", *bundle)
    predictions = read_results(ROOT / run / "predictions.csv")
    image = predictions[0]["path"]
    inferred = run / "inference.csv"
    _call("CaiT/infer.py", f"--img-path={image}", f"--model_dir={run}/inference", f"--output={inferred}")
    gate = ["--deploy", f"{run}/inference", "--weights", f"{run}/best_model.pdparams", "--images", "dataset/digits/val"]
    _call("CaiT/check_alignment.py", *gate, "--output", f"{run}/alignment")
    rows = read_metrics(ROOT / run / "metrics.jsonl")
    alignment = json.loads((ROOT / run / "alignment" / "report.json").read_text())
    report = {
        "val_acc1": rows[-1]["val_acc1"],
        "train_seconds": round(train_seconds, 1),
        "epochs": rows[-1]["epoch"],
        "num_params": sum(tensor.size for tensor in load_tensors(ROOT / run / "best_model.pdparams").values()),
        "run": str(run),
        "predictions": predictions,
        "dygraph_class": predictions[0]["class"],
        "inference_class": read_results(ROOT / inferred)[0]["class"],
        "inference_max_abs_diff": max(row["max_diff"] for row in alignment["rows"] if row["name"] in FP32_ENGINES),
    }
    write_text(demo / "report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    plot_learning_curves({"demo": rows}, demo / "learning_curves.png", "CaiT on scanned digits")
    print(f"\nvalidation accuracy {report['val_acc1']:.4f} after {report['train_seconds']} s of training")
    print(f"{demo / 'report.json'} and {demo / 'learning_curves.png'} are written")


if __name__ == "__main__":
    run_command(main)
