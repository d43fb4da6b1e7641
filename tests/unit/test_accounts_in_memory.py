"""How much of the accounts of energy, carbon and water is in memory at once."""

import csv
import io
import weakref
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.api.accounting import AccountBudget, MachineUse, Range, Scope
from aurum.api.routes.accounts import Asked, Columns, Format, by_group, export
from aurum.runtime.errors import ResourceExhaustedError
from aurum.sustainability.hourly import HOUR_US, Hourly
from aurum.sustainability.plan import Meters

HOURS = 24 * 60
OVER = Range(0, HOURS * HOUR_US)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 150)), max_size=40))
def test_accounts_stay_within_their_budget(steps: list[tuple[int, int]]) -> None:
    """Accounts together have no more than the budget, but for one that is alone; a refused one keeps what it had."""
    budget = AccountBudget(100)
    reservations = [budget.reservation() for _ in range(4)]
    held = [each.__enter__() for each in reservations]
    sizes = [0] * 4
    for which, size in steps:
        others = sum(sizes) - sizes[which]
        try:
            held[which].hold(size)
        except ResourceExhaustedError:
            assert others
            assert others + size > 100
        else:
            sizes[which] = size
            assert not others or not size or sum(sizes) <= 100
    for each in reservations:
        each.__exit__(None, None, None)
    with budget.reservation() as whole, budget.reservation() as another:
        whole.hold(1000)
        with pytest.raises(ResourceExhaustedError, match="ask again later"):
            another.hold(1)


async def exported(format_: Format, count: int) -> tuple[bytes, int]:
    """A file of so many machines, and how many of them were in memory at most while columns were made."""
    machines = {f"m-{number}": [use(f"m-{number}", float(number))] for number in range(count)}
    there = [weakref.ref(members[0].energy.amount) for members in machines.values() if members[0].energy]
    most = 0

    def columns(members: Any) -> Columns:
        nonlocal most
        most = max(most, sum(each() is not None for each in there[: 1 + int(members[0].machine_id[2:])]))
        return {"kwh": members[0].energy.amount + 0.0}

    with AccountBudget().reservation() as held:
        asked = Asked(Scope(), OVER, "machine", format_, held)
        answer = await export(asked, by_group(machines, columns), ("kwh",), "energy")
    return b"".join([bytes(part) async for part in answer.body_iterator]), most


def use(machine_id: str, amount: float) -> MachineUse:
    energy = Hourly(0, np.full(HOURS, amount), np.zeros(HOURS), np.zeros(HOURS))
    return MachineUse(machine_id, "pump", "site", "line", Meters(), energy)


@pytest.mark.parametrize("format_", ["csv", "parquet"])
async def test_export_releases_machines_it_has_written(format_: Format) -> None:
    """A file is made group by group: each is written once, in order, and released."""
    content, most = await exported(format_, 120)
    if format_ == "csv":
        rows = [(row["machine"], float(row["kwh"])) for row in csv.DictReader(io.StringIO(content.decode()))]
    else:
        rows = [(row["machine"], row["kwh"]) for row in pq.read_table(io.BytesIO(content)).to_pylist()]
    assert rows == [(f"m-{number}", float(number)) for number in range(120) for _ in range(HOURS)]
    assert most <= 2
