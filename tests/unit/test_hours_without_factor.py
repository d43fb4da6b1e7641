"""Hours without any emission factor: their emissions are unknown, never zero, and the account says so."""

import numpy as np
import pytest

from aurum.api.accounting.carbon import account_sites, find_best_start
from aurum.api.emission_factors import EmissionFactors
from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.factors import EmissionFactor, FactorTable
from aurum.sustainability.hourly import HourlyAmounts, TimeRange
from aurum.sustainability.machine_use import MachineUse
from aurum.sustainability.plan import AccountingPlan, Meters, SitePlan
from aurum.sustainability.totals import attribute_emissions, carbon_total

HOUR = 470_000
OVER = TimeRange(HOUR * HOUR_US, (HOUR + 3) * HOUR_US)
PLAN = AccountingPlan(meters={}, sites={"*": SitePlan(zone="X")})


class Provider:
    """Has factors of the first and the last of three hours."""

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, EmissionFactor]:
        known = {HOUR: 0.1, HOUR + 2: 0.3}
        return {hour: EmissionFactor(known[hour], zone, 2023) for hour in range(first, last) if hour in known}


FACTORS = EmissionFactors(FactorTable({}), [Provider()])


def machine(*kwh: float) -> MachineUse:
    energy = HourlyAmounts(HOUR, np.array(kwh), np.full(3, 3600.0), np.full(3, 3600.0))
    return MachineUse("m", "pump", "site", "", Meters(), energy)


async def test_emissions_without_any_factor_are_unknown() -> None:
    used = [machine(10.0, 20.0, 30.0)]
    sites = await account_sites(used, OVER, PLAN, FACTORS)
    hourly = attribute_emissions(used, sites.accounts, OVER)
    assert hourly.location_kgco2e.tolist() == pytest.approx([1, float("nan"), 9], nan_ok=True)
    assert hourly.market_kgco2e.tolist() == pytest.approx([1, float("nan"), 9], nan_ok=True)
    total = carbon_total("total", used, hourly, OVER)
    assert (total.location_kgco2e, total.market_kgco2e) == (pytest.approx(10), pytest.approx(10))
    assert (total.energy_kwh, total.unaccounted_kwh, sites.missing_factor_kwh) == (60, 20, 20)
    (summary,) = sites.factors
    assert (summary.missing_hours, summary.missing) == (1, (HOUR + 1,))
    assert (summary.kg_per_kwh_least, summary.kg_per_kwh_most) == (0.1, 0.3)
    assert "their emissions are not known and not contained" in " ".join(sites.notes)


async def test_hour_without_energy_needs_no_factor() -> None:
    used = [machine(10.0, 0.0, 30.0)]
    sites = await account_sites(used, OVER, PLAN, FACTORS)
    hourly = attribute_emissions(used, sites.accounts, OVER)
    assert hourly.location_kgco2e.tolist() == pytest.approx([1, 0, 9])
    assert carbon_total("total", used, hourly, OVER).unaccounted_kwh == 0


async def test_hour_without_factor_is_no_better_start() -> None:
    hint = await find_best_start(PLAN, FACTORS, "site", HOUR, 10, 1, 3)
    assert (hint.shift.now, hint.shift.is_better) == (pytest.approx(1), False)
    later = await find_best_start(PLAN, FACTORS, "site", HOUR + 1, 10, 1, 2)
    assert (later.shift.now, later.shift.is_better) == (pytest.approx(3), False)
    assert "the provider has no factor for some hours" in later.note
