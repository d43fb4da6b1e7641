"""JSON models of the monthly energy report."""

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, Field

from aurum.api.sustainability_schemas import (
    ContractOut,
    CorrectionOut,
    CostAmount,
    DemandOut,
    FactorOut,
    PricedEnergyOut,
)

Language = Literal["en", "es"]


class MoneyOut(BaseModel):
    """An amount of money."""

    currency: str
    cost: float


class ReportedUse(BaseModel):
    """Energy, its emissions and cost, and water."""

    energy_kwh: float
    coverage: float = Field(description="Share of the time for which readings exist.")
    fed_in_kwh: float | None = Field(description="Energy that was fed in; null if that is not metered.")
    location_kgco2e: float | None = Field(description="Null if carbon accounting is disabled.")
    market_kgco2e: float | None = Field(description="Null if carbon accounting is disabled.")
    water_litres: float | None = Field(description="Null if water is not metered, or its accounting is disabled.")
    costs: list[MoneyOut] = Field(description="The cost in each currency; none without a tariff.")


class ReportLine(ReportedUse):
    """A site, machine type or machine of the report."""

    name: str
    estimated_kwh: float | None = Field(
        description="Energy extrapolated to the whole time; null if less than half of it is covered."
    )


class ReportDay(ReportedUse):
    """A day of the report."""

    day: date


class ReportNote(BaseModel):
    """A remark, by its code, and as a text in the language of the report."""

    code: str
    parameters: dict[str, str | int | float]
    text: str


class EnergyReportOut(BaseModel):
    """The energy of a month. Lists of lines have those with most energy, at most 100, or 20 machines."""

    month: str
    start: datetime
    end: datetime = Field(description="End, exclusive; the present if the month is not over.")
    complete: bool = Field(description="Whether the month is over.")
    timezone: str = Field(description="The time zone of the month and its days.")
    site: str = Field(description="The site; empty for all.")
    language: Language
    total: ReportLine
    costs: list[CostAmount] = Field(description="The costs in each currency with their parts.")
    sites: list[ReportLine]
    sites_count: int
    types: list[ReportLine]
    types_count: int
    machines: list[ReportLine]
    machines_count: int
    days: list[ReportDay]
    prices: list[PricedEnergyOut]
    demand: list[DemandOut]
    without_tariff: list[str] = Field(description="Sites without a tariff, at most 100.")
    unpriced_kwh: float
    factors: list[FactorOut]
    contracts: list[ContractOut]
    corrections: list[CorrectionOut] = Field(description="What was corrected in readings of counters, at most 50.")
    corrections_count: int
    corrections_by_kind: dict[str, int]
    not_metered: list[str] = Field(description="Machines without a meter, at most 100.")
    not_metered_count: int
    method: list[str] = Field(description="How the numbers are computed, in the language of the report.")
    notes: list[ReportNote]
