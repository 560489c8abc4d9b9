"""Small models: made, trained a little, compared."""

import json

import numpy as np
import paddle
from paddle.nn import functional as F

from cait.align.golden import load_golden_weights
from cait.model import CaiT
from cait.train.optim import adamw
from project import GOLDEN


def small_model(**arguments):
    return CaiT(
        **{"image_size": 8, "patch_size": 4, "num_classes": 3, "embed_dim": 8, "depth": 1, "num_heads": 2} | arguments
    )


def trained(steps=1):
    model = small_model()
    optimizer = adamw(model, 0.05)
    optimizer.set_lr(1e-2)
    for _ in range(steps):
        F.cross_entropy(model(paddle.randn([2, 3, 8, 8])), paddle.to_tensor([1, 2])).backward()
        optimizer.step()
        optimizer.clear_grad()
    return model, optimizer


def assert_equal_weights(left, right):
    for (name, a), (_, b) in zip(left.named_parameters(), right.named_parameters()):
        assert np.array_equal(a.numpy(), b.numpy()), name


def seeded_model():
    paddle.seed(1)
    return small_model()


def tiny_golden_model() -> CaiT:
    arguments = json.loads((GOLDEN / "train_tiny.json").read_text())
    paddle.set_default_dtype("float64")
    names = ("patch_size", "embed_dim", "depth", "num_heads", "init_values", "num_classes")
    model = CaiT(image_size=arguments["img_size"], **{name: arguments[name] for name in names})
    load_golden_weights(model)
    return model


def one_step(model, optimizer):
    F.cross_entropy(model(paddle.ones([1, 3, 8, 8])), paddle.to_tensor([1])).backward()
    optimizer.step()
    optimizer.clear_grad()
