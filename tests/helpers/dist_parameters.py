"""Trains as main_single_gpu.py does, and looks into every process: for tests/distributed/test_collectives.py.

dist_parameters.py FILE ...    saves the parameters, averages and optimizer state of each process in FILE<rank>.npz
dist_parameters.py float64 ... computes in double precision
dist_parameters.py nan ...     lets the loss of process 1 be nan
dist_parameters.py steps ...   saves the mean loss of every step in steps<rank>.json of the run; needs SAVE_STEPS=1
dist_parameters.py reads ...   ends with the places where a number is read while Python's lock is held
dist_parameters.py silence6 ... ends the run when nothing was heard of a process for 6 s
"""

import functools
import json
import pathlib
import sys
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "CaiT"))

from cait.command.run import run_command
from cait.config.flags import parse_command
from cait.distributed.launch import must_start, share_cores, start


def main():
    what, *words = sys.argv[1:]
    config = parse_command(words)
    if must_start(config.NGPUS):
        sys.exit(start(sys.argv, config.NGPUS))
    share_cores()
    import numpy as np

    from cait import zoo
    from cait.distributed import collectives
    from cait.train import jobs, losses, recipe, training
    from cait.train.optim import optimizer_state

    if what == "float64":
        import paddle

        paddle.set_default_dtype("float64")
        zoo.Normalize = functools.partial(zoo.Normalize, dtype="float64")
        jobs.run(config)
        return

    if what == "nan":
        plain = losses.label_smoothing_cross_entropy(0.0)
        scale = float("nan") if collectives.rank() == 1 else 1.0
        recipe.label_smoothing_cross_entropy = lambda smoothing: lambda *words: plain(*words) * scale
        jobs.run(config)
        return

    if what == "silence6":
        collectives.Watchdog = functools.partial(collectives.Watchdog, silence_seconds=6.0)
        jobs.run(config)
        return

    if what == "reads":
        import paddle

        found = set()

        def noting(name, real, tensor, *words):
            places = traceback.extract_stack()
            if not any(place.name == "all_gather_object" for place in places):  # to connect, once
                found.add(f"{name} at {places[-3].filename}:{places[-3].lineno}")
            return real(tensor, *words)

        for name in ("item", "__float__", "__int__", "__bool__", "__index__"):
            noted = functools.partial(noting, name, getattr(paddle.Tensor, name))
            setattr(paddle.Tensor, name, lambda tensor, *words, noted=noted: noted(tensor, *words))
        jobs.run(config)
        sys.exit("\n".join(sorted(found)) or 0)

    if what == "steps":
        sums, losses_of_steps, save = [], [], training.Run.save

        def remember_step(self, *words, **more):
            save(self, *words, **more)
            if "in_epoch" in more:
                states = more["in_epoch"]["states"]
                sums.append(np.sum([state[2] for state in states], axis=0))  # over the processes and the epoch so far
                loss, _, _, images = sums[-1] - (sums[-2] if states[0][0] > 1 else 0.0)
                losses_of_steps.append(loss / images)

        training.Run.save = remember_step
        jobs.run(config)
        pathlib.Path(config.OUTPUT_DIR, f"steps{collectives.rank()}.json").write_text(json.dumps(losses_of_steps))
        return

    found = {}
    run_class, start_equal = training.Run, training._start_equal

    def remember_start(config, progress, model, ema):
        start_equal(config, progress, model, ema)
        found.update({f"{name}/start": value.numpy().copy() for name, value in model.state_dict().items()})

    class Remembering(run_class):
        def save(self, *words, **more):
            super().save(*words, **more)
            found.update({name: value.numpy().copy() for name, value in self.model.state_dict().items()})
            found.update({f"{name}/ema": value.numpy().copy() for name, value in self.ema.averages.items()})
            state = optimizer_state(self.step.optimizer, self.model)
            found.update({f"{name}/state": np.asarray(value).copy() for name, value in state.items()})

    training.Run, training._start_equal = Remembering, remember_start
    collectives.BUCKET_ELEMENTS = 1000  # several buckets, and tensors larger than one
    jobs.run(config)
    np.savez(f"{what}{collectives.rank()}.npz", **found)


if __name__ == "__main__":
    run_command(main)
