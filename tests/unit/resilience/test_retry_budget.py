"""The retry budget: earned tokens, the floor and its timing, capacity, and withdrawals."""

import pytest

from aurum.resilience import RetryBudget
from tests.support.resilience import Clock, listening


def deposited(budget: RetryBudget, times: int) -> float:
    for _ in range(times):
        budget.deposit()
    return budget.tokens


def test_retry_budget_starts_with_its_floor() -> None:
    budget = RetryBudget("b")
    assert (budget.name, budget.ratio, budget.floor, budget.capacity) == ("b", 0.2, 1.0, 100.0)
    assert RetryBudget("b", clock=Clock()).tokens == 1.0
    assert RetryBudget("b", 0.2, 7.0, 5.0, Clock()).tokens == 5.0
    assert RetryBudget("b", 0.2, 0.0, clock=Clock()).tokens == 0.0


def test_calls_earn_only_tokens_above_floor() -> None:
    budget = RetryBudget("b", 0.75, 1.0, clock=Clock(50.0))
    assert [deposited(budget, 1) for _ in range(4)] == [1.0, 1.5, 2.25, 3.0]
    budget = RetryBudget("b", 0.5, 2.0, clock=Clock(50.0))
    assert [deposited(budget, 1) for _ in range(6)] == [2.0, 2.0, 2.0, 2.0, 2.5, 3.0]


def test_tokens_are_saved_up_to_capacity() -> None:
    clock = Clock()
    budget = RetryBudget("b", 0.75, 0.0, 2.0, clock)
    assert [deposited(budget, 1) for _ in range(4)] == [0.75, 1.5, 2.0, 2.0]
    budget = RetryBudget("b", 0.0, 2.0, 3.0, clock)
    clock.now = 5.0
    assert budget.tokens == 3.0


def test_floor_is_credited_at_end_of_each_second() -> None:
    clock = Clock(100.0)
    budget = RetryBudget("b", 0.0, 3.0, clock=clock)
    seen = []
    for now in (100.0, 100.999, 101.0, 101.5, 102.0, 104.5, 104.999, 105.0):
        clock.now = now
        seen.append(budget.tokens)
    assert seen == [3.0, 3.0, 6.0, 6.0, 9.0, 15.0, 15.0, 18.0]


def test_earnings_are_compared_with_floor_each_second() -> None:
    clock = Clock()
    budget = RetryBudget("b", 0.5, 1.0, clock=clock)
    assert deposited(budget, 3) == 1.5
    clock.now = 1.0
    assert deposited(budget, 2) == 2.5  # the floor of the new second, and nothing above it yet
    assert deposited(budget, 1) == 3.0


def test_deposit_with_explicit_time_starts_period() -> None:
    clock = Clock()
    budget = RetryBudget("b", 1.0, 1.0, 1.0, clock)
    clock.now = 1.0
    budget.deposit(1.0)  # full, but it is the first call of a period
    assert budget.withdraw()
    assert deposited(budget, 1) == 1.0
    other = RetryBudget("b", 1.0, 0.0, clock=clock)
    other.deposit(1.5)
    other.deposit(1.5)
    assert other.tokens == 2.0


def test_withdrawal_takes_whole_token_or_emits_event() -> None:
    clock = Clock()
    budget = RetryBudget("scarce", 0.5, 0.0, clock=clock)
    with listening() as told:
        assert deposited(budget, 1) == 0.5
        assert budget.withdraw() is False
        assert deposited(budget, 1) == 1.0
        assert budget.withdraw() is True
        assert budget.tokens == 0.0
        assert deposited(budget, 5) == 2.5
        assert budget.withdraw() is True
        assert budget.tokens == 1.5
    assert told == [("budget_exhausted", "scarce", "")]


def test_withdrawal_includes_due_floor() -> None:
    clock = Clock()
    budget = RetryBudget("b", 0.0, 1.0, clock=clock)
    assert [budget.withdraw(), budget.withdraw()] == [True, False]
    clock.now = 1.0
    assert [budget.withdraw(), budget.withdraw()] == [True, False]


@pytest.mark.parametrize("ratio", [-0.01, 1.01, 2.0])
def test_budget_ratio_must_be_between_zero_and_one(ratio: float) -> None:
    assert [RetryBudget("b", each).ratio for each in (0.0, 0.5, 1.0)] == [0.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="ratio") as caught:
        RetryBudget("b", ratio)
    assert str(caught.value) == f"retry budget b: ratio must be between 0 and 1, not {ratio}"


@pytest.mark.parametrize(("floor", "capacity"), [(-0.01, 100.0), (1.0, 0.99)])
def test_budget_floor_and_capacity_are_bounded(floor: float, capacity: float) -> None:
    least = RetryBudget("b", 0.2, 0.0, 1.0)
    assert (least.floor, least.capacity) == (0.0, 1.0)
    assert RetryBudget("b", 0.2, 0.5, 1.5).floor == 0.5
    with pytest.raises(ValueError, match="floor") as caught:
        RetryBudget("b", 0.2, floor, capacity)
    assert str(caught.value) == "retry budget b: floor must be at least 0 and capacity at least 1"


def test_reconfigured_budget_keeps_its_tokens() -> None:
    budget = RetryBudget("b", 1.0, 2.0, 5.0, Clock())
    assert deposited(budget, 4) == 4.0
    budget.configure(0.5, 0.0)
    assert (budget.ratio, budget.floor, budget.capacity) == (0.5, 0.0, 100.0)
    assert budget.tokens == 4.0
    assert deposited(budget, 2) == 5.0
    with pytest.raises(ValueError, match="retry budget b"):
        budget.configure(0.5, -1.0)
    assert budget.floor == 0.0


def test_reconfigured_budget_earns_nothing_for_the_past() -> None:
    clock = Clock()
    budget = RetryBudget("b", 0.5, 1.0, clock=clock)
    clock.now = 10.0
    budget.configure(0.5, 50.0)
    assert budget.tokens == 11.0
    clock.now = 11.0
    assert budget.tokens == 61.0
    budget.configure(0.5, 0.0, 7.0)
    assert budget.tokens == 7.0
    budget.configure(0.5, 0.0, 9.0)
    assert budget.tokens == 7.0


def test_floor_that_was_given_is_not_earned_again_after_reload() -> None:
    clock = Clock()
    budget = RetryBudget("b", 0.5, 1.0, clock=clock)
    budget.configure(0.5, 0.0)
    assert [deposited(budget, 1) for _ in range(4)] == [1.0, 1.0, 1.5, 2.0]
    clock.now = 1.0
    assert [deposited(budget, 1) for _ in range(2)] == [2.5, 3.0]
    budget.configure(0.5, 3.0)
    assert deposited(budget, 1) == 3.5, "the floor of this second was 0"
    clock.now = 2.0
    assert deposited(budget, 6) == 6.5
    assert deposited(budget, 1) == 7.0
