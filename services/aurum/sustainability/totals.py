"""The totals of a group of machines over a time range, as the accounts of energy, carbon and water state them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aurum.sustainability.carbon import CarbonAccount
from aurum.sustainability.energy import specific_consumption
from aurum.sustainability.hourly import Floats, TimeRange
from aurum.sustainability.machine_use import MachineUse, group_use, sum_energy, sum_fed_in, sum_production, sum_water
from aurum.sustainability.water import water_usage_effectiveness


@dataclass(frozen=True, slots=True)
class EnergyTotal:
    """The energy of a group.

    Attributes:
        name: The group.
        energy_kwh: Energy in the covered time.
        estimated_kwh: Energy extrapolated to the whole range; None if less than half is covered.
        coverage: Share of the machines' time for which readings exist.
        produced: Production; None if the machines' units differ or one has no meter.
        production_unit: Its unit.
        specific_kwh: Energy per unit of production.
        fed_in_kwh: Energy that was fed in, which energy_kwh does not contain; None if that is not metered.
    """

    name: str
    energy_kwh: float
    estimated_kwh: float | None
    coverage: float
    produced: float | None
    production_unit: str | None
    specific_kwh: float | None
    fed_in_kwh: float | None = None


@dataclass(frozen=True, slots=True)
class WaterTotal:
    """The water of a group.

    Attributes:
        name: The group.
        litres: Water in the covered time.
        estimated_litres: Water extrapolated to the whole range; None if less than half is covered.
        coverage: Share of the machines' time for which readings exist.
        energy_kwh: Energy of the same machines; None if none has a power meter.
        litres_per_kwh: Water usage effectiveness.
    """

    name: str
    litres: float
    estimated_litres: float | None
    coverage: float
    energy_kwh: float | None
    litres_per_kwh: float | None


@dataclass(frozen=True, slots=True)
class CarbonTotal:
    """The emissions of a group.

    Attributes:
        name: The group.
        energy_kwh: Energy in the covered time.
        coverage: Share of the machines' time for which readings exist.
        location_kgco2e: Location-based emissions of the energy with a known factor.
        market_kgco2e: Market-based emissions of the energy with a known factor.
        unaccounted_kwh: Energy in hours without any factor, whose emissions are not known.
    """

    name: str
    energy_kwh: float
    coverage: float
    location_kgco2e: float
    market_kgco2e: float
    unaccounted_kwh: float = 0.0


@dataclass(frozen=True, slots=True)
class HourlyEmissions:
    """Energy in kWh and emissions in kgCO2e of a group, by hour; NaN for emissions of an hour without a factor."""

    energy_kwh: Floats
    location_kgco2e: Floats
    market_kgco2e: Floats


def energy_total(name: str, used: Sequence[MachineUse], over: TimeRange) -> EnergyTotal:
    """Returns the energy of a group and, if all its machines produce in one unit, the specific energy."""
    energy = sum_energy(used, over)
    produced, unit = sum_production(used, over)
    fed_in = sum_fed_in(used, over)
    return EnergyTotal(
        name,
        energy.total,
        energy.estimate,
        energy.coverage,
        produced.total if produced else None,
        unit,
        specific_consumption(energy.total, produced.total) if produced else None,
        fed_in.total if fed_in else None,
    )


def water_total(name: str, used: Sequence[MachineUse], over: TimeRange) -> WaterTotal:
    """Returns the water of a group and its ratio to the energy of the same machines."""
    water = sum_water(used, over)
    kwh = sum_energy(used, over).total if any(use.energy is not None for use in used) else None
    effectiveness = None if kwh is None else water_usage_effectiveness(water.total, kwh)
    return WaterTotal(name, water.total, water.estimate, water.coverage, kwh, effectiveness)


def carbon_total(name: str, used: Sequence[MachineUse], emissions: HourlyEmissions, over: TimeRange) -> CarbonTotal:
    """Returns the sums of a group's emissions by hour."""
    return CarbonTotal(
        name,
        math.fsum(emissions.energy_kwh),
        sum_energy(used, over).coverage,
        math.fsum(emissions.location_kgco2e[~np.isnan(emissions.location_kgco2e)]),
        math.fsum(emissions.market_kgco2e[~np.isnan(emissions.market_kgco2e)]),
        math.fsum(emissions.energy_kwh[np.isnan(emissions.location_kgco2e)]),
    )


def attribute_emissions(
    used: Sequence[MachineUse], accounts: Mapping[str, CarbonAccount], over: TimeRange
) -> HourlyEmissions:
    """Attributes the emissions of sites to machines, in proportion to their energy in each hour.

    Args:
        used: The machines.
        accounts: The carbon account of each of their sites.
        over: The time range.
    """
    energy, location, market = np.zeros(over.hours), np.zeros(over.hours), np.zeros(over.hours)
    for site, members in group_use(used, "site").items():
        account = accounts[site]
        kwh = sum_energy(members, over).amount
        share = np.where(account.kwh > 0, kwh / np.where(account.kwh > 0, account.kwh, 1.0), 0.0)
        energy += kwh
        location += np.where(share == 0, 0.0, share * account.location)
        market += np.where(share == 0, 0.0, share * account.market)
    return HourlyEmissions(energy, location, market)
