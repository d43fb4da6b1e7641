"""How much of the accounts of energy, carbon and water is in memory at once."""

import csv
import io
import weakref
from collections.abc import Sequence
from typing import cast

import numpy as np
import pyarrow.parquet as pq
import pytest
from fastapi.responses import StreamingResponse
from hypothesis import given
from hypothesis import strategies as st

from aurum.api.accounting.budget import AccountBudget
from aurum.api.accounting.measurement import MachineSelection
from aurum.api.routes.accounts import AccountQuery, Format, columns_by_group, export
from aurum.api.table_export import Columns
from aurum.runtime.errors import ResourceExhaustedError
from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.hourly import HourlyAmounts, TimeRange
from aurum.sustainability.machine_use import MachineUse, sum_energy
from aurum.sustainability.plan import Meters

HOURS = 24 * 60
OVER = TimeRange(0, HOURS * HOUR_US)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 150)), max_size=40))
def test_accounts_stay_within_their_budget(steps: list[tuple[int, int]]) -> None:
    """All accounts together stay within the budget, unless there is only one; a refused one keeps what it had."""
    budget = AccountBudget(100)
    blocks = [budget.reservation() for _ in range(4)]
    reservations = [block.__enter__() for block in blocks]
    sizes = [0] * 4
    for index, size in steps:
        others = sum(sizes) - sizes[index]
        try:
            reservations[index].resize(size)
        except ResourceExhaustedError:
            assert others
            assert others + size > 100
        else:
            sizes[index] = size
            assert not others or not size or sum(sizes) <= 100
    for block in blocks:
        block.__exit__(None, None, None)
    with budget.reservation() as first, budget.reservation() as second:
        first.resize(1000)
        with pytest.raises(ResourceExhaustedError, match="retry later"):
            second.resize(1)


async def export_machines(file_format: Format, count: int) -> tuple[bytes, int]:
    """Exports machines. Returns the file, and how many of the machines so far were in memory at once at most."""
    groups = {f"m-{number}": [machine_use(f"m-{number}", float(number))] for number in range(count)}
    arrays = [weakref.ref(members[0].energy.amount) for members in groups.values() if members[0].energy]
    most = 0

    def columns(members: Sequence[MachineUse]) -> Columns:
        nonlocal most
        so_far = arrays[: 1 + int(members[0].machine_id[2:])]
        most = max(most, sum(array() is not None for array in so_far))
        return {"kwh": sum_energy(members, OVER).amount}

    with AccountBudget().reservation() as reservation:
        query = AccountQuery(MachineSelection(), OVER, "machine", file_format, reservation)
        response = await export(query, columns_by_group(groups, columns), ("kwh",), "energy")
    parts = cast("StreamingResponse", response).body_iterator
    return b"".join([bytes(cast("bytes", part)) async for part in parts]), most


def machine_use(machine_id: str, amount: float) -> MachineUse:
    energy = HourlyAmounts(0, np.full(HOURS, amount), np.zeros(HOURS), np.zeros(HOURS))
    return MachineUse(machine_id, "pump", "site", "line", Meters(), energy)


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
async def test_export_releases_machines_it_has_written(file_format: Format) -> None:
    """A file is written group by group: each is written once, in order, and released."""
    content, most = await export_machines(file_format, 120)
    if file_format == "csv":
        rows = [(row["machine"], float(row["kwh"])) for row in csv.DictReader(io.StringIO(content.decode()))]
    else:
        rows = [(row["machine"], row["kwh"]) for row in pq.read_table(io.BytesIO(content)).to_pylist()]
    assert rows == [(f"m-{number}", float(number)) for number in range(120) for _ in range(HOURS)]
    assert most <= 2
