"""The accounting plan: a YAML file with the meters of machines, production lines, and the contracts of each site.

The built-in plan fits the simulated plant, and covers any machine with a sensor `power_kw`.
"""

import fnmatch
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from aurum.runtime.yaml_file import OTHER, read_yaml
from aurum.sustainability.contracts import Contract
from aurum.sustainability.counters import RECOVERY_SECONDS, CounterRules
from aurum.sustainability.factors import check_factor
from aurum.sustainability.tariff import TariffSpec

DEFAULT_PLAN = Path(__file__).with_name("plan.yaml")

_PER_HOUR = {"second": 3600.0, "minute": 60.0, "hour": 1.0}
_UNITS: dict[str, dict[str, float]] = {  # in kW, kWh and A
    "power": {"W": 1e-3, "kW": 1.0, "MW": 1e3},
    "counter": {"Wh": 1e-3, "kWh": 1.0, "MWh": 1e3, "J": 1 / 3.6e6, "kJ": 1 / 3.6e3, "MJ": 1 / 3.6, "GJ": 1e3 / 3.6},
    "current": {"mA": 1e-3, "A": 1.0},
}
_MODULI = {"16bit": 2.0**16, "32bit": 2.0**32, "auto": None, "never": None}
_LONGEST_RECOVERY = 3 * 86_400.0  # seconds; an account reads twice as much before its range


class AccountingPlanError(ValueError):
    """The accounting plan is invalid or unreadable. The message names the file and the field."""


class _PlanModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CounterSpec(_PlanModel):
    """What a meter states of its counter, if its kind is counter."""

    wraps_at: float | str = Field(
        "auto",
        description="Where the counter starts from zero again, in the sensor's unit, or 16bit, 32bit, never, or auto "
        "to recognise 16 and 32 bits.",
    )
    recovery_seconds: float = Field(
        RECOVERY_SECONDS,
        ge=0,
        le=_LONGEST_RECOVERY,
        description="Time within which a drop that recovers is a false reading; 0 if each drop is a restart.",
    )

    @field_validator("wraps_at")
    @classmethod
    def _check_modulus(cls, value: float | str) -> float | str:
        if value not in _MODULI and (isinstance(value, str) or value <= 0):
            raise ValueError(f"must be a number above 0, or one of {', '.join(_MODULI)}")
        return value

    @property
    def rules(self) -> CounterRules:
        """The rules by which the counter's readings become consumption."""
        modulus = _MODULI[self.wraps_at] if isinstance(self.wraps_at, str) else self.wraps_at
        return CounterRules(modulus, self.wraps_at == "auto", self.recovery_seconds)

    def _refuse_counter_fields(self) -> None:
        given = sorted(self.model_fields_set & CounterSpec.model_fields.keys())
        if given:
            raise ValueError(f"{given[0]} is only for kind: counter")


class PowerMeter(CounterSpec):
    """An electric meter: a sensor of power or current, or a counter of energy.

    For a current, the power is √3·U·I·cos φ with three phases and U·I·cos φ with one.
    """

    sensor: str
    kind: Literal["power", "counter", "current"] = "power"
    unit: str = Field("", description="Unit of the sensor; by default kW, kWh or A.")
    to: float = Field(1.0, gt=0, description="Units per unit of the sensor, such as a transformer's ratio.")
    bidirectional: bool = Field(
        False, description="Whether negative power, or a decrease of the counter, is energy that is fed in."
    )
    volts: float = Field(400.0, gt=0, description="Voltage in V; for three phases, between conductors.")
    power_factor: float = Field(0.85, gt=0, le=1, description="Power factor, cos φ.")
    phases: Literal[1, 3] = 3

    @model_validator(mode="after")
    def _check_kind(self) -> "PowerMeter":
        units = _UNITS[self.kind]
        if self.unit and self.unit not in units:
            raise ValueError(f"unit {self.unit!r} does not fit kind: {self.kind}, whose units are {', '.join(units)}")
        if self.kind == "current" and self.bidirectional:
            raise ValueError("bidirectional needs kind: power or counter, since a current has no direction")
        if self.kind != "counter":
            self._refuse_counter_fields()
        return self

    @property
    def factor(self) -> float:
        """The factor that converts the sensor's unit to kW, kWh or A."""
        units = _UNITS[self.kind]
        return self.to * (units[self.unit] if self.unit else 1.0)

    @property
    def rules(self) -> CounterRules:
        """The rules by which the counter's readings become consumption."""
        return replace(super().rules, both_ways=self.bidirectional)


class FlowMeter(CounterSpec):
    """A flow meter: a sensor of a rate per second, minute or hour, or a counter that only increases.

    `to` converts the sensor's unit to litres or to units of production.
    """

    sensor: str
    kind: Literal["rate", "counter"] = "rate"
    per: Literal["second", "minute", "hour"] = "hour"
    to: float = Field(1.0, gt=0, description="Litres or units of production per unit of the sensor.")

    @model_validator(mode="after")
    def _check_kind(self) -> "FlowMeter":
        if self.kind != "counter":
            self._refuse_counter_fields()
        return self

    @property
    def per_hour(self) -> float:
        """The factor that converts a rate to litres or units of production per hour, and a count to these units."""
        return self.to * (_PER_HOUR[self.per] if self.kind == "rate" else 1.0)


class Meters(_PlanModel):
    """The meters of a machine type. A quantity that is not metered is None.

    Production and temperature are the variables of an energy baseline. Production is also needed for the specific
    energy.
    """

    power: PowerMeter | None = None
    feed_in: PowerMeter | None = Field(None, description="Meter of the energy that the machine feeds in.")
    water: FlowMeter | None = None
    production: FlowMeter | None = None
    production_unit: str = "units"
    temperature: str | None = None

    @model_validator(mode="after")
    def _check_feed_in(self) -> "Meters":
        if self.feed_in is not None and (self.feed_in.bidirectional or (self.power and self.power.bidirectional)):
            raise ValueError("feed_in must not be given together with a bidirectional meter, which measures it too")
        return self

    @property
    def measures_feed_in(self) -> bool:
        """Whether a meter measures energy that is fed in."""
        return self.feed_in is not None or (self.power is not None and self.power.bidirectional)

    @property
    def counting(self) -> "list[PowerMeter | FlowMeter]":
        """The meters whose sensors are counters."""
        return [
            meter
            for meter in (self.power, self.feed_in, self.water, self.production)
            if meter is not None and meter.kind == "counter"
        ]

    @property
    def counters(self) -> list[str]:
        """The sensors that are counters."""
        return [*dict.fromkeys(meter.sensor for meter in self.counting)]

    @property
    def rates(self) -> list[str]:
        """The sensors that are not counters."""
        named = [meter.sensor for meter in (self.power, self.feed_in, self.water, self.production) if meter]
        if self.temperature:
            named.append(self.temperature)
        return [name for name in dict.fromkeys(named) if name not in self.counters]


class ContractSpec(_PlanModel):
    """A contract as the plan states it. At least one of share, kwh_per_hour and profile_kwh limits what it covers."""

    name: str
    kg_per_kwh: float = Field(description="Emission factor in kgCO2e/kWh; 0 for renewable energy.")
    share: float | None = Field(None, ge=0, le=1, description="Covered share of the consumption of each hour.")
    kwh_per_hour: float | None = Field(None, ge=0, description="Covered energy of each hour.")
    profile_kwh: tuple[float, ...] | None = Field(
        None,
        min_length=24,
        max_length=24,
        description="Covered energy for each hour of the day in UTC, for example of a solar park.",
    )
    begins: datetime | None = None
    ends: datetime | None = None

    @model_validator(mode="after")
    def _require_limit(self) -> "ContractSpec":
        if self.share is None and self.kwh_per_hour is None and self.profile_kwh is None:
            raise ValueError("one of share, kwh_per_hour and profile_kwh must be given")
        check_factor(self.kg_per_kwh, "kg_per_kwh")
        return self

    def contract(self) -> Contract:
        """Returns the contract for the calculation, with its period in hours since 1970."""
        return Contract(
            self.name,
            self.kg_per_kwh,
            self.share,
            self.kwh_per_hour,
            self.profile_kwh,
            _hour(self.begins),
            _hour(self.ends),
        )


class SitePlan(_PlanModel):
    """The electricity supply of a site: its grid zone, contracts in the order in which they apply, and tariffs."""

    zone: str = Field("WORLD", description="Grid zone, which selects the emission factors.")
    timezone: str = Field("UTC", description="Time zone of the tariff and of monthly reports, such as Europe/Berlin.")
    contracts: tuple[ContractSpec, ...] = ()
    tariffs: tuple[TariffSpec, ...] = Field((), description="Tariffs in the order of the days on which they begin.")

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{value!r} is not a time zone such as Europe/Berlin") from None
        return value

    @field_validator("tariffs")
    @classmethod
    def _check_tariffs(cls, value: tuple[TariffSpec, ...]) -> tuple[TariffSpec, ...]:
        for index, tariff in enumerate(value):
            if index == 0:
                if tariff.begins is not None:
                    raise ValueError(
                        "the first tariff must not have begins, since it applies until the next one begins"
                    )
                continue
            before = value[index - 1]
            if tariff.begins is None or (before.begins is not None and tariff.begins <= before.begins):
                raise ValueError(f"tariff {index} must begin, on a day after that of the one before it")
            if tariff.currency != before.currency:
                raise ValueError(f"tariff {index} is in {tariff.currency}, and the one before it in {before.currency}")
        return value


class AccountingPlan(_PlanModel):
    """The content of an accounting plan file."""

    longest_gap_seconds: float = Field(
        1200.0, gt=0, description="Maximum seconds between two readings; the time of a longer gap is not covered."
    )
    meters: dict[str, Meters] = Field(description="Meters by machine type; * for all others.")
    lines: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="For each production line, patterns of the ids of its machines, such as press-*.",
    )
    sites: dict[str, SitePlan] = Field(default_factory=dict, description="Supply by site; * for all others.")

    def meters_of(self, machine_type: str) -> Meters:
        """Returns the meters of a machine type. Without an entry for it or for all others, nothing is metered."""
        return self.meters.get(machine_type) or self.meters.get(OTHER) or Meters()

    def site_of(self, site: str) -> SitePlan:
        """Returns the supply of a site. Without an entry for it or for all others, it is on the grid WORLD."""
        return self.sites.get(site) or self.sites.get(OTHER) or SitePlan()

    def timezone_of(self, site: str) -> str:
        """Returns the time zone of a site; without one, that of all sites, or UTC if they differ."""
        if site:
            return self.site_of(site).timezone
        zones = {supply.timezone for supply in self.sites.values()}
        return zones.pop() if len(zones) == 1 else "UTC"

    def line_of(self, machine_id: str) -> str:
        """Returns the first production line whose patterns match a machine id; empty if none does."""
        return next(
            (
                line
                for line, patterns in self.lines.items()
                if any(fnmatch.fnmatchcase(machine_id, pattern) for pattern in patterns)
            ),
            "",
        )


def load_plan(path: Path | None = None) -> AccountingPlan:
    """Reads an accounting plan.

    Args:
        path: The YAML file; None for the built-in plan.

    Raises:
        AccountingPlanError: The file cannot be read or is invalid.
    """
    return read_yaml(path or DEFAULT_PLAN, AccountingPlan, AccountingPlanError)


def _hour(moment: datetime | None) -> int | None:
    """Returns the hour since 1970 of a time. A time without a zone is in UTC."""
    if moment is None:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) // 3600
