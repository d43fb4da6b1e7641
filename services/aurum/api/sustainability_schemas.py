"""JSON models of the accounts of energy, carbon and water."""

from datetime import datetime

from pydantic import BaseModel, Field


class CorrectionOut(BaseModel):
    """A place where the consumption is not the plain difference of two readings of a counter."""

    kind: str = Field(
        description="false_reading, jitter, wrap, restart, replacement, gap or long_gap; see the "
        "documentation of counters."
    )
    machine_id: str
    sensor: str
    start: datetime = Field(description="Time of the first reading concerned.")
    end: datetime = Field(description="Time of the last one.")
    amount: float = Field(
        description="For false_reading and jitter, the depth of the ignored fall; for wrap, restart and gap, the "
        "counted increase; for replacement and long_gap, what is not counted."
    )
    unit: str


class Account(BaseModel):
    """The fields that all accounts begin with."""

    start: datetime
    end: datetime
    group_by: str
    not_metered: list[str] = Field(
        description="Machines without a meter for this quantity in the accounting plan, at most 100."
    )
    not_metered_count: int = Field(description="Number of machines without such a meter.")
    corrections: list[CorrectionOut] = Field(
        default_factory=list, description="What was corrected in the readings of counters, at most 50."
    )
    corrections_count: int = Field(0, description="Number of all corrections.")
    corrections_by_kind: dict[str, int] = Field(
        default_factory=dict, description="Number of all corrections of each kind."
    )


class EnergyAmount(BaseModel):
    """The energy of a group of machines."""

    name: str
    energy_kwh: float = Field(description="Energy in the covered time.")
    estimated_kwh: float | None = Field(
        description="Energy extrapolated to the whole range; null if less than half of it is covered."
    )
    coverage: float = Field(description="Share of the machines' time for which readings exist.")
    produced: float | None = None
    production_unit: str | None = None
    specific_kwh: float | None = Field(None, description="Energy in kWh per unit of production.")
    fed_in_kwh: float | None = Field(
        None, description="Energy that was fed in, not contained in energy_kwh; null if that is not metered."
    )


class EnergyHour(BaseModel):
    """The energy of one hour."""

    start: datetime
    energy_kwh: float
    coverage: float
    fed_in_kwh: float | None = None


class BaselineOut(BaseModel):
    """An energy baseline by ISO 50001 and ISO 50006, and the savings against it."""

    start: datetime
    end: datetime
    interval: str
    intervals: int
    intercept_kwh: float
    coefficients: dict[str, float]
    t_statistics: dict[str, float]
    r_squared: float = Field(description="Coefficient of determination, adjusted for the number of variables.")
    cv_rmse: float
    expected_kwh: float
    actual_kwh: float
    savings_kwh: float
    savings_share: float
    intervals_outside: int = Field(
        description="Number of intervals with a variable outside the range of the baseline, where it is less reliable."
    )
    cusum_kwh: list[float | None]
    machines: int = Field(0, description="Number of compared machines.")
    left_out: list[str] = Field(
        default_factory=list,
        description="Machines that are not compared, since one period has less than half of the readings' time of the "
        "other; at most 100.",
    )
    left_out_count: int = Field(0, description="Number of all machines that are not compared.")


class EnergyOut(Account):
    """An energy account."""

    total: EnergyAmount
    groups: list[EnergyAmount]
    hours: list[EnergyHour]
    baseline: BaselineOut | None = None


class CarbonAmount(BaseModel):
    """The emissions of a group of machines."""

    name: str
    energy_kwh: float
    coverage: float
    location_kgco2e: float
    market_kgco2e: float
    unaccounted_kwh: float = Field(
        0.0, description="Energy in hours without any factor, whose emissions are not known and not contained."
    )


class CarbonHour(BaseModel):
    """The emissions of one hour."""

    start: datetime
    energy_kwh: float
    location_kgco2e: float | None = Field(description="Null if there is no factor for the hour.")
    market_kgco2e: float | None = Field(description="Null if there is no factor for the hour.")
    matched_kwh: float = Field(description="Energy that contracts covered in this hour.")
    coverage: float = Field(0.0, description="Share of the machines' time in this hour for which readings exist.")


class FactorOut(BaseModel):
    """The emission factors of a grid zone and method that an account used."""

    zone: str
    method: str
    source: str
    year: int
    kg_per_kwh_least: float
    kg_per_kwh_most: float
    hours: int
    stale_hours: int = Field(
        description="Number of hours for which an earlier factor is used, because the provider did not answer."
    )
    missing_hours: int = Field(
        0,
        description="Number of hours for which the provider has no factor. That of the year is used, if there is one.",
    )
    missing: list[datetime] = Field(default_factory=list, description="The first 100 of these hours.")


class ContractOut(BaseModel):
    """The energy that a contract covered at a site."""

    site: str
    name: str
    kg_per_kwh: float
    matched_kwh: float


class CarbonOut(Account):
    """A carbon account."""

    total: CarbonAmount
    matched_share: float = Field(description="Share of the energy that contracts covered in the hour of its use.")
    groups: list[CarbonAmount]
    hours: list[CarbonHour]
    factors: list[FactorOut]
    contracts: list[ContractOut]
    notes: list[str]
    missing_factor_share: float = Field(
        0.0, description="Share of the energy in hours for which the provider has no factor."
    )


class CostAmount(BaseModel):
    """The costs of a group of machines in one currency."""

    name: str
    currency: str = Field(description="Currency by ISO 4217, in which the costs are.")
    energy_kwh: float
    coverage: float
    fed_in_kwh: float
    energy_cost: float = Field(description="Cost of the energy by the prices of its hours.")
    feed_in_revenue: float
    fixed_cost: float = Field(description="Fixed charges per day and month, for the requested time.")
    demand_cost: float = Field(description="Demand charges, reduced to the requested part of each month.")
    cost: float = Field(description="Energy, fixed and demand charges, less the revenue for energy that was fed in.")


class CostHour(BaseModel):
    """The costs of one hour in one currency."""

    start: datetime
    currency: str
    energy_kwh: float
    fed_in_kwh: float
    energy_cost: float
    feed_in_revenue: float
    fixed_cost: float
    demand_cost: float
    cost: float


class PricedEnergyOut(BaseModel):
    """The energy of a site at one of its prices."""

    site: str
    currency: str
    name: str
    per_kwh: float
    energy_kwh: float
    cost: float


class DemandOut(BaseModel):
    """The demand charge of a month at a site."""

    site: str
    month: str = Field(description="The month in the time zone of the site, such as 2026-10.")
    start: datetime = Field(description="Start of the hour with the highest mean power.")
    kw: float = Field(description="Mean power of this hour.")
    month_share: float = Field(description="Share of the month that was requested, to which the charge is reduced.")
    cost: float


class CostOut(Account):
    """A cost account."""

    totals: list[CostAmount] = Field(description="The costs of all machines, one entry for each currency.")
    groups: list[CostAmount]
    hours: list[CostHour]
    prices: list[PricedEnergyOut]
    demand: list[DemandOut]
    without_tariff: list[str] = Field(description="Sites without a tariff in the accounting plan, at most 100.")
    unpriced_kwh: float = Field(description="Energy of the sites without a tariff.")
    notes: list[str]


class CarbonHintOut(BaseModel):
    """The best start of a deferrable load."""

    zone: str
    kw: float
    duration_hours: int
    best_start: datetime | None = Field(description="Best start; null if no hour is better than now.")
    now_kgco2e: float
    best_kgco2e: float
    note: str


class WaterAmount(BaseModel):
    """The water of a group of machines."""

    name: str
    litres: float
    estimated_litres: float | None
    coverage: float
    energy_kwh: float | None
    litres_per_kwh: float | None = Field(description="Water usage effectiveness, with the energy of the same machines.")


class WaterHour(BaseModel):
    """The water of one hour."""

    start: datetime
    litres: float
    coverage: float


class WaterOut(Account):
    """A water account."""

    total: WaterAmount
    groups: list[WaterAmount]
    hours: list[WaterHour]


class AdviceOption(BaseModel):
    """A time for the next maintenance, with its expected costs."""

    when: str = Field(description="Time of the maintenance: now, later, planned_stop or at_failure.")
    at: datetime | None = Field(None, description="Date of the planned stop, if it is set as a date.")
    after: float | None = Field(description="Time until the maintenance, in the unit of the RUL; null for at_failure.")
    failure_probability: float = Field(description="Probability of a failure before the maintenance.")
    life_used: float = Field(description="Expected life until the maintenance or failure, in the unit of the RUL.")
    money: float
    kwh: float
    kgco2e: float
    litres: float


class AdviceOut(BaseModel):
    """Maintenance advice for a machine."""

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
    best: str = Field(description="The option with the least expected money.")
    next_best: str = Field(description="The option with the least expected money besides the best one.")
    saves: float = Field(description="Expected savings in money of the best option compared with the next best one.")
    saves_on_failure: float = Field(
        description="Expected savings in money of the best option compared with waiting for the failure."
    )
    notes: list[str] = Field(description="Planned stops that are not compared, and why.")
    advice: str
    likely_mode: str | None = Field(None, description="The most likely failure mode, if the model knows modes.")
    trace_id: str


class UsedOut(BaseModel):
    """The use since midnight."""

    amount: float = Field(description="Use since midnight.")
    usual: float | None = Field(
        description="Mean use by this time of the seven days before, of the compared machines; null without such a "
        "history."
    )
    days: int = Field(description="Number of days in that mean.")
    compared: float | None = Field(
        None,
        description="Use since midnight of the machines that are known on all of these days; compare it with usual.",
    )
    machines: int = Field(0, description="Number of these machines.")
    left_out: int = Field(0, description="Number of metered machines that are not compared.")
    reason: str | None = Field(
        None,
        description="Why usual is null: no_readings_today (no machine is known for half of the day so far), no_history "
        "(on no earlier day half of the machines are known) or other_machines (no machine is known on all days).",
    )


class TodayOut(BaseModel):
    """Energy, carbon and water of the present day."""

    start: datetime
    end: datetime
    energy_kwh: UsedOut | None = None
    carbon_kgco2e: UsedOut | None = Field(None, description="Location-based emissions.")
    water_litres: UsedOut | None = None
    notes: list[str] = Field(description="Reasons for missing quantities.")
