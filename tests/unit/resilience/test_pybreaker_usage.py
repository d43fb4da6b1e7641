"""The usage that pybreaker documents, the same code for pybreaker's breaker and for ours."""

import asyncio
from collections.abc import Callable
from typing import Any

import pybreaker
import pytest

from aurum.resilience import BreakerConfig, ResilientCircuitBreaker
from aurum.resilience.circuit_breaker import CircuitOpenError
from tests.support.resilience import Clock, listening

Make = Callable[..., Any]


def theirs(**options: Any) -> Any:
    return pybreaker.CircuitBreaker(throw_new_error_on_trip=False, **options)


def ours(*, name: str = "db", reset_timeout: float = 60.0, success_threshold: int = 1, **options: Any) -> Any:
    return ResilientCircuitBreaker(name, timeout_duration=reset_timeout, probes=success_threshold, **options)


both = pytest.mark.parametrize("make", [theirs, ours])


class CustomerValidationError(Exception): ...


class StrictError(CustomerValidationError): ...


class HTTPError(Exception):
    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


def work(value: int) -> int:
    return value + 1


def fail(error: BaseException) -> None:
    raise error


def try_to_fail(breaker: Any, *errors: BaseException) -> None:
    for error in errors:
        with pytest.raises(type(error)):
            breaker.call(fail, error)


class Told(pybreaker.CircuitBreakerListener):
    """Writes down all that it is told."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, ...]] = []

    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        self.all.append(("before_call", cb.name, func.__name__, args, kwargs))

    def failure(self, cb: Any, exc: BaseException) -> None:
        self.all.append(("failure", cb.name, type(exc).__name__, cb.current_state))

    def success(self, cb: Any) -> None:
        self.all.append(("success", cb.name))

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self.all.append(("state_change", cb.name, old_state.name, new_state.name))


@both
def test_decorated_function_goes_through_the_breaker(make: Make) -> None:
    breaker = make(fail_max=2, reset_timeout=60)

    @breaker
    def update_customer(cust: int, *, by: int = 1) -> int:
        """Updates."""
        if cust < 0:
            raise OSError(cust)
        return cust + by

    @breaker()
    def delete_customer(cust: int) -> int:
        return -cust

    assert (update_customer.__name__, update_customer.__doc__) == ("update_customer", "Updates.")
    assert (update_customer(1, by=5), delete_customer(3)) == (6, -3)
    for _ in range(2):
        with pytest.raises(OSError, match="-1"):
            update_customer(-1)
    for call in (update_customer, delete_customer):
        with pytest.raises(pybreaker.CircuitBreakerError):
            call(1)


async def test_decorated_coroutine_function_goes_through_the_breaker() -> None:
    breaker = ours(fail_max=1)
    told = Told()

    @breaker
    async def fetch(value: int) -> int:
        await asyncio.sleep(0)
        if value < 0:
            raise OSError(value)
        return value

    assert asyncio.iscoroutinefunction(fetch)
    assert await fetch(3) == 3
    breaker.add_listener(told)
    with pytest.raises(OSError, match="-1"):
        await fetch(-1)
    with pytest.raises(CircuitOpenError):
        await fetch(3)
    assert told.all == [
        ("before_call", "db", "fetch", (-1,), {}),
        ("failure", "db", "OSError", "open"),
        ("state_change", "db", "closed", "open"),
    ]


@both
def test_call_passes_arguments_and_result(make: Make) -> None:
    breaker = make()
    assert breaker.call(work, 4) == 5
    assert breaker.call(work, value=4) == 5


@both
def test_block_goes_through_the_breaker(make: Make) -> None:
    told = Told()
    breaker = make(fail_max=1, listeners=[told])
    with breaker.calling():
        done = 1
    assert done
    with pytest.raises(OSError, match="x"), breaker.calling():
        raise OSError("x")
    assert breaker.current_state == "open"
    with pytest.raises(pybreaker.CircuitBreakerError), breaker.calling():
        pytest.fail("the block must not run")
    assert [kind for kind, *_ in told.all if kind != "state_change"] == [
        "before_call",
        "success",
        "before_call",
        "failure",
    ]


@both
def test_listeners_are_told_of_calls_and_states(make: Make) -> None:
    first, second = Told(), Told()
    breaker = make(fail_max=2, reset_timeout=0, name="db", listeners=[first])
    breaker.add_listeners(second)
    assert breaker.listeners == (first, second)
    breaker.call(work, value=1)
    try_to_fail(breaker, OSError(), OSError())
    breaker.call(work, 1)  # the time is over, so this is the trial call
    changes = [each for each in first.all if each[0] == "state_change"]
    assert changes == [
        ("state_change", "db", "closed", "open"),
        ("state_change", "db", "open", "half-open"),
        ("state_change", "db", "half-open", "closed"),
    ]
    calls = [each for each in first.all if each[0] in {"before_call", "success"}]
    assert calls[:2] == [("before_call", "db", "work", (), {"value": 1}), ("success", "db")]
    assert calls[-2:] == [("before_call", "db", "work", (1,), {}), ("success", "db")]
    assert [each[:3] for each in first.all if each[0] == "failure"] == [("failure", "db", "OSError")] * 2
    assert first.all == second.all
    breaker.remove_listener(second)
    breaker.add_listener(third := Told())
    breaker.call(work, 1)
    assert breaker.listeners == (first, third)
    assert (len(second.all), len(third.all)) == (len(first.all) - 2, 2)
    with pytest.raises(ValueError, match="not in"):
        breaker.remove_listener(second)


@both
def test_excluded_exceptions_are_no_failures(make: Make) -> None:
    told = Told()
    breaker = make(
        fail_max=3,
        listeners=[told],
        exclude=[CustomerValidationError, lambda error: type(error) is HTTPError and error.status_code < 500],
    )
    assert len(breaker.excluded_exceptions) == 2
    try_to_fail(breaker, CustomerValidationError(), StrictError(), HTTPError(404))
    assert (breaker.fail_counter, breaker.current_state) == (0, "closed")
    assert [kind for kind, *_ in told.all] == ["before_call", "success"] * 3
    try_to_fail(breaker, HTTPError(503), HTTPError(500))
    assert breaker.fail_counter == 2
    try_to_fail(breaker, CustomerValidationError())
    assert breaker.fail_counter == 0, "an excluded exception is a success"
    breaker.remove_excluded_exception(CustomerValidationError)
    breaker.add_excluded_exception(KeyError)
    breaker.add_excluded_exceptions(IndexError, OSError)
    assert breaker.excluded_exceptions[1:] == (KeyError, IndexError, OSError)
    try_to_fail(breaker, KeyError(), IndexError(), FileNotFoundError(), StrictError())
    assert breaker.fail_counter == 1
    assert [breaker.is_system_error(error) for error in (OSError(), ValueError())] == [False, True]
    with pytest.raises(ValueError, match="not in"):
        breaker.remove_excluded_exception(CustomerValidationError)


@both
def test_breaker_can_be_monitored_and_managed(make: Make) -> None:
    breaker = make(fail_max=5, reset_timeout=60, success_threshold=2, name="db")
    assert (breaker.name, breaker.fail_max, breaker.reset_timeout, breaker.success_threshold) == ("db", 5, 60, 2)
    assert (breaker.current_state, breaker.state.name) == ("closed", "closed")
    breaker.name = "orders"
    breaker.fail_max, breaker.reset_timeout, breaker.success_threshold = 2, 90, 3
    assert (breaker.name, breaker.fail_max, breaker.reset_timeout, breaker.success_threshold) == ("orders", 2, 90, 3)
    try_to_fail(breaker, OSError())
    assert (breaker.fail_counter, breaker.success_counter) == (1, 0)
    breaker.open()
    assert (breaker.current_state, breaker.state.name) == ("open", "open")
    with pytest.raises(pybreaker.CircuitBreakerError):
        breaker.call(work, 1)
    breaker.half_open()
    assert (breaker.current_state, breaker.state.name) == ("half-open", "half-open")
    breaker.call(work, 1)
    breaker.call(work, 1)
    assert (breaker.current_state, breaker.success_counter) == ("half-open", 2)
    breaker.call(work, 1)
    assert (breaker.current_state, breaker.fail_counter) == ("closed", 0)
    breaker.half_open()
    try_to_fail(breaker, OSError())
    assert breaker.current_state == "open"
    breaker.close()
    assert (breaker.current_state, breaker.fail_counter) == ("closed", 0)
    try_to_fail(breaker, OSError())
    breaker.close()
    try_to_fail(breaker, OSError())
    assert breaker.current_state == "closed", "to close it is to forget its failures"


@both
def test_states_set_by_hand_are_told(make: Make) -> None:
    told = Told()
    breaker = make(name="db", listeners=[told])
    breaker.open()
    breaker.half_open()
    breaker.close()
    breaker.state = "open"
    assert told.all == [
        ("state_change", "db", "closed", "open"),
        ("state_change", "db", "open", "half-open"),
        ("state_change", "db", "half-open", "closed"),
        ("state_change", "db", "closed", "open"),
    ]
    with pytest.raises(ValueError, match="broken"):
        breaker.state = "broken"


def test_breaker_opened_by_hand_lets_a_probe_through_later() -> None:
    clock = Clock()
    breaker = ours(reset_timeout=30.0, clock=clock)
    with listening() as told:
        breaker.open()
    assert told == [("breaker_state", "db", "open")]
    clock.now = 29.0
    with pytest.raises(CircuitOpenError) as caught:
        breaker.call(work, 1)
    assert caught.value.retry_after == 1.0
    clock.now = 30.0
    assert breaker.call(work, 1) == 2
    assert breaker.current_state == "closed"


def test_closing_by_hand_ends_the_growth_of_open_time() -> None:
    clock = Clock()
    config = BreakerConfig(fail_max=1, open_seconds=10.0, open_growth=2.0)
    breaker = ResilientCircuitBreaker("b", config=config, clock=clock)
    try_to_fail(breaker, OSError())
    clock.now = 10.0
    try_to_fail(breaker, OSError())
    clock.now = 29.0
    with pytest.raises(CircuitOpenError):
        breaker.call(work, 1)
    breaker.close()
    breaker.open()
    clock.now = 39.0
    assert breaker.call(work, 1) == 2


def test_forced_breaker_ignores_states_set_by_hand() -> None:
    breaker = ResilientCircuitBreaker("b", config=BreakerConfig(forced="closed"))
    with listening() as told:
        breaker.open()
    assert (breaker.current_state, breaker.call(work, 1), told) == ("closed", 2, [])


def test_exclusions_come_before_is_failure() -> None:
    breaker = ResilientCircuitBreaker("b", is_failure=lambda error: isinstance(error, OSError), exclude=[TimeoutError])
    try_to_fail(breaker, TimeoutError(), ValueError())
    assert breaker.fail_counter == 0
    try_to_fail(breaker, ConnectionError())
    assert breaker.fail_counter == 1


def test_renamed_breaker_refuses_under_its_new_name() -> None:
    breaker = ours()
    breaker.open()
    breaker.name = "orders"
    with pytest.raises(CircuitOpenError, match="circuit breaker orders is open"):
        breaker.call(work, 1)
