"""Limits on machines and sensors, so that invented names cannot exhaust memory or fill messages."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from aurum.readings.batch import SeriesKey
from aurum.runtime.errors import ResourceExhaustedError


@dataclass(frozen=True, slots=True)
class PlantLimits:
    """Limits of a plant.

    Attributes:
        machines: The machines of the plant.
        sensors_per_machine: The sensors of a machine whose readings are kept.
        sensors_per_site: The same for a site. Machines without a site count as one site.
    """

    machines: int = 100_000
    sensors_per_machine: int = 10_000
    sensors_per_site: int = 1_000_000


class KnownMachine(Protocol):
    """A known machine."""

    @property
    def site(self) -> str:
        """The site; empty without a registration."""

    @property
    def sensor_count(self) -> int:
        """How many sensors with readings it has."""

    def has_sensor(self, sensor: str) -> bool:
        """Returns whether a sensor has readings."""


class KnownMachines(Protocol):
    """The known machines."""

    @property
    def count(self) -> int:
        """Their number."""

    def find(self, machine_id: str) -> KnownMachine | None:
        """Returns a machine, or None if it is unknown."""


@dataclass(slots=True)
class Reservation:
    """The sensors of a batch that were unknown when it arrived, by machine. They count until they are released."""

    sensors: dict[str, list[str]] = field(default_factory=dict)


class PlantCapacity:
    """Counts machines and sensors against the limits, including those of batches that are not durable yet.

    For one event loop.
    """

    def __init__(self, limits: PlantLimits) -> None:
        self._limits = limits
        self._sensors_by_site: Counter[str] = Counter()
        self._reserved: dict[str, Counter[str]] = {}  # by machine: sensors of batches not durable yet
        self._reserved_pairs = 0  # machines and sensors in it

    def count_sensors(self, site: str, sensors: int = 1) -> None:
        """Records that a site has more sensors, or fewer if the number is negative."""
        self._sensors_by_site[site] += sensors

    def reserve(self, unknown: Iterable[SeriesKey], machines: KnownMachines) -> Reservation:
        """Reserves room for the series of a batch that have no readings yet, until `release`.

        Args:
            unknown: These series.
            machines: The known machines.

        Raises:
            ResourceExhaustedError: If a limit is exceeded. The error has no retry delay, so it is permanent.
        """
        reservation = Reservation()
        for machine_id, sensor in unknown:
            reservation.sensors.setdefault(machine_id, []).append(sensor)
        if reservation.sensors:
            self._check(reservation, machines)
        for machine_id, sensors in reservation.sensors.items():
            counted = self._reserved.setdefault(machine_id, Counter())
            self._reserved_pairs -= len(counted)
            counted.update(sensors)
            self._reserved_pairs += len(counted)
        return reservation

    def release(self, reservation: Reservation) -> None:
        """Ends the reservation of a batch that is stored, or will not be."""
        for machine_id, sensors in reservation.sensors.items():
            counted = self._reserved[machine_id]
            self._reserved_pairs -= len(counted)
            counted.subtract(sensors)
            for sensor in sensors:
                if not counted[sensor]:
                    del counted[sensor]
            self._reserved_pairs += len(counted)
            if not counted:
                del self._reserved[machine_id]

    def has_reservation(self, machine_id: str) -> bool:
        """Returns whether a batch with an unknown sensor of the machine is on its way to the disk."""
        return machine_id in self._reserved

    def _check(self, reservation: Reservation, machines: KnownMachines) -> None:
        """Raises ResourceExhaustedError if a batch with these unknown sensors would exceed a limit."""
        limits = self._limits
        new = [machine_id for machine_id in reservation.sensors if machines.find(machine_id) is None]
        if new and machines.count + self._expected_machines(reservation, machines) + len(new) > limits.machines:
            raise ResourceExhaustedError(  # without the number of machines: the sender may be bound to some of them
                f"the limit of {limits.machines} machines is reached (AURUM_INGESTION_MAX_MACHINES); {min(new)} cannot "
                f"be added",
                reason="TOO_MANY_MACHINES",
            )
        more: Counter[str] = Counter()  # by site
        for machine_id, sensors in reservation.sensors.items():
            machine = machines.find(machine_id)
            present = machine.sensor_count if machine else 0
            expecting = self._reserved_sensors(machine_id, machine) + len(
                set(sensors).difference(self._reserved.get(machine_id, ()))
            )
            if present + expecting > limits.sensors_per_machine:
                raise ResourceExhaustedError(
                    f"machine {machine_id} has {present} sensors and {limits.sensors_per_machine} are allowed "
                    f"(AURUM_INGESTION_MAX_SENSORS_PER_MACHINE); {min(sensors)} cannot be added",
                    reason="TOO_MANY_SENSORS",
                )
            more[machine.site if machine else ""] += expecting
        sites = list(more)
        if any(
            self._sensors_by_site[site] + more[site] + self._reserved_pairs > limits.sensors_per_site for site in sites
        ):
            self._add_other_reservations(more, reservation, machines)
        for site in sites:
            if self._sensors_by_site[site] + more[site] > limits.sensors_per_site:
                raise ResourceExhaustedError(
                    f"site {site!r} has reached the limit of {limits.sensors_per_site} sensors "
                    f"(AURUM_INGESTION_MAX_SENSORS_PER_SITE); those of {min(reservation.sensors)} cannot be added",
                    reason="TOO_MANY_SENSORS",
                )

    def _expected_machines(self, reservation: Reservation, machines: KnownMachines) -> int:
        """Returns how many other unknown machines have reservations. Far from the limit it is an upper bound."""
        if machines.count + len(self._reserved) + len(reservation.sensors) <= self._limits.machines:
            return len(self._reserved)
        return sum(
            1
            for machine_id in self._reserved
            if machine_id not in reservation.sensors and machines.find(machine_id) is None
        )

    def _add_other_reservations(
        self, sensors_by_site: Counter[str], reservation: Reservation, machines: KnownMachines
    ) -> None:
        """Adds the reserved sensors of machines that have none in `reservation`."""
        for machine_id in self._reserved:
            if machine_id not in reservation.sensors:
                machine = machines.find(machine_id)
                sensors_by_site[machine.site if machine else ""] += self._reserved_sensors(machine_id, machine)

    def _reserved_sensors(self, machine_id: str, machine: KnownMachine | None) -> int:
        """Returns how many sensors of a machine are only reserved.

        Another batch with the same may have been applied already.
        """
        sensors = self._reserved.get(machine_id, ())
        return len(sensors) if machine is None else sum(1 for sensor in sensors if not machine.has_sensor(sensor))
