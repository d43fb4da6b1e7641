"""What maintenance now, at planned stops or after the failure is expected to cost."""

import itertools
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.maintenance.advice import RulDistribution, cheapest_option, maintenance_options, next_best_option
from aurum.maintenance.costs import Cost, CostTableError, TypeCosts, load_costs
from aurum.maintenance.planned_stops import PlannedStop, hours_per_unit, life_until, next_dates

LEVELS = np.linspace(0.05, 0.95, 19)
COSTS = TypeCosts(planned=Cost(money=1000, kwh=10), failure=Cost(money=10_000, kwh=400), life=400)


def uniform(longest: float) -> RulDistribution:
    return RulDistribution(LEVELS, LEVELS * longest, longest)


def test_expected_costs_are_exact_for_uniform_distribution() -> None:
    found = {option.when: option for option in maintenance_options(uniform(100), COSTS, planned_stops=[40])}
    assert found["now"].expected["money"] == 1000
    planned = found["planned_stop"]
    assert planned.failure_probability == pytest.approx(0.4)
    assert planned.life_used == pytest.approx(40 - 40**2 / 200)
    assert planned.expected["money"] == pytest.approx(0.6 * 1000 + 0.4 * 10_000 - 1000 * planned.life_used / 400)
    assert planned.expected["kwh"] == pytest.approx(0.6 * 10 + 0.4 * 400 - 10 * planned.life_used / 400)
    failure = found["at_failure"]
    assert failure.life_used == pytest.approx(50)
    assert failure.expected["money"] == pytest.approx(10_000 - 1000 * 50 / 400)
    assert cheapest_option(list(found.values())).when == "now"


def test_cheapest_option_depends_on_remaining_life() -> None:
    new = RulDistribution(LEVELS, np.full(19, 240.0), 240)
    assert cheapest_option(maintenance_options(new, COSTS, planned_stops=[168])).when == "planned_stop"
    worn = RulDistribution(LEVELS, np.linspace(1, 30, 19), 240)
    assert cheapest_option(maintenance_options(worn, COSTS, planned_stops=[168])).when == "now"
    cheap = TypeCosts(planned=Cost(money=1000), failure=Cost(money=1000), life=400)
    assert cheapest_option(maintenance_options(worn, cheap, planned_stops=[168])).when in ("planned_stop", "at_failure")


@given(st.lists(st.floats(0, 300), min_size=19, max_size=19), st.floats(1, 400))
def test_failure_probability_grows_from_0_to_1(values: list[float], cap: float) -> None:
    distribution = RulDistribution(LEVELS, np.minimum(np.sort(values), cap), cap)
    at = np.linspace(0, cap, 50)
    failed = [distribution.failure_probability(float(each)) for each in at]
    assert all(0 <= a <= b + 1e-12 for a, b in itertools.pairwise(failed))
    assert failed[-1] == 1
    assert 0 <= distribution.life_used(float("inf")) <= cap + 1e-9


def test_each_planned_stop_is_compared_with_the_next_best_option() -> None:
    options = maintenance_options(uniform(100), COSTS, planned_stops=[2, 20, 60])
    assert [option.when for option in options] == ["now", *["planned_stop"] * 3, "at_failure"]
    assert [option.after for option in options] == [0, 2, 20, 60, None]
    best, other = cheapest_option(options), next_best_option(options)
    assert best.when == "now"
    assert (other.when, other.after) == ("planned_stop", 2)
    saves = other.expected["money"] - best.expected["money"]
    assert 0 < saves < 0.1 * (options[-1].expected["money"] - best.expected["money"])


def test_healthy_machine_is_not_told_to_be_maintained_now() -> None:
    """A machine beyond the cap of its model may run on, also if the next planned stop is later than the cap."""
    healthy = RulDistribution(LEVELS, np.full(19, 100.0), 100, COSTS.life)
    for stops in ([], [168], [90, 168], [1000]):
        assert cheapest_option(maintenance_options(healthy, COSTS, stops)).when != "now"
    # It fails before the stop, if it is not maintained; yet it need not be maintained at once
    late = RulDistribution(LEVELS, np.linspace(80, 100, 19), 240, COSTS.life)
    best = cheapest_option(maintenance_options(late, COSTS, [168]))
    assert best.when == "later"
    assert best.after is not None
    assert 20 < best.after < 90
    worn = RulDistribution(LEVELS, np.linspace(0.5, 10, 19), 240, COSTS.life)
    assert cheapest_option(maintenance_options(worn, COSTS, [168])).when == "now"


@given(st.lists(st.floats(0, 300), min_size=19, max_size=19), st.floats(1, 300), st.floats(1, 1000))
def test_life_beyond_the_cap_is_spread_to_the_longest(values: list[float], cap: float, longest: float) -> None:
    distribution = RulDistribution(LEVELS, np.minimum(np.sort(values), cap), cap, longest)
    at = np.linspace(0, distribution.end, 80)
    failed = [distribution.failure_probability(float(each)) for each in at]
    assert all(0 <= a <= b + 1e-12 for a, b in itertools.pairwise(failed))
    assert failed[-1] == 1
    assert distribution.life_used(np.inf) <= max(cap, longest) + 1e-9


def test_dates_of_planned_stops_count_down() -> None:
    hour, now = 3_600_000_000, 1_700_000_000_000_000
    stops = [PlannedStop("a", now + 50 * hour), PlannedStop("b", now - hour), PlannedStop("c", now + 10 * hour)]
    dates = [datetime.fromtimestamp((now + 30 * hour) / 1e6, UTC)]
    found = next_dates(stops, dates, now)
    assert found == [now + 10 * hour, now + 30 * hour, now + 50 * hour]
    assert [life_until(at, now, 1.0) for at in found] == [10, 30, 50]
    assert [life_until(at, now + 4 * hour, 1.0) for at in found] == [6, 26, 46]
    assert life_until(found[0], now, 2.5) == 4
    assert hours_per_unit("h", COSTS) == 1
    assert hours_per_unit("cycles", COSTS) is None
    assert hours_per_unit("cycles", COSTS.model_copy(update={"hours_per_unit": 2.5})) == 2.5


def test_cost_table_has_default_and_names_invalid_field(tmp_path: Path) -> None:
    table = load_costs()
    other = table.costs_for("anything")
    assert other is not None
    assert table.costs_for("pump") is not other
    path = tmp_path / "costs.yaml"
    path.write_text("types: {pump: {planned: {money: -1}, failure: {money: 2}, life: 3}}")
    with pytest.raises(CostTableError, match=r"types\.pump\.planned\.money"):
        load_costs(path)
    with pytest.raises(CostTableError, match="cannot be read"):
        load_costs(tmp_path / "nowhere.yaml")
