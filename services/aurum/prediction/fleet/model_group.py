"""The machines of one type that have a model, and their windows."""

from dataclasses import dataclass, field

import numpy as np

from aurum.prediction.fleet.machine_table import NameIndex
from aurum.prediction.fleet.model_windows import ModelWindows
from aurum.prediction.fleet.step_locator import Integers
from aurum.prediction.model.features import FeatureSpec
from aurum.prediction.model.model import Model
from aurum.prediction.model.wear_index import WearIndex


@dataclass(slots=True)
class ModelGroup:
    """A model and the windows of its machines.

    Attributes:
        model: The champion of the machine type.
        windows: The windows.
        machine_of: The machine of each row; -1 for a free one.
    """

    model: Model
    windows: ModelWindows
    machine_of: Integers
    _free: list[int] = field(default_factory=list)
    _used: int = 0
    _columns: Integers = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def create(cls, model: Model, capacity: int) -> "ModelGroup":
        """Returns a group without machines, for at most `capacity`."""
        return cls(model, ModelWindows(model.spec, capacity), np.full(capacity, -1, np.int64))

    @property
    def machines(self) -> int:
        """The number of machines."""
        return self._used - len(self._free)

    @property
    def nbytes(self) -> int:
        """The memory of the windows that are used."""
        return self._used * ModelWindows.row_bytes(self.model.spec)

    def add(self, machine: int) -> int:
        """Returns a row for a machine; -1 without room."""
        if self._free:
            row = self._free.pop()
        elif self._used < len(self.machine_of):
            row, self._used = self._used, self._used + 1
        else:
            return -1
        self.machine_of[row] = machine
        self.windows.release(row)
        return row

    def release(self, row: int) -> None:
        """Removes the machine of a row."""
        self.windows.release(row)
        self.machine_of[row] = -1
        self._free.append(row)

    def columns_of(self, sensors: NameIndex) -> Integers:
        """Returns the column of the windows for each sensor, by its number; -1 if the model does not use it."""
        if len(self._columns) < len(sensors):
            more = [self.windows.column_of(name) for name in sensors.names[len(self._columns) :]]
            self._columns = np.concatenate([self._columns, np.array(more, np.int64)])
        return self._columns


def same_features(first: FeatureSpec, second: FeatureSpec) -> bool:
    """Whether two models compute the same features from the same readings."""
    if (first.axis, first.step, first.names, first.single) != (second.axis, second.step, second.names, second.single):
        return False
    if (first.derived.index or second.derived.index) and not _same_index(first.derived.index, second.derived.index):
        return False
    if first.regimes is None or second.regimes is None:
        return first.regimes is second.regimes
    return (first.regimes.columns, first.regimes.sensors) == (second.regimes.columns, second.regimes.sensors) and all(
        np.array_equal(getattr(first.regimes, name), getattr(second.regimes, name))
        for name in ("centers", "scale", "mean", "deviation")
    )


def _same_index(first: WearIndex | None, second: WearIndex | None) -> bool:
    if first is None or second is None:
        return False
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("mean", "weight", "share"))
