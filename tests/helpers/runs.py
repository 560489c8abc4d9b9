"""What the folders of runs hold, and when two of them are equal."""

import json

import numpy as np

from cait.weights.read import load_tensors

# Lines of metrics.jsonl.
ROWS = [
    {"epoch": 1, "lr": 0.1, "train_loss": 2.0, "train_acc1": 0.1},
    {"epoch": 2, "lr": 0.05, "train_loss": 1.0, "train_acc1": 0.5, "val_loss": 1.5, "val_acc1": 0.4},
    {"epoch": 3, "lr": 0.01, "train_loss": 0.5, "train_acc1": 0.9, "val_loss": 1.4, "val_acc1": 0.6},
]

# Everything that is random or averaged, saved after every second step of an epoch of five.
WHOLE_RECIPE = {
    "AUG.AUTO_AUGMENT": "rand-m9-mstd0.5-inc1", "AUG.COLOR_JITTER": 0.3, "AUG.RANDOM_ERASING": 0.5,
    "AUG.REPEATED_AUG": 3, "AUG.MIXUP": 0.8, "AUG.CUTMIX": 1.0, "TRAIN.SMOOTHING": 0.1, "TRAIN.EMA_DECAY": 0.9,
    "TRAIN.LAYER_DECAY": 0.8, "TRAIN.ACCUM_ITER": 2, "TRAIN.GRAD_CLIP": 1.0, "DATA.BATCH_SIZE": 4,
    "DATA.ON_BAD_IMAGE": "skip", "MODEL.DROP_PATH": 0.3, "MODEL.DROPOUT": 0.1, "SAVE_STEPS": 2, "SAVE_FREQ": 2,
}  # fmt: skip


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_timing(rows):
    return [{name: value for name, value in row.items() if name != "ips"} for row in rows]


def assert_same_weights(left, right):
    left, right = load_tensors(left), load_tensors(right)
    assert set(left) == set(right)
    for name in left:
        assert np.array_equal(left[name], right[name]), name


def assert_ends_equal(left, right):
    assert_same_weights(left / "latest.pdparams", right / "latest.pdparams")
    assert_same_weights(left / "best_model.pdparams", right / "best_model.pdparams")
    assert without_timing(rows_of(left)) == without_timing(rows_of(right))
    states = [load_tensors(folder / "latest.pdstates") for folder in (left, right)]
    assert set(states[0]) == set(states[1]) and states[0]["progress"] == states[1]["progress"]
    for part in set(states[0]) - {"progress"}:
        for name, value in states[0][part].items():
            assert np.array_equal(value, states[1][part][name]), name
    averages = [path.name for path in left.glob("*_ema.pdparams")]
    assert averages == [] or "ema" in states[0]
    for name in averages:
        assert_same_weights(left / name, right / name)
