"""One training configuration in a process of its own: seconds and peak memory of a step, its loss and its gradients.

    python -m cait.bench.step '{"variant": "cait_xxs24_224", "batch_size": 1}'

prints them as JSON. The peak is the largest resident memory of the process, PaddlePaddle and the model included.
"""

import dataclasses
import json
import sys
import time
from typing import Any

from cait.bench.measure import run_command_line, tell
from cait.command.run import run_command
from cait.machine.processor import peak_mb

LOSS_SCALE = 2.0**10  # of float16: training begins higher, and its first steps, which overflow, lower it


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """What is trained.

    Attributes:
        variant: a published one, or the path of a YAML file of a model.
        batch_size: images.
        arguments: of the model, in place of the variant's, such as `depth`.
        recompute, query_chunk: see `CaiT.save_memory`.
        steps: that are timed, after one that is not.
        gradients: file for the gradients of the first step, one after the other, or None.
        weights: file for the weights after all steps, in the same way, or None.
        device: cpu or gpu.
        dtype: float32 or float64; float16 or bfloat16 are mixed precision, of `level` O1 or O2.
        golden: weights by the golden files' rule, which are the same on every device, or random ones.
    """

    variant: str = "cait_xxs24_224"
    batch_size: int = 1
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    recompute: bool = False
    query_chunk: int | None = None
    steps: int = 1
    gradients: str | None = None
    weights: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    level: str = "O1"
    golden: bool = False


def _in_words(step: StepSpec) -> str:
    options = {"batch_size": step.batch_size, "recompute": step.recompute, "query_chunk": step.query_chunk}
    mixed = f"{step.dtype} {step.level}" if step.dtype.endswith("16") else step.dtype
    return ", ".join([mixed, *(f"{name} {value}" for name, value in (options | step.arguments).items() if value)])


def measure_step(step: StepSpec) -> dict[str, Any]:
    """Measures the cost of a step, in a process started for it.

    Returns:
        `seconds` of each step, `loss` of the first one, `start_mb` with the fresh model and `peak_mb`; on a GPU also
        `gpu_peak_mb`, the largest memory that Paddle had for tensors there.

    Raises:
        CaitError: the process failed, such as for want of memory.
    """
    tell(f"training steps of {step.variant}: {_in_words(step)}")
    words = ["-m", "cait.bench.step", json.dumps(dataclasses.asdict(step))]
    return json.loads(run_command_line(words).splitlines()[-1])


def difference_of(found: str | None, expected: str | None) -> float:
    """Largest difference between two files of gradients, relative to the largest expected one; NaN as it comes."""
    import numpy as np

    assert found is not None and expected is not None
    ours, theirs = (np.load(file).astype("float64") for file in (found, expected))
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


class Trainer:
    """A model on its device, and a batch that it can make steps with; to be made once in a process.

    Attributes:
        model, optimizer: as prepared.
        images, labels: the batch: [B, C, height, width] and [B].
    """

    def __init__(self, step: StepSpec):
        import numpy as np
        import paddle

        from cait.align.golden import load_golden_weights
        from cait.config.read import make_config
        from cait.machine.device import select_device
        from cait.train.mixed_precision import build_precision

        select_device(step.device)
        mixed = {"AMP": True, "AMP_DTYPE": step.dtype, "AMP_LEVEL": step.level}
        self._precision = build_precision(make_config(mixed if step.dtype.endswith("16") else {}))
        if step.dtype == "float16":
            self._precision.load(self._precision.state() | {"scale": [LOSS_SCALE]})
        paddle.set_default_dtype("float64" if step.dtype == "float64" else "float32")
        paddle.seed(0)
        self.model = _model(step)
        if step.golden:
            load_golden_weights(self.model)
        self.model.save_memory(step.recompute, step.query_chunk)
        self.optimizer = paddle.optimizer.AdamW(1e-4, parameters=self.model.parameters())
        rng, channels = np.random.default_rng(0), self.model.patch_embed.proj.weight.shape[1]
        images = rng.standard_normal((step.batch_size, channels, *self.model.image_size))
        self.images = paddle.to_tensor(images, paddle.get_default_dtype())
        self.labels = paddle.to_tensor(rng.integers(0, self.model.head.weight.shape[1], step.batch_size))

    def backward(self, share: float = 1.0) -> float:
        """Adds the gradients of `share` times the batch's mean loss, unscaled, and returns that."""
        from cait.train.losses import cross_entropy

        logits = self._precision.run(self.model, self.images)
        loss = cross_entropy(logits, self.labels) * share
        self._precision.backward(loss)
        self._precision.unscale(self.optimizer)
        return float(loss)

    def step(self) -> None:
        """Moves the weights by the gradients, which are taken away."""
        self._precision.step(self.optimizer)
        self.optimizer.clear_grad()

    def gradients(self):
        """All gradients, one after the other."""
        return _flat(parameter.grad for parameter in self.model.parameters())

    def weights(self):
        """All weights, one after the other."""
        return _flat(self.model.parameters())


def _flat(tensors):
    import numpy as np

    return np.concatenate([tensor.numpy().ravel() for tensor in tensors])


def _model(step: StepSpec):
    from cait.config.read import make_config, read_yaml
    from cait.zoo import build_model, create_model

    if not step.variant.endswith(".yaml"):
        return create_model(step.variant, drop_path=0.0, init_values=1.0, **step.arguments)
    keys = {f"MODEL.{name.upper()}": value for name, value in step.arguments.items()}
    return build_model(make_config(read_yaml(step.variant) | {"MODEL.DROP_PATH": 0.0, "MODEL.INIT_VALUES": 1.0} | keys))


def _train(step: StepSpec) -> dict[str, Any]:
    import numpy as np
    import paddle

    trainer = Trainer(step)
    start_mb, seconds, losses = peak_mb(), [], []
    for number in range(1 + step.steps):
        started = time.perf_counter()
        losses.append(trainer.backward())
        if number == 0 and step.gradients:
            np.save(step.gradients, trainer.gradients())
        trainer.step()
        if number:
            if step.device == "gpu":
                paddle.device.synchronize()
            seconds.append(time.perf_counter() - started)
    if step.weights:
        np.save(step.weights, trainer.weights())
    found = {"seconds": seconds, "loss": losses[0], "start_mb": start_mb, "peak_mb": peak_mb()}
    if step.device == "gpu":
        found["gpu_peak_mb"] = paddle.device.cuda.max_memory_allocated() / 2**20
    return found


if __name__ == "__main__":
    run_command(lambda: print(json.dumps(_train(StepSpec(**json.loads(sys.argv[1]))))), leave_at_once=True)
