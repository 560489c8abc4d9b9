"""The project that the tests see, which is a copy; what a small model and run are; how a command is run."""

import os
import pathlib
import subprocess
import sys

from isolation import isolate

ROOT = isolate()  # first of all: PaddlePaddle reads the environment when it is imported
SCRIPTS = sorted({*ROOT.glob("CaiT/*.py"), *ROOT.glob("test_tipc/*.py")} - {ROOT / "CaiT" / "interruptible.py"})
GOLDEN = ROOT / "tests" / "golden"
MAIN = str(ROOT / "CaiT" / "main_single_gpu.py")

# Commands of the README: they make its data set, and train on it.
DIGITS = "python CaiT/prepare_data.py digits"
TRAINED = "python CaiT/main_single_gpu.py -cfg=configs/demo_digits.yaml -epochs=15 -output_dir=output/digits"

CLASS_NAMES = [f"class {index}" for index in range(10)]

# A model that trains in a fraction of a second, on the digits.
TINY = {
    "DATA.IMAGE_SIZE": [16, 16],
    "DATA.MEAN": [0.5],
    "DATA.STD": [0.5],
    "DATA.BATCH_SIZE": 16,
    "DATA.NUM_WORKERS": 0,
    "DEVICE": "cpu",
    "MODEL.NAME": "tiny",
    "MODEL.PATCH_SIZE": 4,
    "MODEL.IN_CHANNELS": 1,
    "MODEL.NUM_CLASSES": 10,
    "MODEL.EMBED_DIM": 16,
    "MODEL.DEPTH": 1,
    "MODEL.DEPTH_TOKEN_ONLY": 1,
    "MODEL.NUM_HEADS": 2,
    "TRAIN.NUM_EPOCHS": 2,
    "TRAIN.WARMUP_EPOCHS": 0,
}


def run_python(*words: str, cwd: pathlib.Path = ROOT, **options) -> subprocess.CompletedProcess:
    """Runs `python *words` as a user would, and returns what it printed."""
    environment = {**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, **options
    )
