"""The settings of the checks."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is checked, on what.

    Attributes:
        model: YAML of the model.
        device: cpu or gpu.
        scratch: folder for what the checks leave to each other.
        batch_size: images of the training steps.
        stall_seconds: for which a process of two does nothing.
        step_seconds: no batch is enlarged once a step or an answer takes longer.
    """

    model: str
    device: str
    scratch: str
    batch_size: int = 4
    stall_seconds: float = 40.0
    step_seconds: float = 5.0

    @property
    def name(self) -> str:
        """The name of the model, which is that of its file."""
        return pathlib.Path(self.model).stem

    def file(self, name: str) -> str:
        """A path in the scratch folder."""
        return str(pathlib.Path(self.scratch) / name)
