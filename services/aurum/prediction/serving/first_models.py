"""How far the training of the first models is, which the service tells with its models."""

from dataclasses import dataclass
from typing import Literal

TrainingState = Literal["waiting", "running", "done", "failed"]


@dataclass(slots=True)
class ModelTraining:
    """The training of the first model of a machine type.

    Attributes:
        machine_type: The machine type.
        state: How far it is.
        problem: Why it failed, and what happens next; empty if it did not.
    """

    machine_type: str
    state: TrainingState = "waiting"
    problem: str = ""
