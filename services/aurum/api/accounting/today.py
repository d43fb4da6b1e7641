"""Energy, carbon and water since midnight, each compared with the usual use by this time."""

import asyncio
import contextvars
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from aurum.api.accounting.budget import AccountBudget
from aurum.api.accounting.measurement import MachineSelection, measure_machines, select_machines
from aurum.api.backends import IngestionBackend
from aurum.api.emission_factors import EmissionFactors, factor_values
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError, ResourceExhaustedError
from aurum.runtime.time_units import DAY_US
from aurum.sustainability.day_use import DAYS, DayUse, compare_days
from aurum.sustainability.hourly import Floats, TimeRange
from aurum.sustainability.machine_use import MachineUse, Quantity
from aurum.sustainability.plan import AccountingPlan
from aurum.v1 import ingestion_pb2

_CACHE_SECONDS = 60.0  # at least
_CACHE_SHARE = 20.0  # times as long as an account took, so that accounts take a twentieth of the time at most
_PATIENCE = 5.0  # seconds that a request waits for an account; a large plant takes longer
_MOST_WAITING = 16  # accounts that are computed or wait for it
_MAX_CACHED = 500  # accounts, by midnight and site


@dataclass(frozen=True, slots=True)
class TodayAccount:
    """The use of the present day.

    Attributes:
        now_us: The time of the account, in µs since 1970.
        used: energy, carbon and water, as far as they could be computed.
        notes: Why some are missing.
    """

    now_us: int
    used: dict[str, DayUse]
    notes: list[str]


@dataclass(slots=True)
class TodayAccounts:
    """Computes the use of the present day, and caches it, since dashboards request it often.

    Attributes:
        ingestion: Client of the ingestion service.
        plan: The accounting plan.
        factors: The emission factors.
        budget: The memory of all accounts in progress.
        quantities: Which of energy, carbon and water to compute.
    """

    ingestion: IngestionBackend
    plan: AccountingPlan
    factors: EmissionFactors
    budget: AccountBudget
    quantities: tuple[str, ...]
    # By midnight and site: until when (time.monotonic()), and the account
    _cached: dict[tuple[int, str], tuple[float, TodayAccount]] = field(default_factory=dict)
    _computing: dict[tuple[int, str], asyncio.Task[TodayAccount]] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def account(self, site: str, midnight_us: int, now_us: int) -> TodayAccount:
        """Returns the use since midnight, which may be some minutes old.

        An account that takes long is computed in the background. Meanwhile, the former one is returned, or notes that
        say so.

        Args:
            site: The site; empty for all.
            midnight_us: When the day began, in µs since 1970.
            now_us: The present time in µs since 1970.

        Raises:
            ResourceExhaustedError: Too many accounts wait.
        """
        key = midnight_us, site
        until, account = self._cached.get(key, (float("-inf"), None))
        if account is not None and time.monotonic() < until:
            return account
        computing = self._computing.get(key) or self._begin(key, now_us)
        await asyncio.wait([computing], timeout=_PATIENCE)
        if computing.done():
            return computing.result()
        notes = [f"{quantity}: is being computed; ask again in a minute" for quantity in self.quantities]
        return account or TodayAccount(now_us, {}, notes)

    def _begin(self, key: tuple[int, str], now_us: int) -> asyncio.Task[TodayAccount]:
        if len(self._computing) >= _MOST_WAITING:
            raise ResourceExhaustedError(
                f"{_MOST_WAITING} accounts of the day are being computed; retry later",
                reason="ACCOUNT_BUDGET",
                retry_after=_PATIENCE,
            )
        # In a context of its own, since it outlives the deadline of the request
        computing = asyncio.create_task(
            self._compute_in_turn(key, now_us), name="today-account", context=contextvars.Context()
        )
        self._computing[key] = computing
        computing.add_done_callback(lambda _: self._computing.pop(key))
        return computing

    async def _compute_in_turn(self, key: tuple[int, str], now_us: int) -> TodayAccount:
        midnight_us, site = key
        async with self._lock:
            started = time.monotonic()
            with criticality_scope(Criticality.BATCH):
                account = await self._compute(site, midnight_us, now_us)
            now = time.monotonic()
            until = now + _CACHE_SECONDS
            if account.used:
                until = now + max(_CACHE_SECONDS, _CACHE_SHARE * (now - started))
            elif key in self._cached:
                account = self._cached[key][1]  # ingestion did not answer
            while len(self._cached) >= _MAX_CACHED:
                self._cached.pop(next(iter(self._cached)))
            self._cached[key] = until, account
        return account

    async def _compute(self, site: str, midnight_us: int, now_us: int) -> TodayAccount:
        notes: list[str] = []
        try:
            machines = await select_machines(self.ingestion, MachineSelection(site=site))
            days = _Days(len(machines), self.quantities)
            with self.budget.reservation() as reservation:
                reservation.resize(days.nbytes)
                for day in range(DAYS + 1):
                    over = TimeRange(midnight_us - day * DAY_US, max(now_us, midnight_us + 1) - day * DAY_US)
                    await self._measure_day(days, day, machines, over)
        except AurumError as error:
            return TodayAccount(now_us, {}, [f"{quantity}: {error.message}" for quantity in self.quantities])
        notes += [f"carbon: {days.carbon_problem}"] if days.carbon_problem else []
        used = {
            quantity: compare_days(days.amounts[quantity], days.coverage[quantity])
            for quantity in self.quantities
            if quantity != "carbon" or not days.carbon_problem
        }
        return TodayAccount(now_us, used, notes)

    async def _measure_day(
        self, days: "_Days", day: int, machines: Sequence[ingestion_pb2.Machine], over: TimeRange
    ) -> None:
        """Adds what each machine used on a day, by the time of the present one."""
        measured: set[Quantity] = {"water" if quantity == "water" else "energy" for quantity in self.quantities}
        factors: dict[str, Floats] = {}  # by site
        place = 0
        async for batch in measure_machines(self.ingestion, self.plan, machines, over, measured):
            for use in batch:
                if "carbon" in self.quantities and not days.carbon_problem and use.site not in factors:
                    try:
                        factors[use.site] = await self._factors_of(use.site, over)
                    except AurumError as error:
                        days.carbon_problem = error.message
                days.add(day, place, use, factors.get(use.site))
                place += 1

    async def _factors_of(self, site: str, over: TimeRange) -> Floats:
        zone = self.plan.site_of(site).zone
        hourly, _ = await self.factors.factors_for(zone, "location", over.first_hour, over.hours)
        return factor_values(hourly)


class _Days:
    """What each machine used on each day, and the share of its time that is known.

    Attributes:
        amounts: For each quantity, a row for each day and a column for each machine.
        coverage: The same, with the share of the time for which readings exist.
        carbon_problem: Why emissions cannot be told; empty if they can.
    """

    def __init__(self, machines: int, quantities: Sequence[str]) -> None:
        self.amounts = {quantity: np.zeros((DAYS + 1, machines)) for quantity in quantities}
        self.coverage = {quantity: np.zeros((DAYS + 1, machines)) for quantity in quantities}
        self.carbon_problem = ""

    @property
    def nbytes(self) -> int:
        """The bytes of all numbers."""
        return sum(each.nbytes for each in (*self.amounts.values(), *self.coverage.values()))

    def add(self, day: int, place: int, use: MachineUse, factors: Floats | None) -> None:
        """Adds a machine. factors: Those of its site, by hour; NaN for an hour without one."""
        for quantity, amounts in self.amounts.items():
            hourly = use.water if quantity == "water" else use.energy
            if hourly is None:
                continue
            amount, coverage = hourly.total, hourly.coverage
            if quantity == "carbon":
                if factors is None:
                    continue
                known = ~np.isnan(factors)  # an hour without a factor counts as not covered
                amount = float((hourly.amount * np.where(known, factors, 0.0)).sum())
                coverage = float(hourly.covered[known].sum() / hourly.in_range.sum())
            amounts[day, place] = amount
            self.coverage[quantity][day, place] = coverage
