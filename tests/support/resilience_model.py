"""A pipeline driven at random in virtual time: calls begin, are answered, fail, hang and are cancelled, time passes,
the clock jumps, policies are reloaded, and every listener raises. A reference says what must have happened.

To add a field that is reloaded, name it in FIELDS with its values; to add something that happens, write a rule.
"""

import asyncio
import itertools
from dataclasses import astuple, dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aurum.resilience import (
    CircuitBreakerError,
    Criticality,
    DeadlineExceededError,
    ErrorClassifier,
    LimitExceededError,
    Pipeline,
    Policy,
    criticality_scope,
    events,
    remaining,
)
from aurum.resilience.errors import code_of
from aurum.resilience.virtual_time import VirtualLoop
from tests.support.resilience_reference import BreakerReference, BudgetReference

DEADLINE, ATTEMPT = 5.0, 2.0
FIELDS: dict[str, list[Any]] = {
    "retry.maxAttempts": [1, 2, 3],
    "retry.budgetFloor": [0, 1, 3],
    "retry.budgetRatio": [0.25, 1.0],
    "retry.maxDelay": ["0s", "1s"],
    "hedge": [{"delay": "300ms"}, None, {"delay": "700ms", "maxAttempts": 3}],
    "timeout.connect": ["100ms", "500ms"],
    "bulkhead.maxConcurrent": [4, 2, 1],
    "bulkhead.maxQueued": [0, 1, 3],
    "circuitBreaker.mode": ["consecutive", "count", "time"],
    "circuitBreaker.failMax": [2, 3, 1],
    "circuitBreaker.windowCalls": [4, 6, 8],
    # Tenths of them are powers of two, so that rounding moves no call to another bucket
    "circuitBreaker.window": ["2500ms", "1250ms", "5s"],
    "circuitBreaker.minimumCalls": [3, 2, 4],
    "circuitBreaker.failureRate": [0.5, 1.0],
    "circuitBreaker.slowCall": [None, "1s", "1500ms"],
    "circuitBreaker.slowCallRate": [0.5, 1.0],
    "circuitBreaker.open": ["500ms", "300ms", "1s"],
    "circuitBreaker.openGrowth": [1.0, 2.0],
    "circuitBreaker.halfOpenProbes": [1, 2, 3],
    "circuitBreaker.force": [None, "closed", None, "open"],
    "fallback.rule": [True, False],
}
OF_WINDOW = [f"circuitBreaker.{name}" for name in ("mode", "window", "windowCalls", "slowCall")]  # reloaded more often
FIXED = {
    "target": "a/b/C",
    "retry.baseDelay": "0s",
    "timeout.attempt": f"{ATTEMPT}s",
    "timeout.deadline": f"{DEADLINE}s",
    "bulkhead.maxWait": "400ms",
    "circuitBreaker.maxOpen": "2s",
    "circuitBreaker.openJitter": 0,
}
ENDS = ["answers", "answers", "fails", "errs", "is cancelled"]  # of an attempt that is in progress
THEN = st.sampled_from([0.35, 0.0, 0.1, 1.0])  # seconds that pass afterwards
CLEAN_UP = 0.6  # seconds that the slowest attempt takes to end when it is cancelled


class NotThereError(Exception):
    """An answer that is an error and no failure of the target."""


ERRORS = ErrorClassifier(code=lambda error: "NOT_FOUND" if isinstance(error, NotThereError) else code_of(error))


def policy_of(values: dict[str, Any]) -> Policy:
    parts: dict[str, Any] = {}
    for path, value in {**FIXED, **values}.items():
        part, _, name = path.rpartition(".")
        (parts.setdefault(part, {}) if part else parts)[name] = value
    return Policy.model_validate(parts)


@dataclass
class Attempt:
    """gate: how it is to end. clean_up: seconds that it takes when it is cancelled."""

    number: int
    gate: asyncio.Future[str]
    clean_up: float


@dataclass
class Call:
    task: asyncio.Task[int]
    began: float
    attempts: set[int] = field(default_factory=set)


class ResilienceMachine(RuleBasedStateMachine):
    """One pipeline, compared with its reference after each step."""

    @initialize(
        values=st.fixed_dictionaries({path: st.sampled_from(values) for path, values in FIELDS.items()}),
    )
    def begin(self, values: dict[str, Any]) -> None:
        self.loop = VirtualLoop()  # type: ignore[abstract]
        self.ahead = 0.0  # seconds by which the clock of the pipeline has jumped
        self.values = {**values, "circuitBreaker.force": None}
        policy = policy_of(self.values)
        self.stop = events.subscribe(self.on_event)
        self.pipeline = Pipeline("m", policy, errors=ERRORS, clock=self.clock)
        self.pipeline.record = self.on_record
        self.breaker = BreakerReference(policy.circuit_breaker)
        self.budget = BudgetReference(policy.retry)
        self.numbers = itertools.count(1)
        self.running: dict[int, Attempt] = {}
        self.calls: list[Call] = []
        self.ending: tuple[int, str, float] | None = None  # an attempt that has just ended, and how it seems
        self.told = self.breaker.state
        self.clean_up = 0.0
        self.at_once = ""  # how attempts end as soon as they begin; empty if they wait for it
        self.wrong: list[str] = []

    def clock(self) -> float:
        return self.loop.now + self.ahead

    # What the pipeline does

    async def attempt(self, call: list[Call], timeout: float) -> int:
        self.settle()
        number, now = next(self.numbers), self.clock()
        self.check(0.0 < timeout <= ATTEMPT, "an attempt has its time")
        self.check((remaining(self.clock) or 0.0) <= timeout + 1e-6, "what it calls has no more")
        self.check(self.breaker.admits(now), "an attempt was made that had to be refused")
        self.breaker.begin(number, now)
        me = self.running[number] = Attempt(number, self.loop.create_future(), self.clean_up)
        call[0].attempts.add(number)
        outcome = "cancelled"
        try:
            if self.at_once:
                me.gate.set_result(self.at_once)
            end = await self.ended(me)
            outcome = {"fails": "failed", "is cancelled": "cancelled"}.get(end, "succeeded")
            if end == "answers":
                return number
            raise {"fails": ConnectionError, "is cancelled": asyncio.CancelledError}.get(end, NotThereError)
        finally:
            self.settle()
            del self.running[number]
            self.ending = (number, outcome, self.clock())

    async def ended(self, me: Attempt) -> str:
        try:
            return await me.gate
        except asyncio.CancelledError:
            await asyncio.sleep(me.clean_up)
            if me.number % 3 == 0:
                raise ConnectionError("its clean-up failed") from None
            raise

    def settle(self) -> None:
        """Lets the attempt that has ended count. The breaker has been told at the same moment; only for one that was
        cancelled it decides whether that was its time-out, and says so first."""
        if self.ending is not None:
            (number, outcome, now), self.ending = self.ending, None
            self.breaker.end(number, outcome, now)

    def on_event(self, event: events.Event) -> None:
        if event.policy == "m":
            self.take(event.kind, event.value)
        raise RuntimeError("a listener that always fails")

    def take(self, kind: str, value: str) -> None:
        match kind:
            case "breaker_failure" if self.ending is not None:
                self.ending = (self.ending[0], "failed", self.ending[2])
                self.settle()
            case "breaker_rejection":
                self.settle()
                self.check(not self.breaker.admits(self.clock()), "an attempt was refused that had to be admitted")
            case "breaker_state":
                self.told = value
            case "retry" | "hedge":
                self.budget.granted += 1
            case "budget_exhausted":
                self.check(self.pipeline.budget.tokens < 1.0, "the budget was not spent")

    def check(self, holds: bool, claim: str) -> None:
        """For what is found out within the pipeline, which might hide an AssertionError."""
        if not holds:
            self.wrong.append(claim)

    def on_record(self, *outcome: object) -> None:
        raise RuntimeError("a record that always fails")

    def drain(self, seconds: float = 0.0) -> None:
        self.loop.advance(self.loop.now + seconds)
        self.settle()
        for call in [each for each in self.calls if each.task.done()]:
            self.calls.remove(call)
            self.check_end(call)

    def check_end(self, call: Call) -> None:
        expected = (CircuitBreakerError, LimitExceededError, DeadlineExceededError, ConnectionError, NotThereError)
        assert self.loop.now - call.began <= DEADLINE + CLEAN_UP + 5.0 + 1e-6
        left = [self.running[number] for number in call.attempts & self.running.keys()]
        assert all(each.gate.done() for each in left), "an attempt that nobody waits for was not cancelled"
        if not call.task.cancelled():
            error = call.task.exception()
            assert error is None or isinstance(error, expected)
            assert error is not None or call.task.result() in call.attempts

    # What happens

    @rule(
        criticality=st.sampled_from(list(Criticality)),
        idempotent=st.sampled_from([True, True, False]),
        clean_up=st.sampled_from([0.0, 0.0, CLEAN_UP]),
        count=st.integers(1, 4),
        then=THEN,
    )
    def begin_calls(
        self, *, criticality: Criticality, idempotent: bool, clean_up: float, count: int, then: float
    ) -> None:
        self.clean_up = clean_up
        for _ in range(count):
            self.make_call(idempotent, criticality)
        self.drain()
        self.drain(then)

    def make_call(self, idempotent: bool = True, criticality: Criticality = Criticality.QUERY) -> Call:
        self.budget.call(self.clock())
        mine: list[Call] = []
        with criticality_scope(criticality):
            task = self.loop.create_task(
                self.pipeline.call_async(lambda timeout: self.attempt(mine, timeout), idempotent=idempotent)
            )
        mine.append(Call(task, self.loop.now))
        self.calls.append(mine[0])
        return mine[0]

    def waiting(self) -> list[Attempt]:
        return [each for each in self.running.values() if not each.gate.done()]

    @precondition(lambda self: self.waiting())
    @rule(which=st.integers(0, 9), how=st.lists(st.sampled_from(ENDS), min_size=1, max_size=3), then=THEN)
    def end_attempts(self, which: int, how: list[str], then: float) -> None:
        waiting = self.waiting()
        for attempt, end in zip(waiting[which % len(waiting) :], how, strict=False):
            attempt.gate.set_result(end)
        self.drain()
        self.drain(then)

    @rule(how=st.lists(st.sampled_from(["fails", "answers", "answers"]), min_size=1, max_size=3), then=THEN)
    def make_quick_calls(self, how: list[str], then: float) -> None:
        for self.at_once in how:
            self.make_call()
            self.drain()
        self.at_once = ""
        self.drain(then)

    @rule(criticality=st.sampled_from(list(Criticality)))
    def open_stream(self, criticality: Criticality) -> None:
        queued, number = self.pipeline.limit.queued, next(self.numbers)
        try:
            with criticality_scope(criticality), self.pipeline.attempt():
                self.check(self.breaker.admits(self.clock()), "a stream was made that had to be refused")
                self.breaker.begin(number, self.clock())
                self.breaker.end(number, "succeeded", self.clock())
        except CircuitBreakerError:
            pass
        except LimitExceededError:
            self.check(self.pipeline.limit.queued == queued, "a call that cannot wait displaced one that can")
        self.drain()

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 9), end_too=st.booleans(), hops=st.integers(0, 6))
    def cancel_call(self, which: int, end_too: bool, hops: int) -> None:
        """end_too: an attempt ends in the same moment, so many steps of the loop before."""
        call = self.calls[which % len(self.calls)]

        def hop(left: int) -> None:
            if left:
                self.loop.call_soon(hop, left - 1)
            else:
                call.task.cancel()

        if end_too and self.waiting():
            self.waiting()[0].gate.set_result("answers")
        hop(hops)
        self.drain()

    @rule(seconds=st.sampled_from([0.1, 0.3, 0.4, 0.5, 1.0, 2.0]))
    def pass_time(self, seconds: float) -> None:
        self.drain(seconds)

    @rule(seconds=st.sampled_from([0.5, 3.0, 30.0]))
    def step_clock(self, seconds: float) -> None:
        self.ahead += seconds

    @rule(path=st.sampled_from(sorted(FIELDS)) | st.sampled_from(OF_WINDOW), which=st.integers(0, 3))
    def reload(self, path: str, which: int) -> None:
        tokens = self.pipeline.budget.tokens
        in_flight = self.pipeline.limit.in_flight
        self.configure({path: FIELDS[path][which % len(FIELDS[path])]})
        assert self.pipeline.budget.tokens == tokens
        assert self.pipeline.limit.in_flight == in_flight or self.pipeline.limit.queued or path.startswith("bulkhead")
        self.drain()

    def configure(self, values: dict[str, Any]) -> None:
        self.values.update(values)
        policy = policy_of(self.values)
        self.breaker.configure(policy.circuit_breaker, self.clock())
        self.budget.configure(policy.retry, self.clock())
        self.pipeline.configure(policy)

    # What always holds

    @invariant()
    def agrees_with_reference(self) -> None:
        if not hasattr(self, "pipeline"):
            return
        breaker, limit, budget = self.pipeline.breaker, self.pipeline.limit, self.pipeline.budget
        assert breaker is not None
        assert not self.wrong, self.wrong
        assert breaker.current_state == self.breaker.state == self.told
        assert astuple(breaker.counts) == self.breaker.counts(self.clock()), "the window has other calls"
        assert limit.in_flight == len(self.running), "a place for each attempt in progress, and no other"
        assert not limit.queued or limit.in_flight >= limit.limit, "nobody waits beside a free place"
        assert self.budget.granted <= self.budget.most(self.clock()) + 1e-6
        assert 0.0 <= budget.tokens <= budget.capacity

    def teardown(self) -> None:
        if not hasattr(self, "pipeline"):
            return
        try:
            self.come_to_rest()
            self.recover()
        finally:
            self.stop()

    def come_to_rest(self) -> None:
        """Whatever has happened, nothing stays behind."""
        for _ in range(20):
            for each in self.waiting():
                each.gate.set_result("errs")
            self.drain(2.0)
        assert not self.calls
        assert not self.running
        assert (self.pipeline.limit.in_flight, self.pipeline.limit.queued) == (0, 0)
        self.agrees_with_reference()

    def recover(self) -> None:
        """A target that answers is not starved: once a probe may be made, calls one after the other close the breaker,
        and each is answered."""
        self.configure({"circuitBreaker.force": None})
        self.drain(5.0)
        self.at_once = "answers"
        for _ in range(3):
            call = self.make_call()
            self.drain()
            assert call.task.result() in call.attempts
        assert self.breaker.state == "closed"
        self.agrees_with_reference()
