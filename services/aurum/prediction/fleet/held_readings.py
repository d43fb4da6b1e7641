"""Readings that arrive while windows are being filled from the store, for the machines of a fill in progress."""

from collections.abc import Mapping

import numpy as np

from aurum.prediction.fleet.machine_table import Indices
from aurum.readings.batch import Column, Timestamps, Values

_MOST = 2_000_000  # readings


class HeldReadings:
    """Readings in the order of the stream, by machine.

    Attributes:
        overflowed: Machines of which readings were dropped. They have to be filled again.
    """

    def __init__(self) -> None:
        self._parts: dict[int, list[tuple[Indices, Timestamps, Values]]] = {}
        self._count = 0
        self.overflowed: set[int] = set()

    def begin(self, machine: int) -> None:
        """Holds the readings of a machine from now on."""
        self.take(machine)
        self.overflowed.discard(machine)
        self._parts[machine] = []

    def hold(self, machines: Indices, sensors: Indices, times: Timestamps, values: Values) -> None:
        """Holds those of the readings whose machines are being filled."""
        if not self._parts:
            return
        filling = np.flatnonzero(np.isin(machines, np.fromiter(self._parts, np.intp, len(self._parts))))
        order = filling[np.argsort(machines[filling], kind="stable")]
        machines = machines[order]
        if not len(order):
            return
        begins = np.flatnonzero(np.append(True, machines[1:] != machines[:-1])).tolist()
        for start, end in zip(begins, [*begins[1:], len(machines)], strict=True):
            machine, part = int(machines[start]), order[start:end]
            if self._count + len(part) > _MOST:
                self.overflowed.add(machine)
                continue
            self._parts[machine].append((sensors[part], times[part], values[part]))
            self._count += len(part)

    def take(self, machine: int) -> tuple[Indices, Timestamps, Values]:
        """Returns the sensor, time and value of each reading of a machine, and holds no more of them."""
        parts = self._parts.pop(machine, [])
        if not parts:
            return np.empty(0, np.intp), np.empty(0, np.int64), np.empty(0)
        sensors, times, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        self._count -= len(values)
        return sensors, times, values


def not_in(
    columns: Mapping[str, Column], names: list[str], sensors: Indices, times: Timestamps, values: Values
) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    """Returns which readings are not among the given columns.

    Args:
        columns: The readings of a machine by sensor, sorted by time.
        names: The names of the sensors.
        sensors: The number of each reading's sensor.
        times: Its time.
        values: Its value.
    """
    new = np.ones(len(sensors), np.bool_)
    for sensor in np.unique(sensors).tolist():
        column = columns.get(names[sensor])
        if column is None or not len(column[0]):
            continue
        at = np.flatnonzero(sensors == sensor)
        position = np.minimum(np.searchsorted(column[0], times[at]), len(column[0]) - 1)
        found, stored = column[0][position], column[1][position]
        same = (stored == values[at]) | (np.isnan(stored) & np.isnan(values[at]))
        new[at] = ~((found == times[at]) & same)
    return new
