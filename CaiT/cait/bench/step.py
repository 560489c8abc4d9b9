"""One training configuration in a process of its own: seconds and peak memory of a step, and its gradients.

    python -m cait.bench.step '{"variant": "cait_xxs24_224", "batch_size": 1}'

prints them as JSON. The peak is the largest resident memory of the process, PaddlePaddle and the model included.
"""

import dataclasses
import json
import sys
import time
from typing import Any

from cait.bench.measure import run_command_line, tell
from cait.command import run_command
from cait.processor import peak_mb


@dataclasses.dataclass(frozen=True)
class Step:
    """What is trained.

    Attributes:
        variant: as `create_model` takes it.
        batch_size: images.
        arguments: of the model, in place of the variant's, such as `depth`.
        recompute, query_chunk: see `CaiT.save_memory`.
        steps: that are timed, after one that is not.
        gradients: file for the gradients of the first step, or None.
    """

    variant: str = "cait_xxs24_224"
    batch_size: int = 1
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    recompute: bool = False
    query_chunk: int | None = None
    steps: int = 1
    gradients: str | None = None


def _in_words(step: Step) -> str:
    options = {"batch_size": step.batch_size, "recompute": step.recompute, "query_chunk": step.query_chunk}
    return ", ".join(f"{name} {value}" for name, value in (options | step.arguments).items() if value)


def measure_step(step: Step) -> dict[str, Any]:
    """`seconds` of each step, `start_mb` with the fresh model and `peak_mb`, from a process started for it."""
    tell(f"training steps of {step.variant}: {_in_words(step)}")
    words = ["-m", "cait.bench.step", json.dumps(dataclasses.asdict(step))]
    return json.loads(run_command_line(words).splitlines()[-1])


def _train(step: Step) -> dict[str, Any]:
    import numpy as np
    import paddle

    from cait.device import DEVICE_FLAGS
    from cait.losses import cross_entropy
    from cait.zoo import create_model

    paddle.set_device("cpu")
    paddle.set_flags(DEVICE_FLAGS["cpu"])  # as training does
    paddle.seed(0)
    model = create_model(step.variant, drop_path=0.0, init_values=1.0, **step.arguments)
    model.save_memory(step.recompute, step.query_chunk)
    optimizer = paddle.optimizer.AdamW(1e-4, parameters=model.parameters())
    rng = np.random.default_rng(0)
    images = paddle.to_tensor(rng.standard_normal((step.batch_size, 3, *model.image_size)).astype("float32"))
    labels = paddle.to_tensor(rng.integers(0, 1000, step.batch_size))
    start_mb, seconds = peak_mb(), []
    for number in range(1 + step.steps):
        started = time.perf_counter()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        if number == 0 and step.gradients:
            np.save(step.gradients, np.concatenate([p.grad.numpy().ravel() for p in model.parameters()]))
        optimizer.step()
        optimizer.clear_grad()
        float(loss)
        if number:
            seconds.append(time.perf_counter() - started)
    return {"seconds": seconds, "start_mb": start_mb, "peak_mb": peak_mb()}


if __name__ == "__main__":
    run_command(lambda: print(json.dumps(_train(Step(**json.loads(sys.argv[1]))))), leave_at_once=True)
