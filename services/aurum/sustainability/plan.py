"""The accounting plan: a YAML file with the meters of machines, production lines, and the contracts of each site.

The built-in plan fits the simulated plant, and covers any machine with a sensor `power_kw`.
"""

import fnmatch
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aurum.runtime.yaml_file import OTHER, read_yaml
from aurum.sustainability.contracts import Contract
from aurum.sustainability.factors import checked

DEFAULT_PLAN = Path(__file__).with_name("plan.yaml")

_PER_HOUR = {"second": 3600.0, "minute": 60.0, "hour": 1.0}


class PlanError(ValueError):
    """The accounting plan cannot be used. The message names the file and the field."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PowerMeter(_Part):
    """An electric meter: a sensor of power in kW, or of current in A.

    For a current, the power is √3·U·I·cos φ with three phases and U·I·cos φ with one.
    """

    sensor: str
    kind: Literal["power", "current"] = "power"
    volts: float = Field(400.0, gt=0, description="V, between conductors where there are three phases.")
    power_factor: float = Field(0.85, gt=0, le=1, description="cos φ.")
    phases: Literal[1, 3] = 3


class FlowMeter(_Part):
    """A flow meter: a sensor of a rate per second, minute or hour, or a counter that only increases.

    `to` converts the sensor's unit to litres or units of production.
    """

    sensor: str
    kind: Literal["rate", "counter"] = "rate"
    per: Literal["second", "minute", "hour"] = "hour"
    to: float = Field(1.0, gt=0, description="Litres, or units of production, in one of the sensor's.")

    @property
    def per_hour(self) -> float:
        """The factor that converts a reading to our unit per hour or, for a counter, to our unit."""
        return self.to * (_PER_HOUR[self.per] if self.kind == "rate" else 1.0)


class Meters(_Part):
    """The meters of a machine type. A quantity that is not metered is None.

    Production and temperature are the variables of an energy baseline. Production is also needed for the specific
    energy.
    """

    power: PowerMeter | None = None
    water: FlowMeter | None = None
    production: FlowMeter | None = None
    production_unit: str = "units"
    temperature: str | None = None

    @property
    def counters(self) -> list[str]:
        """The sensors that are counters."""
        flows = [meter for meter in (self.water, self.production) if meter and meter.kind == "counter"]
        return [*dict.fromkeys(meter.sensor for meter in flows)]

    @property
    def rates(self) -> list[str]:
        """The sensors that are not counters."""
        named = [meter.sensor for meter in (self.power, self.water, self.production) if meter]
        if self.temperature:
            named.append(self.temperature)
        return [name for name in dict.fromkeys(named) if name not in self.counters]


class ContractPart(_Part):
    name: str
    kg_per_kwh: float = Field(description="0 for a certificate of renewable energy.")
    share: float | None = Field(None, ge=0, le=1, description="Of each hour's consumption.")
    kwh_per_hour: float | None = Field(None, ge=0)
    profile_kwh: tuple[float, ...] | None = Field(
        None, min_length=24, max_length=24, description="Of each hour of the day, UTC, as a solar park gives it."
    )
    begins: datetime | None = None
    ends: datetime | None = None

    @model_validator(mode="after")
    def _limited(self) -> "ContractPart":
        if self.share is None and self.kwh_per_hour is None and self.profile_kwh is None:
            raise ValueError("one of share, kwh_per_hour and profile_kwh must say how much it covers")
        checked(self.kg_per_kwh, "kg_per_kwh")
        return self

    def contract(self) -> Contract:
        return Contract(
            self.name,
            self.kg_per_kwh,
            self.share,
            self.kwh_per_hour,
            self.profile_kwh,
            _hour(self.begins),
            _hour(self.ends),
        )


class Site(_Part):
    zone: str = Field("WORLD", description="Whose grid it is on: a zone of the emission factors.")
    contracts: tuple[ContractPart, ...] = ()


class Plan(_Part):
    longest_gap_seconds: float = Field(
        1200.0, gt=0, description="Between two readings; nothing is known of the time in a longer one."
    )
    meters: dict[str, Meters] = Field(description="By machine type; * for all others.")
    lines: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Name of a production line → patterns of machine ids, such as press-*."
    )
    sites: dict[str, Site] = Field(default_factory=dict, description="By site; * for all others.")

    def meters_of(self, machine_type: str) -> Meters:
        return self.meters.get(machine_type) or self.meters.get(OTHER) or Meters()

    def site_of(self, site: str) -> Site:
        return self.sites.get(site) or self.sites.get(OTHER) or Site()

    def line_of(self, machine_id: str) -> str:
        """Returns the first line that a machine belongs to; empty if there is none."""
        return next(
            (
                line
                for line, patterns in self.lines.items()
                if any(fnmatch.fnmatchcase(machine_id, each) for each in patterns)
            ),
            "",
        )


def load_plan(path: Path | None = None) -> Plan:
    """Reads an accounting plan, by default the built-in one. Raises PlanError."""
    return read_yaml(path or DEFAULT_PLAN, Plan, PlanError)


def _hour(moment: datetime | None) -> int | None:
    """Returns the hour since 1970 of a time. A time without a zone is in UTC."""
    if moment is None:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) // 3600
