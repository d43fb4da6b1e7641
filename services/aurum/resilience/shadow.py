"""Shadow policies: they decide without enforcing, and their decisions are counted.

A call that a shadow would have refused is made all the same. Its outcome is not passed to the shadow's breaker, which
would not have seen it. Retries and queues are not simulated here; `simulation` does that with recorded calls.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from aurum.resilience import events
from aurum.resilience.circuit_breaker import STATE_OPEN, CircuitBreakerError, ResilientCircuitBreaker
from aurum.resilience.criticality import current_criticality
from aurum.resilience.limit import ConcurrencyLimit
from aurum.resilience.policy import Policy, PolicyDocument
from aurum.resilience.status import OVERLOAD_OF_TARGET

Decision = Literal["opening", "breaker_rejection", "limit_rejection", "timeout"]


class _Outcome(Exception):  # noqa: N818 - it stands for any end of a call
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Shadow:
    """One policy beside the one in force.

    Attributes:
        calls: Number of attempts that it has evaluated.
        decisions: How often it would have refused or ended an attempt, or opened the breaker.
    """

    def __init__(self, policy: Policy, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = policy.target
        self.calls = 0
        self.decisions: Counter[Decision] = Counter()
        self._clock = clock
        self._breaker = ResilientCircuitBreaker(
            self.name,
            is_failure=lambda outcome: isinstance(outcome, _Outcome) and outcome.code in self._failure_codes,
            clock=clock,
            config=policy.circuit_breaker.config(),
            emit=self._on_event,
        )
        self._limit = ConcurrencyLimit(self.name, policy.limit(), clock, emit=self._on_event)
        self._set_policy(policy)

    def configure(self, policy: Policy) -> None:
        """Changes the policy. Windows and counts are kept."""
        self._breaker.configure(policy.circuit_breaker.config())
        self._limit.configure(policy.limit())
        self._set_policy(policy)

    def begin(self) -> "ShadowedAttempt":
        """Evaluates an attempt that begins. The caller must call `end` of the result when the attempt ends."""
        self.calls += 1
        placed = self._limit.try_acquire(current_criticality())
        permit: int | None = None
        if not placed:
            self._count("limit_rejection")
        elif self.policy.circuit_breaker.enabled:
            try:
                permit = self._breaker.acquire()
            except CircuitBreakerError:
                self._count("breaker_rejection")
        return ShadowedAttempt(self, placed, permit, self._clock())

    def _set_policy(self, policy: Policy) -> None:
        self.policy = policy
        self._failure_codes = frozenset(policy.circuit_breaker.failure_codes)

    def _end(self, watched: "ShadowedAttempt", code: str | None) -> None:
        """Records the end of an attempt.

        Args:
            watched: The attempt.
            code: Its status code, or None if it was abandoned, which says nothing about the target.
        """
        seconds = self._clock() - watched.began
        if code == "OK" and seconds > self.policy.timeout.attempt:
            self._count("timeout")
            code = "DEADLINE_EXCEEDED"
        if watched.permit is not None:
            if code is None:
                self._breaker.failed(watched.permit, GeneratorExit(), seconds)  # counted as a cancelled call
            elif code == "OK":
                self._breaker.succeeded(watched.permit, seconds)
            else:
                self._breaker.failed(watched.permit, _Outcome(code), seconds)
        if watched.placed:
            self._limit.release(None if code is None else seconds, code in OVERLOAD_OF_TARGET)

    def _count(self, decision: Decision) -> None:
        self.decisions[decision] += 1
        events.emit("shadow_decision", self.name, decision)

    def _on_event(self, kind: events.EventKind, policy: str, value: str = "") -> None:
        if kind == "breaker_state" and value == STATE_OPEN:
            self._count("opening")


class ShadowedAttempt:
    """An attempt that a shadow evaluates."""

    __slots__ = ("_shadow", "began", "permit", "placed")

    def __init__(self, shadow: Shadow, placed: bool, permit: int | None, began: float) -> None:
        self._shadow = shadow
        self.placed = placed
        self.permit = permit
        self.began = began

    def end(self, code: str | None) -> None:
        """Records that the attempt has ended with this code. None: it was abandoned."""
        self._shadow._end(self, code)


class Shadows:
    """The shadows of a policy document, by the calls that they evaluate."""

    def __init__(self, document: PolicyDocument, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_force = _InForce(PolicyDocument(), {}, {})
        self.apply(document)

    def __bool__(self) -> bool:
        return bool(self._in_force.by_target)

    def __iter__(self) -> Iterator[Shadow]:
        return iter(list(self._in_force.by_target.values()))

    def shadow_for(self, call: str) -> Shadow | None:
        """Returns the shadow of the call client/server/Method, or None."""
        document, by_target, by_call = self._in_force
        if call not in by_call:
            policy = document.shadow_of(call)
            by_call[call] = by_target[policy.target] if policy else None
        return by_call[call]

    def apply(self, document: PolicyDocument) -> None:
        """Replaces the shadows by those of another document. A shadow keeps its state if its target stays."""
        kept = self._in_force.by_target
        by_target: dict[str, Shadow] = {}
        for policy in document.shadows:
            shadow = kept.get(policy.target)
            if shadow is None:
                shadow = Shadow(policy, self._clock)
            elif shadow.policy != policy:
                shadow.configure(policy)
            by_target[policy.target] = shadow
        self._in_force = _InForce(document, by_target, {})


class _InForce(NamedTuple):
    """The data of one document. It is replaced as a whole, because other threads read it meanwhile."""

    document: PolicyDocument
    by_target: dict[str, Shadow]
    by_call: dict[str, Shadow | None]
