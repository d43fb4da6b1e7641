"""A fleet of simulated machines of several types, and the batches that their devices send."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aurum.readings.batch import Series, encode
from aurum.v1 import ingestion_pb2
from aurum_sim.machine_types import MACHINE_TYPES, MachineType
from aurum_sim.plant_model import MachineGroup, Step

_MACHINES_PER_BATCH = 10  # small batches let the receiver handle others in between
_READINGS_PER_BATCH = 50_000


@dataclass(frozen=True, slots=True)
class SimulatedBatch:
    """A batch to send, and the number of its readings."""

    message: ingestion_pb2.Batch
    readings: int


class Fleet:
    """Simulated machines, spread evenly over the types. The same seed produces the same fleet."""

    def __init__(self, machines: int, seed: int, source_id: str, prefix: str = "", types: Sequence[str] = ()) -> None:
        """Creates the machines. Raises ValueError for an unknown type or no machines."""
        unknown = sorted(set(types) - MACHINE_TYPES.keys())
        if unknown:
            raise ValueError(f"machine type {unknown[0]!r} does not exist; choose from {', '.join(MACHINE_TYPES)}")
        if machines < 1:
            raise ValueError("a fleet needs at least 1 machine")
        kinds: list[MachineType] = [MACHINE_TYPES[name] for name in types or MACHINE_TYPES]
        rng = np.random.default_rng(seed)
        self._source_id = source_id
        self._sequence = 0
        self._groups: list[tuple[MachineGroup, list[str]]] = []
        for index, kind in enumerate(kinds):
            count = machines // len(kinds) + (index < machines % len(kinds))
            if count:
                group = MachineGroup(kind, count, rng, worn=1.05)
                ids = [f"{prefix}{kind.name.replace('_', '-')}-{number:03d}" for number in range(1, count + 1)]
                self._groups.append((group, ids))

    @property
    def machines(self) -> list[tuple[str, str]]:
        """Id and type of each machine."""
        return [(machine_id, group.kind.name) for group, ids in self._groups for machine_id in ids]

    @property
    def groups(self) -> list[tuple[MachineGroup, list[str]]]:
        """The machines of each type, and their ids in the same order."""
        return self._groups

    @property
    def sensors(self) -> dict[str, tuple[str, ...]]:
        """The sensors of each machine."""
        return {machine_id: tuple(group.sensors) for group, ids in self._groups for machine_id in ids}

    def advance(self, hours: float, timestamps_us: Sequence[int]) -> Iterator[SimulatedBatch]:
        """Advances by one step of some operating hours for each timestamp, and yields the batches with the readings."""
        pending: list[Series] = []
        readings = machines = 0
        for group, ids in self._groups:
            steps = [group.step(hours) for _ in timestamps_us]
            for machine, machine_id in enumerate(ids):
                series = _series_of(group, machine, machine_id, steps, timestamps_us)
                pending.extend(series)
                readings += sum(len(column.values) for column in series)
                machines += 1
                if machines >= _MACHINES_PER_BATCH or readings >= _READINGS_PER_BATCH:
                    yield self._batch(pending, readings)
                    pending, readings, machines = [], 0, 0
        if pending:
            yield self._batch(pending, readings)

    def _batch(self, series: list[Series], readings: int) -> SimulatedBatch:
        self._sequence += 1
        return SimulatedBatch(encode(self._source_id, self._sequence, series), readings)


def _series_of(
    group: MachineGroup, machine: int, machine_id: str, steps: list[Step], timestamps_us: Sequence[int]
) -> list[Series]:
    series = []
    times = np.array(timestamps_us, dtype=np.int64)
    values = np.array([step.values[machine] for step in steps])
    present = np.array([step.present[machine] for step in steps])
    complete = np.asarray(present.all(axis=0))
    for column, sensor in enumerate(group.sensors):
        if complete[column]:
            series.append(Series(machine_id, sensor, times, values[:, column]))
        elif (is_present := present[:, column]).any():
            series.append(Series(machine_id, sensor, times[is_present], values[is_present, column]))
    return series
