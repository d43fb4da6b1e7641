"""Accounts of ten thousand machines: they are answered, and keep the hours of sums only."""

import gc
import weakref
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest

from aurum.api.accounting.budget import AccountBudget
from aurum.api.accounting.group_measurement import GroupMeasurement
from aurum.api.accounting.measurement import MachineSelection, measure_use
from aurum.api.backends import IngestionBackend
from aurum.runtime.errors import InvalidArgumentError
from aurum.sustainability.hourly import HourlyAmounts, TimeRange
from aurum.sustainability.machine_use import MachineUse, Quantity, group_use, sum_energy
from aurum.sustainability.plan import AccountingPlan, Meters, PowerMeter
from aurum.v1 import columns_pb2, ingestion_pb2

HOUR = 3_600_000_000
MACHINES = 10_000
OVER = TimeRange(480_000 * HOUR, 480_048 * HOUR)
PLAN = AccountingPlan(meters={"*": Meters(power=PowerMeter(sensor="kw"))}, lines={"front": ("m-0*",)})
ENERGY: tuple[Quantity, ...] = ("energy",)


class Ingestion:
    """Ten thousand machines at two sites, of which machine n uses n kWh in an hour; one in ten has no readings."""

    async def list_machines(self, request: ingestion_pb2.ListMachinesRequest) -> ingestion_pb2.ListMachinesResponse:
        start = int(request.page_token or "0")
        numbers = range(start, min(MACHINES, start + request.page_size))
        return ingestion_pb2.ListMachinesResponse(
            machines=[
                ingestion_pb2.Machine(machine_id=f"m-{each:05}", machine_type="pump", site="ab"[each % 2])
                for each in numbers
            ],
            next_page_token=str(numbers.stop) if numbers.stop < MACHINES else "",
        )

    async def integrate_meters(self, request: ingestion_pb2.IntegrateRequest) -> list[columns_pb2.MeterColumns]:
        hours = (request.end_us - request.start_us) // HOUR
        return [
            columns_pb2.MeterColumns(
                machine_id=machine_id,
                sensor="kw",
                amounts=np.full(hours, float(machine_id[2:])).tobytes(),
                covered_seconds=np.full(hours, 3600.0).tobytes(),
            )
            for machine_id in request.machine_ids
            if int(machine_id[2:]) % 10
        ]


def is_metered(use: MachineUse) -> bool:
    return use.energy is not None


async def test_ten_thousand_machines_are_summed() -> None:
    arrays: list[weakref.ref[np.ndarray]] = []
    most = 0

    def note(use: MachineUse) -> None:
        nonlocal most
        arrays.append(weakref.ref(cast("HourlyAmounts", use.energy).amount))
        if len(arrays) % 1000 == 0:
            gc.collect()
            most = max(most, sum(array() is not None for array in arrays))

    with AccountBudget().reservation() as reservation:
        measurement = GroupMeasurement(
            cast("IngestionBackend", Ingestion()), PLAN, MachineSelection(), OVER, ENERGY, reservation
        )
        measured = await measurement.measure(is_metered, note)
    used = [number for number in range(MACHINES) if number % 10]
    assert totals(measured.sums) == pytest.approx(48 * sum(used), rel=1e-12)
    by_site = group_use(measured.sums, "site")
    assert totals(by_site["a"]) == pytest.approx(48 * sum(n for n in used if n % 2 == 0), rel=1e-12)
    by_line = group_use(measured.sums, "line")
    assert totals(by_line["front"]) == pytest.approx(48 * sum(used), rel=1e-12)
    assert sum_energy(measured.sums, OVER).coverage == pytest.approx(0.9)
    assert len(arrays) == MACHINES
    assert len(measured.sums) == 2
    assert most < 1000


def totals(used: Sequence[MachineUse]) -> float:
    return sum_energy(used, OVER).total


async def test_too_many_hours_by_machine_are_refused() -> None:
    """A file by machine over a year would hold gigabytes; the refusal says what to ask for instead."""
    year = TimeRange(OVER.start, OVER.start + 365 * 24 * HOUR)
    ingestion = cast("IngestionBackend", Ingestion())
    with (
        AccountBudget().reservation() as reservation,
        pytest.raises(InvalidArgumentError, match="a sum by line or site"),
    ):
        await measure_use(ingestion, PLAN, MachineSelection(), year, ENERGY, reservation)
