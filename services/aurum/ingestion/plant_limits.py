"""Limits on machines and sensors, so that invented names cannot exhaust memory or fill messages."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aurum.readings.batch import Batch
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
    def sensors(self) -> Mapping[str, object]:
        """The sensors with readings, by name."""


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

    def count_sensors(self, site: str, sensors: int = 1) -> None:
        """Records that a site has more sensors, or fewer if the number is negative."""
        self._sensors_by_site[site] += sensors

    def reserve(self, batch: Batch, machines: Mapping[str, KnownMachine]) -> Reservation:
        """Reserves room for a batch until `release`.

        Args:
            batch: The batch.
            machines: The known machines.

        Raises:
            ResourceExhaustedError: If a limit is exceeded. The error has no retry delay, so it is permanent.
        """
        reservation = Reservation()
        for series in batch.series:
            machine = machines.get(series.machine_id)
            if machine is None or series.sensor not in machine.sensors:
                reservation.sensors.setdefault(series.machine_id, []).append(series.sensor)
        if reservation.sensors:
            self._check(reservation, machines)
        for machine_id, sensors in reservation.sensors.items():
            self._reserved.setdefault(machine_id, Counter()).update(sensors)
        return reservation

    def release(self, reservation: Reservation) -> None:
        """Ends the reservation of a batch that is stored, or will not be."""
        for machine_id, sensors in reservation.sensors.items():
            counted = self._reserved[machine_id]
            counted.subtract(sensors)
            for sensor in sensors:
                if not counted[sensor]:
                    del counted[sensor]
            if not counted:
                del self._reserved[machine_id]

    def has_reservation(self, machine_id: str) -> bool:
        """Returns whether a batch with an unknown sensor of the machine is on its way to the disk."""
        return machine_id in self._reserved

    def _check(self, reservation: Reservation, machines: Mapping[str, KnownMachine]) -> None:
        """Raises ResourceExhaustedError if a batch with these unknown sensors would exceed a limit."""
        limits = self._limits
        new = [machine_id for machine_id in reservation.sensors if machine_id not in machines]
        expected = sum(
            1 for machine_id in self._reserved if machine_id not in machines and machine_id not in reservation.sensors
        )
        if new and len(machines) + expected + len(new) > limits.machines:
            raise ResourceExhaustedError(  # without the number of machines: the sender may be bound to some of them
                f"the limit of {limits.machines} machines is reached (AURUM_INGESTION_MAX_MACHINES); {min(new)} cannot "
                f"be added",
                reason="TOO_MANY_MACHINES",
            )
        more: Counter[str] = Counter()  # by site
        for machine_id, sensors in reservation.sensors.items():
            machine = machines.get(machine_id)
            present = len(machine.sensors) if machine else 0
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
        for machine_id in self._reserved:
            if machine_id not in reservation.sensors:
                machine = machines.get(machine_id)
                more[machine.site if machine else ""] += self._reserved_sensors(machine_id, machine)
        for site in {
            machine.site if (machine := machines.get(machine_id)) else "" for machine_id in reservation.sensors
        }:
            if self._sensors_by_site[site] + more[site] > limits.sensors_per_site:
                raise ResourceExhaustedError(
                    f"site {site!r} has reached the limit of {limits.sensors_per_site} sensors "
                    f"(AURUM_INGESTION_MAX_SENSORS_PER_SITE); those of {min(reservation.sensors)} cannot be added",
                    reason="TOO_MANY_SENSORS",
                )

    def _reserved_sensors(self, machine_id: str, machine: KnownMachine | None) -> int:
        """Returns how many sensors of a machine are only reserved.

        Another batch with the same may have been applied already.
        """
        sensors = self._reserved.get(machine_id, ())
        return len(sensors) if machine is None else sum(1 for sensor in sensors if sensor not in machine.sensors)
