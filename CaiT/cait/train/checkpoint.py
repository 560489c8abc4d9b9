"""Checkpoints of a training run: saved whole or not at all, loaded so that the run goes on as if it had not stopped.

A checkpoint NAME is two files. `NAME.pdparams` holds the weights alone, for evaluation, export and anybody's
`paddle.load`. `NAME.pdstates` holds all that resuming needs, the weights among it: it is one file, so a kill
between two writes can never pair new weights with an old optimizer. Both end with a record, see `cait.weights.trailer`,
by which loading finds what was damaged since.
"""

import os
import pathlib
from collections.abc import Callable, Sequence

import paddle

from cait.errors import CaitError
from cait.model import CaiT
from cait.train.ema import ModelEma
from cait.train.optim import load_optimizer_state, optimizer_state
from cait.weights.checkpoints import find_states, go_on_instead
from cait.weights.find import STATES, WEIGHTS
from cait.weights.input_record import InputRecord, in_record, read_input, record_of
from cait.weights.load import load_weights, set_checked
from cait.weights.read import check_floats, load_tensors
from cait.weights.state_dict import named_tensors
from cait.weights.write import save_tensors

RECORDED = ("epoch", "step", "classes")  # what the record repeats of the progress


def save_checkpoint(
    folder: pathlib.Path,
    names: list[str],
    model: CaiT,
    optimizer: paddle.optimizer.Optimizer,
    progress: dict,
    ema: ModelEma | None = None,
    ema_names: Sequence[str] = (),
) -> None:
    """Saves a training run under several names; the first one's states are written last.

    A kill in between leaves the first name at the checkpoint before, and a run resumed from there writes the others
    again. So no name can stay behind what the first one says was done.

    Args:
        folder: of the run.
        names: such as `["latest", "best_model"]`.
        model, optimizer: what to save.
        progress: plain values that the run goes on from, `epoch` among them.
        ema: the average of the weights, if there is one; part of the states.
        ema_names: such as `["best_model_ema"]`: these get the averages as their weights, and no states.
    """
    weights = model.state_dict()
    states = {"model": dict(weights), "optimizer": optimizer_state(optimizer, model), "progress": dict(progress)}
    facts = in_record(record_of(model)) | {name: progress[name] for name in RECORDED if name in progress}
    if ema is not None:
        states["ema"] = dict(ema.averages)
        save_tensors(ema.averages, [folder / f"{name}{WEIGHTS}" for name in ema_names], facts)
    save_tensors(weights, [folder / f"{name}{WEIGHTS}" for name in names], facts)
    save_tensors(states, [folder / f"{name}{STATES}" for name in names], facts)


def _check_grid(model: CaiT, recorded: InputRecord | None, file: pathlib.Path) -> None:
    if recorded is not None and recorded.grid != tuple(model.grid_size):
        grids = ["{}x{}".format(*grid) for grid in (recorded.grid, model.grid_size)]
        raise CaitError(
            f"{file}: the state of a model with {grids[0]} patches, and this one has {grids[1]}; resume with its own "
            "DATA.IMAGE_SIZE, or start a new run from its weights by -pretrained, which resizes"
        )


def load_checkpoint(
    model: CaiT,
    optimizer: paddle.optimizer.Optimizer,
    path: str | os.PathLike,
    ema: ModelEma | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> dict | None:
    """Puts a run back where a checkpoint left it.

    Args:
        path: as for `find_states`. Where there is no `.pdstates`, the weights alone are loaded.
        ema: gets the saved averages; where there are none, it starts from the weights that were loaded.
        note: where there are weights alone, gets the lines on what was done to fit them, see `load_weights`.

    Returns:
        The saved progress; None where only weights were found.

    Raises:
        CaitError: no such checkpoint, of another model, or damaged: the message names the one to go on with.
    """
    stem, file = find_states(path)
    if not file.is_file():
        for line in load_weights(model, path if pathlib.Path(path).is_file() else stem)[1:]:
            note(line)
        if ema is not None:
            ema.restart()
        return None
    try:
        states = load_tensors(file)
    except CaitError as error:
        raise CaitError(f"{error}{go_on_instead(stem)}") from error
    if set(states) - {"ema"} != {"model", "optimizer", "progress"}:
        raise CaitError(f"{file}: not the state of a training run")
    weights = check_floats(named_tensors(states["model"], file), str(file))
    _check_grid(model, read_input(file, weights), file)
    set_checked(model, weights, file)
    load_optimizer_state(optimizer, model, states["optimizer"])
    if ema is not None:
        ema.restart()
        ema.load(states.get("ema", {}))
    return states["progress"]
