"""What maintenance now, at the planned stop or after the failure is expected to cost."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.maintenance.advice import RulDistribution, cheapest_option, maintenance_options
from aurum.maintenance.costs import Cost, CostTableError, TypeCosts, load_costs

LEVELS = np.linspace(0.05, 0.95, 19)
COSTS = TypeCosts(planned=Cost(money=1000, kwh=10), failure=Cost(money=10_000, kwh=400), life=400)


def uniform(longest: float) -> RulDistribution:
    return RulDistribution(LEVELS, LEVELS * longest, longest)


def test_expected_costs_are_exact_for_uniform_distribution() -> None:
    found = {option.when: option for option in maintenance_options(uniform(100), COSTS, planned_stop=40)}
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
    assert cheapest_option(maintenance_options(new, COSTS, planned_stop=168)).when == "planned_stop"
    worn = RulDistribution(LEVELS, np.linspace(1, 30, 19), 240)
    assert cheapest_option(maintenance_options(worn, COSTS, planned_stop=168)).when == "now"
    cheap = TypeCosts(planned=Cost(money=1000), failure=Cost(money=1000), life=400)
    assert cheapest_option(maintenance_options(worn, cheap, planned_stop=168)).when in ("planned_stop", "at_failure")


@given(st.lists(st.floats(0, 300), min_size=19, max_size=19), st.floats(1, 400))
def test_failure_probability_grows_from_0_to_1(values: list[float], cap: float) -> None:
    distribution = RulDistribution(LEVELS, np.minimum(np.sort(values), cap), cap)
    at = np.linspace(0, cap, 50)
    failed = [distribution.failure_probability(float(each)) for each in at]
    assert all(0 <= a <= b + 1e-12 for a, b in itertools.pairwise(failed))
    assert failed[-1] == 1
    assert 0 <= distribution.life_used(float("inf")) <= cap + 1e-9


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
