"""The machines that a scorer knows, as arrays by their index, and the series of a stream."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from aurum.prediction.fleet.step_locator import Flags, Integers
from aurum.readings.batch import Timestamps, Values
from aurum.readings.machine_shares import Hashes, name_hash

Indices = npt.NDArray[np.intp]

# How a machine is scored
APART, FILLING, BY_MODEL, BY_RULE, BY_QUERY = range(5)
"""Not at all, since others score it or nothing is known of it; not yet, since its window is being filled; with a model;
by the fallback rule; by a query for each prediction."""
MODES = ("apart", "filling", "model", "rule", "query")

_FIRST_SIZE = 256
_LIVE_US = 300_000_000  # a reading that arrives within this time was made live, not imported
_LIVE_BEFORE_US = 86_400_000_000  # the same for a reading that is already stored when its machine is taken over


class NameIndex:
    """Numbers names from 0."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._index: dict[str, int] = {}

    def __len__(self) -> int:
        """Returns the number of names."""
        return len(self.names)

    def find(self, name: str) -> int:
        """Returns the number of a name; -1 if it has none."""
        return self._index.get(name, -1)

    def number(self, name: str) -> int:
        """Returns the number of a name. A new name gets the next one."""
        index = self._index.setdefault(name, len(self.names))
        if index == len(self.names):
            self.names.append(name)
        return index


class MachineTable:
    """The known machines. They are bounded by the number of machines that ingestion keeps.

    All arrays are indexed by the number of the machine.

    Attributes:
        ids: The machines.
        types: Number of its type in `type_names`.
        hashes: The hash of its name, by which machines are divided.
        mode: How it is scored.
        row: Its row in the windows by which it is scored.
        dirty_since: When the first reading that is not scored arrived (monotonic seconds); 0 without any.
        scored_at: When it was last scored (monotonic seconds).
        acquired_at: When this scorer began to be responsible for it (monotonic seconds).
        last_seen: Time of its latest reading; 0 without any.
        latest_known: Whether the latest readings are known, also those from before the stream.
        live: Whether it has sent a reading of the moment, so that its silence means something.
        newcomer: Whether it appeared while this scorer ran. Its stored readings may be an import, and do not make it
            live; only readings of the stream do.
        risk: The predicted risk; NaN if there is none that a model made.
        rul: The predicted RUL likewise.
        anomaly: The anomaly score likewise.
        threshold: The anomaly score from which its model finds it unusual; 0 without one.
        predicted_us: The moment for which the prediction was made; 0 without one.
        gateways: Number of the gateway from which its readings come in `gateway_names`.
        sites: Number of its site in `site_names`.
        watched_time: watched_time[machine, sensor]: time of the latest reading of each sensor that alarm rules name.
        watched_value: Its value.
    """

    def __init__(self, watched_sensors: Iterable[str]) -> None:
        """Creates an empty table. watched_sensors: The sensors that alarm rules name."""
        self.ids = NameIndex()
        self.type_names = NameIndex()
        self.gateway_names = NameIndex()
        self.site_names = NameIndex()
        self.gateway_names.number("")
        self.site_names.number("")
        self.watched = tuple(watched_sensors)
        size, width = _FIRST_SIZE, len(self.watched)
        self.types: Integers = np.zeros(size, np.int64)
        self.hashes: Hashes = np.zeros(size, np.uint64)
        self.mode: Integers = np.zeros(size, np.int64)
        self.row: Integers = np.full(size, -1, np.int64)
        self.dirty_since: Values = np.zeros(size)
        self.scored_at: Values = np.zeros(size)
        self.acquired_at: Values = np.zeros(size)
        self.last_seen: Timestamps = np.zeros(size, np.int64)
        self.latest_known: Flags = np.zeros(size, np.bool_)
        self.live: Flags = np.zeros(size, np.bool_)
        self.newcomer: Flags = np.zeros(size, np.bool_)
        self.risk: Values = np.full(size, np.nan)
        self.rul: Values = np.full(size, np.nan)
        self.anomaly: Values = np.full(size, np.nan)
        self.threshold: Values = np.zeros(size)
        self.predicted_us: Timestamps = np.zeros(size, np.int64)
        self.gateways: Integers = np.zeros(size, np.int64)
        self.sites: Integers = np.zeros(size, np.int64)
        self.watched_time: Timestamps = np.zeros((size, width), np.int64)
        self.watched_value: Values = np.full((size, width), np.nan)

    def __len__(self) -> int:
        """Returns the number of machines."""
        return len(self.ids)

    def add(self, machine_id: str) -> int:
        """Returns the number of a machine, which is new or known."""
        number = self.ids.number(machine_id)
        if number == len(self.row):
            self._grow()
        if not self.hashes[number]:
            self.hashes[number] = name_hash(machine_id)
            self.types[number] = self.type_names.number("")
        return number

    def type_of(self, machine: int) -> str:
        """Returns the type of a machine; empty if it is not registered."""
        return self.type_names.names[int(self.types[machine])]

    def forget(self, machine: int) -> None:
        """Forgets everything of a machine that others score from now on, except its registration."""
        self.mode[machine] = APART
        self.row[machine] = -1
        self.dirty_since[machine] = self.scored_at[machine] = 0.0
        self.last_seen[machine] = self.predicted_us[machine] = 0
        self.latest_known[machine] = self.live[machine] = False
        self.risk[machine] = self.rul[machine] = self.anomaly[machine] = np.nan
        self.threshold[machine] = 0.0
        self.watched_time[machine], self.watched_value[machine] = 0, np.nan

    def watch(self, sensors: Iterable[str]) -> None:
        """Keeps the latest readings of further sensors, from their next readings on."""
        more = [sensor for sensor in dict.fromkeys(sensors) if sensor not in self.watched]
        self.watched += tuple(more)
        size = len(self.row), len(more)
        self.watched_time = np.concatenate([self.watched_time, np.zeros(size, np.int64)], axis=1)
        self.watched_value = np.concatenate([self.watched_value, np.full(size, np.nan)], axis=1)

    def note_latest(self, machine: int, sensor: str, at_us: int, value: float, now_us: int = 0) -> None:
        """Notes a stored reading that may be the latest of its series. now_us: The present time in µs since 1970."""
        self.live[machine] |= not self.newcomer[machine] and at_us >= now_us - _LIVE_BEFORE_US
        self.last_seen[machine] = max(int(self.last_seen[machine]), at_us)
        if sensor in self.watched:
            column = self.watched.index(sensor)
            if at_us >= self.watched_time[machine, column]:
                self.watched_time[machine, column], self.watched_value[machine, column] = at_us, value

    def note_readings(
        self, machines: Indices, watched: Indices, times: Timestamps, values: Values, now_us: int = 0
    ) -> None:
        """Notes readings of many machines that have just arrived.

        Args:
            machines: The machine of each reading.
            watched: The column of its sensor among the watched sensors; -1 if it is not watched.
            times: Its time.
            values: Its value.
            now_us: The present time in µs since 1970.
        """
        self.live[machines[times >= now_us - _LIVE_US]] = True
        np.maximum.at(self.last_seen, machines, times)
        at = np.flatnonzero(watched >= 0)
        if not len(at):
            return
        at = at[np.argsort(times[at], kind="stable")]  # assignments to the same place take effect in this order
        machines, watched, times, values = machines[at], watched[at], times[at], values[at]
        new = times >= self.watched_time[machines, watched]
        place = machines[new], watched[new]
        self.watched_time[place], self.watched_value[place] = times[new], values[new]

    def _grow(self) -> None:
        size = len(self.row)
        for name, array in list(vars(self).items()):
            if isinstance(array, np.ndarray):
                more = np.zeros((size, *array.shape[1:]), array.dtype)
                if array.dtype == np.float64 and name not in {"dirty_since", "scored_at", "acquired_at"}:
                    more[:] = np.nan
                elif name == "row":
                    more[:] = -1
                setattr(self, name, np.concatenate([array, more]))


class StreamSeries:
    """The machines and sensors of the series of one stream, by their numbers on the wire.

    Attributes:
        address: The replica of ingestion that sends the stream.
    """

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.machines: Integers = np.full(_FIRST_SIZE, -1, np.int64)
        self.sensors: Integers = np.full(_FIRST_SIZE, -1, np.int64)

    def define(self, number: int, machine: int, sensor: int) -> None:
        """Defines the series that a number stands for."""
        while number >= len(self.machines):
            more = np.full(len(self.machines), -1, np.int64)
            self.machines = np.concatenate([self.machines, more])
            self.sensors = np.concatenate([self.sensors, more])
        self.machines[number], self.sensors[number] = machine, sensor

    def of(self, numbers: Indices) -> tuple[Integers, Integers]:
        """Returns the machine and the sensor of each number; -1 for one that is not defined."""
        inside = np.minimum(numbers, len(self.machines) - 1)
        known = inside == numbers
        return np.where(known, self.machines[inside], -1), np.where(known, self.sensors[inside], -1)
