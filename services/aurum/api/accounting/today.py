"""Energy, carbon and water since midnight, each compared with the usual use by this time."""

import asyncio
import contextvars
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from aurum.api.accounting.budget import AccountBudget
from aurum.api.accounting.carbon import account_sites
from aurum.api.accounting.measurement import MachineSelection, measure_use, resolve_range
from aurum.api.backends import IngestionBackend
from aurum.api.emission_factors import EmissionFactors
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError, ResourceExhaustedError
from aurum.runtime.time_units import DAY_US
from aurum.sustainability.day_use import DAYS, DayUse, HourUse, hours_of_range, use_since_midnight
from aurum.sustainability.hourly import HourlyAmounts, TimeRange
from aurum.sustainability.machine_use import MachineUse, Quantity, sum_energy, sum_water
from aurum.sustainability.plan import AccountingPlan
from aurum.sustainability.totals import attribute_emissions

_CACHE_SECONDS = 60.0  # at least
_CACHE_SHARE = 20.0  # times as long as an account took, so that accounts take a twentieth of the time at most
_PATIENCE = 5.0  # seconds that a request waits for an account; a large plant takes longer
_MOST_WAITING = 16  # accounts that are computed or wait for it
_MOST_MACHINES = 10_000  # whose use takes 60 MB
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
        over = resolve_range(midnight_us - DAYS * DAY_US, now_us)
        with self.budget.reservation() as reservation:
            try:
                used = await measure_use(
                    self.ingestion,
                    self.plan,
                    MachineSelection(site=site, most=_MOST_MACHINES),
                    over,
                    self._measured(),
                    reservation,
                )
            except AurumError as error:
                return TodayAccount(now_us, {}, [f"{quantity}: {error.message}" for quantity in self.quantities])
            by_quantity: dict[str, DayUse] = {}
            notes = []
            for quantity in self.quantities:
                try:
                    hours = await self._use_by_hour(quantity, used, over)
                except AurumError as error:
                    notes.append(f"{quantity}: {error.message}")
                else:
                    by_quantity[quantity] = use_since_midnight(hours, midnight_us, now_us)
        return TodayAccount(now_us, by_quantity, notes)

    def _measured(self) -> set[Quantity]:
        return {"water" if quantity == "water" else "energy" for quantity in self.quantities}

    async def _use_by_hour(self, quantity: str, used: list[MachineUse], over: TimeRange) -> list[HourUse]:
        """Returns the energy in kWh, the location-based emissions in kgCO2e or the water in litres, by hour."""
        if quantity != "carbon":
            return await asyncio.to_thread(_hours_of, sum_energy if quantity == "energy" else sum_water, used, over)
        metered = [use for use in used if use.energy is not None]
        sites = await account_sites(metered, over, self.plan, self.factors)
        emissions = await asyncio.to_thread(attribute_emissions, metered, sites.accounts, over)
        # Emissions have no coverage by hour; an hour without energy or without a factor counts as unknown
        known = (emissions.energy_kwh > 0) & ~np.isnan(emissions.location_kgco2e)
        return hours_of_range(over, np.nan_to_num(emissions.location_kgco2e), known.astype(np.float64))


def _hours_of(
    sum_use: Callable[[Sequence[MachineUse], TimeRange], HourlyAmounts], used: Sequence[MachineUse], over: TimeRange
) -> list[HourUse]:
    amounts = sum_use(used, over)
    return hours_of_range(over, amounts.amount, amounts.coverage_by_hour)
