"""Allocation of contracts to hourly consumption, remaining emissions, and the best start of a load."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.sustainability.carbon import account_emissions, best_start
from aurum.sustainability.contracts import Contract, allocate

MIDNIGHT = 24 * 20_000
KWH = np.array([10.0, 20.0, 30.0])


def matched(*contracts: Contract, first: int = MIDNIGHT, kwh: np.ndarray = KWH) -> list[list[float]]:
    return allocate(first, kwh, contracts).matched.tolist()  # type: ignore[no-any-return]


def test_contract_without_limits_covers_all_consumption() -> None:
    found = allocate(MIDNIGHT, KWH, [Contract("all", 0.1)])
    assert found.matched.tolist() == [[10, 20, 30]]
    assert found.rest.tolist() == [0, 0, 0]


def test_consumption_without_contracts_stays_unmatched() -> None:
    found = allocate(MIDNIGHT, KWH, [])
    assert found.matched.shape == (0, 3)
    assert found.rest.tolist() == [10, 20, 30]


def test_allocation_does_not_modify_its_input() -> None:
    kwh = KWH.copy()
    allocate(MIDNIGHT, kwh, [Contract("half", 0.1, share=0.5)])
    assert kwh.tolist() == KWH.tolist()


def test_integer_kwh_is_allocated_exactly() -> None:
    found = allocate(MIDNIGHT, np.array([1, 3]), [Contract("half", 0.1, share=0.5)])
    assert found.matched.tolist() == [[0.5, 1.5]]
    assert found.rest.tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    ("contract", "covered"),
    [
        (Contract("a", 0, share=0.25), [2.5, 5, 7.5]),
        (Contract("a", 0, share=0.0), [0, 0, 0]),
        (Contract("a", 0, kwh=20), [10, 20, 20]),
        (Contract("a", 0, kwh=0.0), [0, 0, 0]),
        (Contract("a", 0, share=0.5, kwh=8), [5, 8, 8]),
        (Contract("a", 0, share=0.5, profile=(9.0, 9.0, 9.0, *[0.0] * 21)), [5, 9, 9]),
        (Contract("a", 0, kwh=12, profile=(9.0, 90.0, 9.0, *[0.0] * 21)), [9, 12, 9]),
    ],
)
def test_contract_allocation_is_capped_by_lowest_limit(contract: Contract, covered: list[float]) -> None:
    assert matched(contract) == [covered]


def test_contract_share_applies_to_total_consumption() -> None:
    assert matched(Contract("first", 0, share=0.5), Contract("then", 0, share=0.4)) == [[5, 10, 15], [4, 8, 12]]
    assert matched(Contract("first", 0, share=0.75), Contract("then", 0, share=0.5))[1] == [2.5, 5, 7.5]


def test_contracts_are_allocated_in_order() -> None:
    one, two = Contract("one", 0, kwh=15), Contract("two", 0, kwh=8)
    assert matched(one, two) == [[10, 15, 15], [0, 5, 8]]
    assert matched(two, one) == [[8, 8, 8], [2, 12, 15]]


def test_contract_profile_follows_hour_of_day() -> None:
    contract = Contract("solar", 0, profile=tuple(float(hour) for hour in range(24)))
    assert matched(contract, first=MIDNIGHT + 22, kwh=np.full(4, 100.0)) == [[22, 23, 0, 1]]


@pytest.mark.parametrize(
    ("begins", "ends", "covered"),
    [
        (None, None, [10, 20, 30]),
        (MIDNIGHT, None, [10, 20, 30]),
        (MIDNIGHT + 1, None, [0, 20, 30]),
        (MIDNIGHT + 3, None, [0, 0, 0]),
        (None, MIDNIGHT, [0, 0, 0]),
        (None, MIDNIGHT + 2, [10, 20, 0]),
        (MIDNIGHT + 1, MIDNIGHT + 2, [0, 20, 0]),
        (MIDNIGHT + 2, MIDNIGHT + 9, [0, 0, 30]),
    ],
)
def test_contract_period_includes_start_but_not_end(begins: int | None, ends: int | None, covered: list[float]) -> None:
    found = allocate(MIDNIGHT, KWH, [Contract("a", 0, begins=begins, ends=ends)])
    assert found.matched.tolist() == [covered]
    assert found.rest.tolist() == (KWH - covered).tolist()


def test_account_reports_each_hour_and_contract() -> None:
    contracts = [Contract("wind", 0.01, kwh=8), Contract("tariff", 0.1, share=0.5, begins=MIDNIGHT + 1)]
    found = account_emissions(MIDNIGHT, KWH, np.array([0.4, 0.5, 0.6]), np.array([0.7, 0.8, 0.9]), contracts)
    assert found.kwh.tolist() == [10, 20, 30]
    assert found.location.tolist() == pytest.approx([4, 10, 18])
    assert found.matched.tolist() == [8, 18, 23]
    assert found.by_contract == (24, 25)
    assert found.market.tolist() == pytest.approx([0.08 + 2 * 0.7, 0.08 + 1 + 2 * 0.8, 0.08 + 1.5 + 7 * 0.9])


def test_account_without_contracts_uses_residual_mix() -> None:
    found = account_emissions(MIDNIGHT, KWH, np.full(3, 0.4), np.array([0.5, 0.6, 0.7]), [])
    assert found.market.tolist() == pytest.approx([5, 12, 21])
    assert found.matched.tolist() == [0, 0, 0]
    assert found.by_contract == ()


@given(
    st.lists(st.floats(0, 1e4), min_size=1, max_size=30),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e4)), max_size=4),
)
@settings(deadline=None, max_examples=50)
def test_allocation_conserves_energy(kwh: list[float], limits: list[tuple[float, float]]) -> None:
    contracts = [Contract(f"c{index}", 0.1, share=share, kwh=most) for index, (share, most) in enumerate(limits)]
    found = allocate(MIDNIGHT, np.array(kwh), contracts)
    assert (found.matched >= 0).all()
    assert (found.rest >= 0).all()
    assert (found.matched.sum(axis=0) + found.rest).tolist() == pytest.approx(kwh)


@pytest.mark.parametrize(
    ("hours", "start", "now", "best"), [(1, 103, 0.5, 0.1), (2, 102, 0.9, 0.3), (3, 102, 1.1, 0.6), (5, 100, 1.5, 1.5)]
)
def test_best_start_is_found_for_each_duration(hours: int, start: int, now: float, best: float) -> None:
    hint = best_start(100, np.array([0.5, 0.4, 0.2, 0.1, 0.3]), 4.0, hours)
    assert (hint.start, hint.now, hint.best) == (start, pytest.approx(4 * now), pytest.approx(4 * best))


def test_best_start_is_earliest_among_equal_hours() -> None:
    assert best_start(7, np.array([0.5, 0.25, 0.25, 0.25]), 1.0, 2).start == 8
    assert best_start(7, np.full(5, 0.25), 1.0, 2).start == 7


@pytest.mark.parametrize("hours", [-1, 0, 4])
def test_load_with_invalid_duration_is_rejected(hours: int) -> None:
    with pytest.raises(ValueError, match=f"^a load of {hours} hours does not fit into 3 hours$"):
        best_start(0, np.array([0.1, 0.2, 0.3]), 1.0, hours)
