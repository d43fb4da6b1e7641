"""What a model is trained on, and how."""

from collections.abc import Sequence
from dataclasses import dataclass

from aurum.prediction.model.features import Derived, FeatureSpec
from aurum.prediction.training.specification import TrainingOptions
from aurum.prediction.training.table import Bools, Floats, Outcomes, Table
from aurum.prediction.training.wear_index_fit import design, fit_wear_index
from aurum.readings.history import Run


@dataclass(frozen=True, slots=True)
class Task:
    """What a model is trained on.

    Attributes:
        runs: The histories.
        table: Their rows, with the statistics of the sensors as features.
        target: The outcome of each row.
        spec: The specification of these features, without derived ones.
    """

    runs: Sequence[Run]
    table: Table
    target: Outcomes
    spec: FeatureSpec

    def features(self, derived: Derived) -> Floats:
        """Returns features[row, feature] with derived features."""
        return design(self.table, derived)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.

    Attributes:
        options: The options, with the chosen ones.
        wear_index: Whether there is a wear index.
        deviations: Whether there are deviations from what is usual for the machine.
        age_weight: Weight of the RUL by age alone, from 0 to 1.
    """

    options: TrainingOptions
    wear_index: bool = False
    deviations: bool = False
    age_weight: float = 0.0

    def derived(self, task: Task, rows: Bools) -> Derived:
        """Returns the derived features, fitted to some rows."""
        index = None
        if self.wear_index and task.target.left is not None:
            sensors = task.spec.sensors
            words = [position for position, name in enumerate(sensors) if name in self.options.categories]
            index = fit_wear_index(task.table, task.target.left, rows, len(sensors), words)
        return Derived(index, self.deviations)
