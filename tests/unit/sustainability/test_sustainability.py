"""Energy, carbon and water accounting: exactness, gaps, counter resets, factors, contracts, baselines and plans."""

import math
import re
from collections.abc import Mapping
from decimal import Decimal, getcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.runtime.errors import AurumError, UnavailableError
from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.baseline import BaselineError, by_day, fit_baseline, savings
from aurum.sustainability.carbon import account_emissions, best_start
from aurum.sustainability.contracts import Contract, allocate
from aurum.sustainability.counters import CounterRules, consumption
from aurum.sustainability.energy import power_of_current, specific_consumption
from aurum.sustainability.factors import EmissionFactor, FactorError, built_in_table, read_hourly_table, read_table
from aurum.sustainability.hourly import empty_hours, integrate, spread_increases, sum_hours
from aurum.sustainability.plan import AccountingPlanError, load_plan
from aurum.sustainability.providers import CarbonAwareFactors, ElectricityMapsFactors, FileFactors, LastGoodFactors
from aurum.sustainability.water import water_usage_effectiveness

MINUTE = 60_000_000
START = 470_000 * HOUR_US  # some whole hour


def readings(minutes: list[int], values: list[float]) -> tuple[np.ndarray, np.ndarray]:
    return START + np.array(minutes, dtype=np.int64) * MINUTE, np.array(values)


def test_constant_power_yields_constant_hourly_energy() -> None:
    times, values = readings(list(range(0, 181, 5)), [60.0] * 37)
    hourly = integrate(times, values, START, START + 3 * HOUR_US, 1200)
    assert hourly.amount.tolist() == pytest.approx([60, 60, 60])
    assert hourly.covered.tolist() == pytest.approx([3600] * 3)
    assert hourly.coverage == 1


def test_gap_is_excluded_and_lowers_coverage() -> None:
    minutes = [*range(0, 31, 5), *range(90, 121, 5)]
    times, values = readings(minutes, [60.0] * len(minutes))
    hourly = integrate(times, values, START, START + 2 * HOUR_US, 1200)
    assert hourly.amount.tolist() == pytest.approx([30, 30])
    assert hourly.coverage == pytest.approx(0.5)
    assert hourly.estimate == pytest.approx(120)
    assert integrate(times[:1], values[:1], START, START + HOUR_US, 1200).estimate is None


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1e4)), min_size=2, max_size=60),
    st.integers(0, 600),
    st.integers(1, 600),
)
@settings(deadline=None)
def test_energy_matches_exact_arithmetic(steps: list[tuple[int, float]], begin: int, length: int) -> None:
    """The sum over hours equals the trapezoids between the readings, each cut to the range, gaps left out."""
    minutes = np.cumsum([step for step, _ in steps]).tolist()
    times, values = readings(minutes, [value for _, value in steps])
    first, last = begin, begin + length
    exact = Fraction(0)
    for a, b, u, v in zip(minutes, minutes[1:], values.tolist(), values[1:].tolist(), strict=False):
        if (b - a) * 60 > 1200:
            continue
        low, high = max(a, first), min(b, last)
        if low < high:
            slope = (Fraction(v) - Fraction(u)) / (b - a)
            at_low, at_high = Fraction(u) + slope * (low - a), Fraction(u) + slope * (high - a)
            exact += (at_low + at_high) / 2 * Fraction(high - low, 60)
    hourly = integrate(times, values, START + first * MINUTE, START + last * MINUTE, 1200)
    assert hourly.total == pytest.approx(float(exact), rel=1e-9, abs=1e-7)


def test_counter_reset_continues_accumulation() -> None:
    times, counts = readings([0, 10, 20, 30, 40, 50, 60, 70], [100, 110, 120, 5, 10, 15, 20, 30])
    used = consumption(times, counts, CounterRules())
    hourly = spread_increases(used.times, used.increases, START, START + 2 * HOUR_US, 1200)
    assert hourly.amount.tolist() == pytest.approx([10 + 10 + 5 + 5 + 5 + 5, 10], rel=1e-6)


def test_sums_means_and_ratios_are_correct() -> None:
    times, values = readings(list(range(0, 121, 10)), [30.0] * 13)
    one = integrate(times, values, START, START + 2 * HOUR_US, 1200)
    both = sum_hours([one, one], START, START + 2 * HOUR_US)
    assert both.total == pytest.approx(120)
    assert both.coverage == pytest.approx(1)
    assert sum_hours([], START, START + HOUR_US).coverage == empty_hours(START, START + HOUR_US).total == 0
    assert integrate(times, values, START, START + 3 * HOUR_US, 1200).means.tolist()[:2] == pytest.approx([30, 30])
    assert np.isnan(integrate(times, values, START, START + 3 * HOUR_US, 1200).means[2])
    assert power_of_current(np.array([10.0]), 400, 0.85, 3)[0] == pytest.approx(math.sqrt(3) * 400 * 10 * 0.85 / 1000)
    assert power_of_current(np.array([10.0]), 230, 1, 1)[0] == pytest.approx(2.3)
    assert specific_consumption(10, 4) == 2.5
    assert specific_consumption(10, 0) is None
    assert water_usage_effectiveness(18, 10) == 1.8
    assert water_usage_effectiveness(18, 0) is None


amounts = st.floats(0, 1e5, allow_subnormal=False)
factors = st.floats(0, 2, allow_subnormal=False)


@given(
    st.lists(st.tuples(amounts, factors, factors), min_size=1, max_size=48), st.floats(0, 1), amounts, factors, factors
)
@settings(deadline=None)
def test_carbon_matches_decimal_oracle(
    hours: list[tuple[float, float, float]], share: float, most: float, clean: float, other: float
) -> None:
    getcontext().prec = 50
    contracts = [Contract("wind", clean, share=share), Contract("hydro", other, kwh=most)]
    kwh, grid, residual = (np.array(column) for column in zip(*hours, strict=True))
    found = account_emissions(470_000, kwh, grid, residual, contracts)
    location = market = matched = Decimal(0)
    for energy, of_grid, of_rest in hours:
        used = Decimal(energy)
        location += used * Decimal(of_grid)
        wind = min(Decimal(share) * used, used)
        hydro = min(Decimal(most), used - wind)
        market += wind * Decimal(clean) + hydro * Decimal(other) + (used - wind - hydro) * Decimal(of_rest)
        matched += wind + hydro
    assert math.fsum(found.location) == pytest.approx(float(location), rel=1e-9, abs=1e-300)
    assert math.fsum(found.market) == pytest.approx(float(market), rel=1e-9, abs=1e-9)
    assert math.fsum(found.matched) == pytest.approx(float(matched), rel=1e-9, abs=1e-9)


def test_contract_surplus_is_not_shifted_between_hours() -> None:
    solar = Contract("solar", 0.0, profile=tuple([0.0] * 6 + [50.0] * 12 + [0.0] * 6))
    kwh = np.full(24, 20.0)
    allocation = allocate(24 * 1000, kwh, [solar])
    assert allocation.matched.sum() == 12 * 20
    assert allocation.rest.sum() == 12 * 20
    later = allocate(24 * 1000, kwh, [Contract("wind", 0.0, kwh=5, begins=24 * 1000 + 10, ends=24 * 1000 + 12)])
    assert later.matched.sum() == 10


def test_deferrable_load_starts_at_lowest_emissions() -> None:
    hint = best_start(100, np.array([0.4, 0.3, 0.1, 0.2, 0.5]), kw=10, hours=2)
    assert (hint.start, hint.now, hint.best) == (102, pytest.approx(7.0), pytest.approx(3.0))
    with pytest.raises(ValueError, match="3 hours does not fit into 2 hours"):
        best_start(0, np.zeros(2), 1, 3)


def test_built_in_factors_name_their_sources() -> None:
    table = built_in_table()
    assert {"WORLD", "GB", "DE", "US", "FR"} <= set(table.zones)
    for (zone, _), by_year in table.factors.items():
        for factor in by_year.values():
            assert 0 < factor.kg_per_kwh < (1.35 if zone in ("FK", "MS", "SH", "TM", "UZ") else 1)
            assert len(factor.source) > 20
    hour_of_2023, hour_of_2030 = 464_600, 526_000
    assert table.factor_for("WORLD", "location", hour_of_2023).year == 2023
    assert table.factor_for("WORLD", "location", hour_of_2030).year == 2024
    assert table.factor_for("WORLD", "residual", hour_of_2030).method == "location"
    with pytest.raises(
        FactorError,
        match="no emission factor for zone 'ATLANTIS'; the 214 zones are countries by ISO 3166 such as DE, ES, US",
    ):
        table.factor_for("ATLANTIS", "location", hour_of_2023)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["zone,method,year,kg_per_kwh"], "row 1: lacks the column source"),
        (["zone,method,year,kg_per_kwh,source", "X,grid,2024,0.3,s"], "row 2, method: 'grid' is not one of location"),
        (
            ["zone,method,year,kg_per_kwh,source", "X,location,2024,380,s"],
            "row 2, kg_per_kwh: 380 is not plausible",
        ),
        (["zone,method,year,kg_per_kwh,source", "X,location,2024,few,s"], "row 2, kg_per_kwh: 'few' is not a number"),
        (["zone,method,year,kg_per_kwh,source", "X,location,MMXX,1,s"], "row 2, year: 'MMXX'"),
        (["zone,method,year,kg_per_kwh,source", "X,location"], "row 2, year: the row has too few cells"),
    ],
)
def test_invalid_factor_is_reported_by_row_and_field(lines: list[str], problem: str) -> None:
    with pytest.raises(FactorError, match=problem):
        read_table(lines, "mine.csv")


class Source:
    """Answers as a provider would, until it is away."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.away = False

    async def get_json(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        self.asked.append((path, dict(params or {})))
        if self.away:
            raise UnavailableError("the provider does not answer")
        return self.answer


HOUR = 470_000
ISO = "2023-08-14T08:00:00.000Z"


async def test_providers_parse_hourly_factors() -> None:
    maps = Source({"zone": "DE", "data": [{"datetime": ISO, "carbonIntensity": 302}]})
    found = await ElectricityMapsFactors(maps).hourly("DE", HOUR, HOUR + 1)
    assert found == {HOUR: EmissionFactor(0.302, "Electricity Maps", 2023)}
    assert maps.asked[0][1] == {"zone": "DE", "start": "2023-08-14T08:00:00Z", "end": "2023-08-14T09:00:00Z"}
    aware = Source([{"time": ISO, "rating": 100.0}, {"time": "2023-08-14T08:30:00Z", "rating": 200.0}])
    assert (await CarbonAwareFactors(aware).hourly("de", HOUR, HOUR + 1))[HOUR].kg_per_kwh == pytest.approx(0.15)
    for wrong in ({}, {"data": [{"datetime": "x"}]}, {"data": [{"datetime": ISO, "carbonIntensity": 9e9}]}):
        with pytest.raises((AurumError, FactorError)):
            await ElectricityMapsFactors(Source(wrong)).hourly("DE", HOUR, HOUR + 1)


async def test_last_good_factor_is_used_and_marked_stale() -> None:
    source = Source({"data": [{"datetime": ISO, "carbonIntensity": 302}]})
    factors = LastGoodFactors(ElectricityMapsFactors(source))
    assert not (await factors.hourly("DE", HOUR, HOUR + 1))[HOUR].stale
    source.away = True
    again = await factors.hourly("DE", HOUR, HOUR + 2)
    assert [again[HOUR].stale, again[HOUR + 1].stale] == [False, True]
    assert again[HOUR + 1].kg_per_kwh == 0.302
    with pytest.raises(UnavailableError):
        await factors.hourly("FR", HOUR, HOUR + 1)
    asked = len(source.asked)
    await factors.hourly("DE", HOUR, HOUR + 1)
    assert len(source.asked) == asked  # what is known is not asked for again


async def test_hourly_factors_are_read_from_file(tmp_path: Path) -> None:
    path = tmp_path / "hours.csv"
    path.write_text("zone,hour,kg_per_kwh,source\nDE,2023-08-14T08:00:00Z,0.25,grid operator\n")
    assert (await FileFactors(path).hourly("DE", HOUR - 1, HOUR + 2)) == {
        HOUR: EmissionFactor(0.25, "grid operator", 2023)
    }
    with pytest.raises(FactorError, match="row 2, hour: 'noon'"):
        read_hourly_table(["zone,hour,kg_per_kwh,source", "DE,noon,0.2,x"], "f.csv")


def test_baseline_finds_dependencies_and_savings() -> None:
    rng = np.random.default_rng(0)
    production, temperature = rng.uniform(50, 100, 400), rng.uniform(-5, 30, 400)
    energy = 40 + 1.5 * production - 0.8 * temperature + rng.normal(0, 1, 400)
    baseline = fit_baseline(energy, {"production": production, "temperature": temperature, "constant": np.ones(400)})
    assert baseline.variables == ("production", "temperature")
    assert baseline.intercept == pytest.approx(40, abs=1)
    assert baseline.coefficients == (pytest.approx(1.5, abs=0.02), pytest.approx(-0.8, abs=0.02))
    assert baseline.r_squared > 0.99
    assert min(map(abs, baseline.t)) > 10
    less = energy - 10
    less[:3] = np.nan
    found = savings(
        baseline, less, {"production": production, "temperature": temperature + np.where(production > 90, 30, 0)}
    )
    assert found.intervals == 397
    assert found.outside > 0
    plain = savings(baseline, less, {"production": production, "temperature": temperature})
    assert plain.savings == pytest.approx(3970, rel=0.02)
    assert plain.cusum[-1] == pytest.approx(plain.savings)
    assert np.isnan(plain.cusum[0])
    assert by_day(48, np.arange(48.0)).tolist() == [sum(range(24)), sum(range(24, 48))]


@pytest.mark.parametrize(
    ("energy", "variables", "problem"),
    [
        (np.full(4, np.nan), {}, "has 0 intervals in which energy are known; at least 6 are required"),
        (np.ones(20), {}, "does not vary"),
        (np.arange(20.0), {"a": np.arange(20.0), "b": 2 * np.arange(20.0)}, "are collinear"),
    ],
)
def test_unusable_baseline_period_is_rejected_with_reason(
    energy: np.ndarray, variables: dict[str, np.ndarray], problem: str
) -> None:
    with pytest.raises(BaselineError, match=problem):
        fit_baseline(energy, variables)


def test_built_in_plan_covers_simulated_plant(tmp_path: Path) -> None:
    plan = load_plan()
    assert plan.meters_of("pump").rates == ["power_kw", "water_l_h", "flow_m3_h"]
    assert plan.meters_of("anything").rates == ["power_kw"]
    assert plan.meters_of("turbofan").rates == []
    assert plan.site_of("anywhere").zone == "WORLD"
    path = tmp_path / "plan.yaml"
    path.write_text("meters: {}\nlines: {press: ['press-*', pump-001]}\n")
    mine = load_plan(path)
    assert [mine.line_of(name) for name in ("press-7", "pump-001", "pump-002")] == ["press", "press", ""]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("meters: {pump: {power: {sensor: p, kind: steam}}}", r"meters\.pump\.power\.kind"),
        (
            "meters: {}\nsites: {a: {contracts: [{name: x, kg_per_kwh: 0}]}}",
            "one of share, kwh_per_hour and profile_kwh",
        ),
        ("meters: {}\nsites: {a: {contracts: [{name: x, kg_per_kwh: 400, share: 1}]}}", "is not plausible"),
        ("meters: [", "is not YAML"),
        ("{}", "meters: is missing"),
    ],
)
def test_invalid_plan_is_rejected_with_reason(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(AccountingPlanError, match=problem):
        load_plan(path)


def test_worked_example_in_docs_is_correct() -> None:
    text = (Path(__file__).parents[3] / "docs" / "sustainability.md").read_text()
    rows = [
        [float(cell) for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if re.match(r"\| \d+ \| \d", line)
    ]
    _, used, grid, solar, tariff, rest, location, market = (np.array(column) for column in zip(*rows, strict=True))
    first = 24 * 20_000
    contracts = [Contract("solar", 0.0, kwh=50), Contract("tariff", 0.02, share=0.5)]
    found = account_emissions(first, used, grid, np.full(3, 0.6), contracts)
    allocation = allocate(first, used, contracts)
    assert np.allclose(allocation.matched, [solar, tariff])
    assert np.allclose(allocation.rest, rest)
    assert np.allclose(found.location, location)
    assert np.allclose(found.market, market)
    assert f"Location-based {location.sum():g} kgCO2e, market-based {market.sum():g} kgCO2e" in text
    assert found.matched.sum() == used.sum()
    without = account_emissions(first, used, grid, np.full(3, 0.6), contracts[:1])
    assert f"residual mix: {without.market.sum():g} kgCO2e" in text


def test_plan_in_docs_can_be_loaded(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "sustainability.md").read_text()
    path = tmp_path / "plan.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])  # type: ignore[index]
    plan = load_plan(path)
    assert plan.meters_of("press").counters == ["meter_l"]
    assert [part.contract().name for part in plan.site_of("hall-1").contracts] == ["solar PPA", "green tariff"]
