"""The state of one machine, as the calls of the ingestion service see it."""

from aurum.ingestion import machine_messages
from aurum.ingestion.machine_table import MachineTable
from aurum.ingestion.store import MachineRecord
from aurum.v1 import ingestion_pb2


class MachineState:
    """The present state of one machine. It follows the changes of the machine."""

    __slots__ = ("_machine", "_table")

    def __init__(self, table: MachineTable, machine: int) -> None:
        """Shows a machine of a table. machine: Its number."""
        self._table = table
        self._machine = machine

    @property
    def number(self) -> int:
        """The number of the machine in its table."""
        return self._machine

    @property
    def record(self) -> MachineRecord:
        """Its registration."""
        return self._table.records[self._machine]

    @property
    def site(self) -> str:
        """The site of the machine; empty without a registration."""
        return self._table.records[self._machine].site

    @property
    def first_seen_us(self) -> int:
        """The time of its first reading; 0 without readings."""
        return self._table.first_seen(self._machine)

    @property
    def last_seen_us(self) -> int:
        """The time of its last reading; 0 without readings."""
        return self._table.last_seen.item(self._machine)

    @property
    def version(self) -> int:
        """The version of the plant at the machine's last change."""
        return self._table.versions.item(self._machine)

    @property
    def sensor_count(self) -> int:
        """How many sensors with readings it has."""
        return len(self._table.series[self._machine])

    @property
    def sensors(self) -> dict[str, tuple[int, float]]:
        """Sensor → (time, value) of its last reading. It is made for each call."""
        latest = self._table.latest
        series = self._table.series[self._machine]
        readings = zip(map(latest.times.item, series), map(latest.values.item, series), strict=True)
        return dict(zip(self._table.sensors[self._machine], readings, strict=True))

    def sensor_names(self, only: set[str] | frozenset[str] = frozenset()) -> list[str]:
        """Returns the names of its sensors, sorted. only: The names to return, if there are any."""
        sensors = self._table.sensors[self._machine]
        if not only:
            return list(sensors)
        if 8 * len(only) < len(sensors):
            return sorted(filter(self.has_sensor, only))
        return sorted(only.intersection(sensors))

    def count_sensors(self, only: set[str] | frozenset[str]) -> int:
        """Returns how many of its sensors are among these; all if there are none."""
        return len(self.sensor_names(only)) if only else self.sensor_count

    def has_sensor(self, sensor: str) -> bool:
        """Returns whether a sensor has readings."""
        return self.series_of(sensor) is not None

    def series_of(self, sensor: str) -> int | None:
        """Returns the number of the series of a sensor, or None if it has no readings."""
        series = self._table.index.number_of((self.record.machine_id, sensor))
        return series if series is not None and self._table.latest.has_reading(series) else None

    def message(self, *, sensors: bool = True) -> ingestion_pb2.Machine:
        """Returns the state as a message. `sensors` says whether to include the last readings."""
        return machine_messages.message_of(self._table, self._machine, sensors=sensors)
