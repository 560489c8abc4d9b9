"""Stand-ins for the project's scripts that take a tenth of a second: the harness is tested, not they.

`BREAK=train` and the like in the environment breaks a step.
"""

from project import ROOT

HEAD = f"""
import csv, dataclasses, json, os, pathlib, sys
sys.path.insert(0, {str(ROOT / "CaiT")!r})
broken = os.environ.get("BREAK", "")
given = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
IMAGES = [f"img{{number}}.png" for number in range(3)]
"""

MAIN = (
    HEAD
    + """
folder = pathlib.Path(given.get("OUTPUT_DIR", "."))
if "-eval" in sys.argv:
    print("nothing" if broken == "evaluate" else "Validation Loss: 1.0, Validation Acc@1: 0.3333, time: 1.0")
elif "-pred" in sys.argv:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "predictions.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image_name", "rank", "class_id", "class_name", "prob"])
        for number, name in enumerate([] if broken == "predict" else IMAGES):
            rows.writerow([f"{given['IMAGES']}/{name}", 1, number, "a, b", 0.7])
            rows.writerow([f"{given['IMAGES']}/{name}", 2, number + 1, "c", 0.2])
else:
    if broken == "train":
        raise RuntimeError("out of luck")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.pdparams").write_bytes(b"trained" if broken != "nothing learnt" else b"start")
    epochs = int(given["TRAIN.NUM_EPOCHS"]) - (broken == "epochs")
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"epoch": n + 1}) + "\\n" for n in range(epochs)))
    for step in range(2):
        print(f"Epoch[001/002], Step[000{step}/0002], Avg Loss: 1, loss: 1.5 avg_reader_cost: 0.1 sec "
              f"avg_batch_cost: 0.1 sec ips: {10 * step + 1}.5 samples/s eta: 0:00:01")
"""
)

EXPORT = (
    HEAD
    + """
from cait.deploy.bundle import Description, write_description
from cait.files.digest import sha256_of
folder = pathlib.Path(given["--save-inference-dir"])
if broken != "export":
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("inference.json", "inference.pdiparams"):
        (folder / name).write_text(name)
    files = {name: sha256_of(folder / name) for name in ("inference.json", "inference.pdiparams")}
    weights = sha256_of(given["--model_path"] + ".pdparams") if broken != "verify" else "0" * 64
    known = {"variant": "stub", "image_size": [8, 8], "crop_pct": 1.0, "interpolation": "bicubic",
        "deep_grey": "scale", "patch_size": 4,
        "grid": [2, 2], "heads": 2,
        "channels": 1, "mean": [0.5], "std": [0.5], "class_names": ["a"], "weights": weights, "versions": {},
        "precision": "fp32", "outputs": ["logits"], "files": files, "self_test_seed": 0, "self_test_logits": [0.0]}
    write_description(folder, Description(**known))
"""
)

INFER = (
    HEAD
    + """
for number, name in enumerate(IMAGES[: len(IMAGES) - (broken == "image")] if broken != "infer" else []):
    class_id = number + 2 * (broken == "class" and number == 1)
    prob = 0.71 if broken == "prob" and number == 2 else 0.7
    print(f"image_name: {given['--image_dir']}/{name}, class_id: {class_id}, class_name: a, b, prob: {prob}")
if broken != "benchmark":
    print("[2026/01/01 00:00:00] root INFO:  preprocess_time(ms): 1, inference_time(ms): 1, postprocess_time(ms): 1")
"""
)


def write_stubs(folder):
    """Writes the scripts and data that look prepared; returns replacements of the shipped file's lines, by number."""
    data = folder / "data"
    (data / "weights").mkdir(parents=True)
    (folder / "released").mkdir()
    for place in (data / "weights", folder / "released"):
        (place / "start.pdparams").write_bytes(b"start")
    (data / "contents.json").write_text('{"train": "sample", "infer": "sample", "missing": {}}')
    (data / "test_list.txt").write_text("".join(f"infer/img{number}.png {2 * number}\n" for number in range(3)))
    for name, text in (("main", MAIN), ("export", EXPORT), ("infer", INFER)):
        (folder / f"{name}.py").write_text(text)
    return {
        2: "model_name:stub",
        10: f"MODEL.PRETRAINED:{data}/weights/start",
        12: f"train_infer_img_dir:{data}/infer",
        16: f"norm_train:'{folder}/main.py' -o",
        24: f"eval:'{folder}/main.py' 'IMAGES={data}/infer' -eval -o",
        30: f"norm_export:'{folder}/export.py'",
        37: f"infer_model:{folder}/released/start",
        38: f"infer_export:'{folder}/export.py'",
        40: f"inference:'{folder}/infer.py'",
        43: "--cpu_threads:1",
        44: "--batch_size:4",
        48: f"--image_dir:{data}/infer",
    }
