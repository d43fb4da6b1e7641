"""The usual use of a day: of the same machines, and with a reason where it cannot be told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.sustainability.day_use import compare_days


def test_today_is_compared_with_same_time_of_known_days() -> None:
    found = compare_days(np.array([[12.0], [10.0], [20.0], [1000.0]]), np.array([[1.0], [1.0], [1.0], [0.2]]))
    assert found.amount == found.compared == 12
    assert (found.usual, found.days) == (15, 2)
    assert (found.machines, found.left_out, found.reason) == (1, 0, None)


def test_usual_use_is_that_of_the_same_machines() -> None:
    """A fleet of which only one machine in five was there in the days before does not use five times as much."""
    amounts = np.array([[30.0] * 5, [28.0] * 5, [32.0] * 5])
    coverage = np.array([[1.0] * 5, [1.0, 0.9, 0.8, 0.9, 0.0], [1.0, 1.0, 0.9, 0.9, 0.0]])
    amounts[1:, 4] = 0
    found = compare_days(amounts, coverage)
    assert (found.amount, found.compared, found.usual) == (150, 120, 120)
    assert (found.machines, found.left_out, found.days) == (4, 1, 2)


def test_day_without_most_machines_does_not_count() -> None:
    """One machine of five with readings on the days before is no history of the five."""
    amounts = np.array([[30.0] * 5, [20.0, 0, 0, 0, 0]])
    coverage = np.array([[1.0] * 5, [1.0, 0, 0, 0, 0]])
    found = compare_days(amounts, coverage)
    assert (found.amount, found.usual, found.compared, found.reason) == (150, None, None, "no_history")


def test_no_usual_use_without_half_of_today() -> None:
    found = compare_days(np.array([[3.0], [40.0]]), np.array([[0.1], [1.0]]))
    assert (found.amount, found.usual, found.reason, found.left_out) == (3, None, "no_readings_today", 1)


def test_no_usual_use_of_machines_that_take_turns() -> None:
    coverage = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    found = compare_days(coverage * 5, coverage)
    assert (found.usual, found.reason, found.left_out) == (None, "other_machines", 2)


@pytest.mark.parametrize("machines", [0, 2])
def test_plant_without_meters_has_no_usual_use(machines: int) -> None:
    found = compare_days(np.zeros((8, machines)), np.zeros((8, machines)))
    assert (found.amount, found.usual, found.left_out, found.reason) == (0, None, 0, "no_readings_today")


@given(st.lists(st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0]), min_size=4, max_size=4), min_size=2, max_size=8))
def test_constant_machines_use_what_is_usual(covered: list[list[float]]) -> None:
    """Whichever machines are known on whichever days, machines that always use the same are as usual."""
    coverage = np.array(covered)
    found = compare_days(np.where(coverage > 0, np.array([1.0, 10.0, 100.0, 1000.0]), 0.0), coverage)
    assert found.usual is None or found.usual == pytest.approx(found.compared)
    assert (found.usual is None) == (found.reason is not None)
