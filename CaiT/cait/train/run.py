"""A training run: what it works with, what of it is saved, and when."""

import dataclasses
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from yacs.config import CfgNode

from cait.data.build import Loaders
from cait.distributed import collectives
from cait.errors import CaitError
from cait.model import CaiT
from cait.records.metrics import plot_learning_curves, write_metrics
from cait.run_folder import CURVES, LATEST, METRICS
from cait.train.checkpoint import save_checkpoint
from cait.train.ema import ModelEma
from cait.train.evaluation import Classifier
from cait.train.loop import EpochState
from cait.train.step import TrainStep
from cait.weights.checkpoints import has_begun


@dataclasses.dataclass
class Run:
    """The data, what training changes, and where that is saved.

    Attributes:
        config: of the job.
        loaders: of images.
        step: the model and its optimizer.
        ema: the average of the weights, if there is one.
        evaluated: the same model in the precision of evaluations.
        plan: see `batch_plan`.
        progress: plain values: epochs and steps done, the best accuracies, `scale`, which is what a step was, and
            `in_epoch` in a checkpoint that was saved within one.
        rows: of `metrics.jsonl`, one an epoch.
        folder: of the run.
        log: of the job.
    """

    config: CfgNode
    loaders: Loaders
    step: TrainStep
    ema: ModelEma | None
    evaluated: Classifier
    plan: dict[str, Any]
    progress: dict[str, Any]
    rows: list[dict]
    folder: pathlib.Path
    log: logging.Logger

    @property
    def model(self) -> CaiT:
        """The model that is trained."""
        return self.evaluated.model

    def save(self, names: list[str], ema_names: Sequence[str] = (), **more: Any) -> None:
        """Saves under these names, with `more` beside the progress; process 0 writes, and all wait for it."""
        if collectives.rank() == 0:
            scale = self.step.precision.state()
            progress = self.progress | {"loss_scale": scale, "classes": self.loaders.classes.record()} | more
            save_checkpoint(self.folder, names, self.model, self.step.optimizer, progress, self.ema, ema_names)
            has_begun(self.folder)
        collectives.wait_for_all()

    def save_in_epoch(self, state: EpochState) -> None:
        """Saves `latest` within an epoch, which goes on from there."""
        step = self.progress["step"] + state.num_steps
        self.save([LATEST], step=step, in_epoch={"states": collectives.gather(tuple(state)), "plan": self.plan})

    def taken_up(self) -> EpochState:
        """Returns where this process broke off the coming epoch; its steps are taken out of the progress."""
        states = self.progress.pop("in_epoch", {}).get("states", [()] * collectives.world_size())
        state = EpochState(*states[collectives.rank()])
        self.progress["step"] -= state.num_steps  # to be counted with those of the whole epoch
        return state

    def keep(self, row: dict[str, Any], names: list[str], ema_names: Sequence[str] = ()) -> None:
        """Adds the row of an epoch, and saves under these names."""
        self.rows.append(row)
        if collectives.rank() == 0:
            # Before the checkpoint: resuming drops rows, but makes none up.
            write_metrics(self.folder / METRICS, self.rows)
        self.save(names, ema_names)

    def draw(self) -> None:
        """Draws the learning curves, if matplotlib is installed; the picture is an extra."""
        if collectives.rank() > 0:
            return
        try:
            plot_learning_curves({self.folder.name: self.rows}, self.folder / CURVES, self.folder.name)
        except CaitError as error:
            self.log.info("no %s: %s", CURVES, error)
