"""JSON models of the accounts of energy, carbon and water."""

from datetime import datetime

from pydantic import BaseModel, Field


class Account(BaseModel):
    start: datetime
    end: datetime
    group_by: str
    not_metered: list[str] = Field(description="Machines without such a meter in the accounting plan.")
    not_metered_count: int


class EnergyAmount(BaseModel):
    name: str
    energy_kwh: float = Field(description="Of the time that is known.")
    estimated_kwh: float | None = Field(
        description="Of the whole time, if the rest is like what is known; null if less than half is."
    )
    coverage: float = Field(description="Share of the machines' time that is known.")
    produced: float | None = None
    production_unit: str | None = None
    specific_kwh: float | None = Field(None, description="kWh for each unit that was produced.")


class EnergyHour(BaseModel):
    start: datetime
    energy_kwh: float
    coverage: float


class BaselineOut(BaseModel):
    """An energy baseline after ISO 50001 and ISO 50006, and what was saved against it."""

    start: datetime
    end: datetime
    interval: str
    intervals: int
    intercept_kwh: float
    coefficients: dict[str, float]
    t_statistics: dict[str, float]
    r_squared: float = Field(description="Adjusted for the number of variables.")
    cv_rmse: float
    expected_kwh: float
    actual_kwh: float
    savings_kwh: float
    savings_share: float
    intervals_outside: int = Field(description="With a variable beyond the baseline's range, where it says little.")
    cusum_kwh: list[float | None]


class EnergyOut(Account):
    total: EnergyAmount
    groups: list[EnergyAmount]
    hours: list[EnergyHour]
    baseline: BaselineOut | None = None


class CarbonAmount(BaseModel):
    name: str
    energy_kwh: float
    coverage: float
    location_kgco2e: float
    market_kgco2e: float


class CarbonHour(BaseModel):
    start: datetime
    energy_kwh: float
    location_kgco2e: float
    market_kgco2e: float
    matched_kwh: float = Field(description="That contracts covered in this very hour.")


class FactorOut(BaseModel):
    zone: str
    method: str
    source: str
    year: int
    kg_per_kwh_least: float
    kg_per_kwh_most: float
    hours: int
    stale_hours: int = Field(description="For which an earlier factor stands in, since the provider gave none.")


class ContractOut(BaseModel):
    site: str
    name: str
    kg_per_kwh: float
    matched_kwh: float


class CarbonOut(Account):
    total: CarbonAmount
    matched_share: float = Field(description="Of the energy, by contracts in the same hour.")
    groups: list[CarbonAmount]
    hours: list[CarbonHour]
    factors: list[FactorOut]
    contracts: list[ContractOut]
    notes: list[str]


class CarbonHintOut(BaseModel):
    zone: str
    kw: float
    duration_hours: int
    best_start: datetime | None = Field(description="null if no hour is better than now.")
    now_kgco2e: float
    best_kgco2e: float
    note: str


class WaterAmount(BaseModel):
    name: str
    litres: float
    estimated_litres: float | None
    coverage: float
    energy_kwh: float | None
    litres_per_kwh: float | None = Field(description="Water usage effectiveness, with the energy of the same machines.")


class WaterHour(BaseModel):
    start: datetime
    litres: float
    coverage: float


class WaterOut(Account):
    total: WaterAmount
    groups: list[WaterAmount]
    hours: list[WaterHour]


class AdviceOption(BaseModel):
    when: str = Field(description="now, planned_stop or at_failure.")
    after: float | None = Field(description="In the unit of the RUL; null for the failure, whenever it comes.")
    failure_probability: float = Field(description="That the machine fails before.")
    life_used: float = Field(description="Expected, in the unit of the RUL.")
    money: float
    kwh: float
    kgco2e: float
    litres: float


class AdviceOut(BaseModel):
    machine_id: str
    machine_type: str
    model_version: str
    as_of: datetime | None
    unit: str
    rul_estimate: float
    rul_lower: float
    rul_upper: float
    currency: str
    options: list[AdviceOption]
    best: str = Field(description="By money.")
    saves: float = Field(description="Money that the best one is expected to save against waiting for the failure.")
    advice: str
    trace_id: str


class UsedOut(BaseModel):
    amount: float = Field(description="Since midnight.")
    usual: float | None = Field(description="Mean of the same hours of the week before; null without such a history.")
    days: int = Field(description="Days of that history.")


class TodayOut(BaseModel):
    start: datetime
    end: datetime
    energy_kwh: UsedOut | None = None
    carbon_kgco2e: UsedOut | None = Field(None, description="Location-based.")
    water_litres: UsedOut | None = None
    notes: list[str] = Field(description="Why something is missing.")
