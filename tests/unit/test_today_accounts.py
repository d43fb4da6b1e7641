"""The use of the present day: of large plants too, and without letting requests wait for it."""

import asyncio
from typing import cast

import numpy as np
import pytest

from aurum.api.accounting import today
from aurum.api.accounting.budget import AccountBudget
from aurum.api.accounting.today import TodayAccounts
from aurum.api.backends import IngestionBackend
from aurum.api.emission_factors import EmissionFactors
from aurum.runtime.errors import ResourceExhaustedError, UnavailableError
from aurum.runtime.time_units import DAY_US
from aurum.sustainability.factors import EmissionFactor, FactorTable
from aurum.sustainability.plan import AccountingPlan, Meters, PowerMeter
from aurum.v1 import columns_pb2, ingestion_pb2
from tests.support.metered_plant import MeteredPlant
from tests.support.waiting import until

NOW = 20_000 * DAY_US + DAY_US // 2
MIDNIGHT = 20_000 * DAY_US
MACHINES = 2500


class Ingestion:
    """Lists machines in pages, and has no readings of them. It answers when `open` is set."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.lists = 0
        self.failing = False

    async def list_machines(self, request: ingestion_pb2.ListMachinesRequest) -> ingestion_pb2.ListMachinesResponse:
        await self.open.wait()
        if self.failing:
            raise UnavailableError("ingestion is gone")
        self.lists += 1
        start = int(request.page_token or "0")
        numbers = range(start, min(MACHINES, start + request.page_size))
        token = str(numbers.stop) if numbers.stop < MACHINES else ""
        machines = [ingestion_pb2.Machine(machine_id=f"m-{number:04}", machine_type="pump") for number in numbers]
        return ingestion_pb2.ListMachinesResponse(machines=machines, next_page_token=token)

    async def integrate_meters(self, request: ingestion_pb2.IntegrateRequest) -> list[columns_pb2.MeterColumns]:
        return []


def accounts_of(ingestion: Ingestion) -> TodayAccounts:
    factors = cast(EmissionFactors, None)  # only carbon needs them
    backend = cast(IngestionBackend, ingestion)
    return TodayAccounts(backend, AccountingPlan(meters={}), factors, AccountBudget(), ("energy",))


async def test_today_of_more_than_a_thousand_machines() -> None:
    ingestion = Ingestion()
    ingestion.open.set()
    accounts = accounts_of(ingestion)
    account = await accounts.account("", MIDNIGHT, NOW)
    assert account.notes == []
    assert "energy" in account.used
    assert await accounts.account("", MIDNIGHT, NOW) is account
    assert ingestion.lists == 3


async def test_requests_do_not_wait_for_a_long_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """The account goes on when the request is answered, is computed once, and is found by later requests."""
    monkeypatch.setattr(today, "_PATIENCE", 0.01)
    ingestion = Ingestion()
    accounts = accounts_of(ingestion)
    for _ in range(2):
        account = await accounts.account("", MIDNIGHT, NOW)
        assert account.used == {}
        assert account.notes == ["energy: is being computed; ask again in a minute"]
    ingestion.open.set()

    async def computed() -> bool:
        return "energy" in (await accounts.account("", MIDNIGHT, NOW)).used

    await until(computed, "the account is there")
    assert ingestion.lists == 3


async def test_former_account_is_kept_while_ingestion_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(today, "_CACHE_SECONDS", 0.0)
    monkeypatch.setattr(today, "_CACHE_SHARE", 0.0)
    ingestion = Ingestion()
    ingestion.open.set()
    ingestion.failing = True
    accounts = accounts_of(ingestion)
    assert (await accounts.account("", MIDNIGHT, NOW)).notes == ["energy: ingestion is gone"]
    ingestion.failing = False
    account = await accounts.account("", MIDNIGHT, NOW)
    assert "energy" in account.used
    ingestion.failing = True
    assert await accounts.account("", MIDNIGHT, NOW + 1) is account


async def test_accounts_that_wait_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(today, "_PATIENCE", 0.0)
    accounts = accounts_of(Ingestion())
    for number in range(today._MOST_WAITING):
        await accounts.account(f"site-{number}", MIDNIGHT, NOW)
    with pytest.raises(ResourceExhaustedError):
        await accounts.account("another", MIDNIGHT, NOW)


def fleet(days: dict[str, int]) -> TodayAccounts:
    """Returns accounts of machines that draw 10 kW, each since some days before midnight."""
    series = {}
    for machine_id, since in days.items():
        at = np.arange(MIDNIGHT - since * DAY_US, NOW + 1, 600_000_000, dtype=np.int64)
        series[machine_id, "kw"] = (at, np.full(len(at), 10.0))
    plan = AccountingPlan(meters={"press": Meters(power=PowerMeter(sensor="kw"))})
    factors = EmissionFactors(FactorTable({("WORLD", "location"): {2024: EmissionFactor(0.5, "table", 2024)}}), [])
    backend = cast(IngestionBackend, MeteredPlant(series))
    return TodayAccounts(backend, plan, factors, AccountBudget(), ("energy", "carbon"))


async def test_new_machines_are_left_out_of_the_comparison() -> None:
    """Two of five are there since this morning: the other three use what is usual, not two thirds more."""
    account = await fleet({"a": 8, "b": 8, "c": 8, "d": 0, "e": 0}).account("", MIDNIGHT, NOW)
    energy, carbon = account.used["energy"], account.used["carbon"]
    assert (energy.amount, energy.compared, energy.usual) == (
        pytest.approx(600),
        pytest.approx(360),
        pytest.approx(360),
    )
    assert (energy.days, energy.machines, energy.left_out) == (7, 3, 2)
    assert (carbon.amount, carbon.compared, carbon.usual) == (
        pytest.approx(300),
        pytest.approx(180),
        pytest.approx(180),
    )
    assert account.notes == []


async def test_fleet_that_is_mostly_new_has_no_usual_use() -> None:
    """Compared with one machine in five, it would use five times the usual amount."""
    account = await fleet({"a": 8, "b": 0, "c": 0, "d": 0, "e": 0}).account("", MIDNIGHT, NOW)
    for used in account.used.values():
        assert (used.usual, used.compared, used.reason) == (None, None, "no_history")
    assert account.used["energy"].amount == pytest.approx(600)


async def test_use_of_today_is_exact_at_its_end() -> None:
    """Twenty minutes later it has grown by what twenty minutes use, and never by less than nothing."""
    accounts = [await fleet({"a": 8}).account("", MIDNIGHT, NOW - minutes * 60_000_000) for minutes in (27, 20, 7, 0)]
    amounts = [account.used["energy"].amount for account in accounts]
    assert amounts == pytest.approx([120 - 10 * minutes / 60 for minutes in (27, 20, 7, 0)], rel=1e-9)
