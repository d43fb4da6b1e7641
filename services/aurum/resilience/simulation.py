"""Simulates a policy by replaying recorded calls through the production pipelines in virtual time.

Each recorded first attempt is a call, and its own outcome answers the first attempt. Retries and hedges are answered by
the outcome recorded for the same target at their virtual time, which is the best available knowledge of the target. An
attempt that was recorded as timed out is assumed to hang. The same input gives the same result.
"""

import asyncio
import bisect
import gc
import random
from collections.abc import Awaitable, Callable, Generator, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from aurum.resilience import events
from aurum.resilience.circuit_breaker import CircuitBreakerError
from aurum.resilience.errors import ErrorClassifier, code_of
from aurum.resilience.limit import LimitExceededError
from aurum.resilience.outcomes import REJECTED, Outcome
from aurum.resilience.pipeline import Pipeline
from aurum.resilience.pipeline_registry import PipelineRegistry
from aurum.resilience.policy import Policy, PolicyDocument
from aurum.resilience.virtual_time import VirtualLoop

_TIMED_OUT = "DEADLINE_EXCEEDED"


class _FailedError(Exception):
    """Raised by an attempt that failed with a recorded code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _code(error: BaseException) -> str:
    return error.code if isinstance(error, _FailedError) else code_of(error)


@dataclass(slots=True)
class TargetResult:
    """Result of the calls to one target. Durations are in seconds, and recorded ones cover the first attempts only."""

    calls: int = 0
    recorded_ok: int = 0
    ok: int = 0
    attempts: int = 0
    retries: int = 0
    hedges: int = 0
    openings: int = 0
    breaker_rejections: int = 0
    limit_rejections: int = 0
    budget_rejections: int = 0
    recorded_durations: list[float] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)

    @property
    def amplification(self) -> float:
        """Attempts that reached the target, per call."""
        return self.attempts / self.calls if self.calls else 0.0

    def summary(self) -> dict[str, float]:
        """Returns all figures as numbers. Latencies are in ms and shares from 0 to 1."""
        calls = max(1, self.calls)
        added = sum(self.durations) - sum(self.recorded_durations)
        return {
            "calls": self.calls,
            "recorded_success_share": round(self.recorded_ok / calls, 4),
            "success_share": round(self.ok / calls, 4),
            "attempts": self.attempts,
            "amplification": round(self.amplification, 4),
            "retries": self.retries,
            "hedges": self.hedges,
            "openings": self.openings,
            "breaker_rejections": self.breaker_rejections,
            "limit_rejections": self.limit_rejections,
            "retries_without_budget": self.budget_rejections,
            "added_latency_ms": round(1000 * added / calls, 3) + 0.0,  # never -0.0
            "recorded_p95_ms": round(1000 * _p95(self.recorded_durations), 3),
            "p95_ms": round(1000 * _p95(self.durations), 3),
        }


def _p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))] if values else 0.0


class _Target:
    """The recorded outcomes of one client/server/Method in order of time, and the results of its replayed calls."""

    __slots__ = ("hedged", "outcomes", "pipeline", "result", "times")

    def __init__(self, pipeline: Pipeline, result: TargetResult, outcomes: list[Outcome]) -> None:
        self.pipeline = pipeline
        self.hedged = pipeline.policy.hedge is not None
        self.result = result
        self.outcomes = [outcome for outcome in outcomes if outcome.code not in REJECTED]
        self.times = [outcome.time for outcome in self.outcomes]
        calls = [outcome for outcome in outcomes if outcome.attempt == 1]
        result.calls += len(calls)
        result.recorded_ok += sum(call.code == "OK" for call in calls)
        result.recorded_durations += [call.duration for call in calls]

    def at(self, now: float) -> Outcome | None:
        """The next outcome that was recorded at or after `now`, or the last one. None if there are none."""
        if not self.outcomes:
            return None
        return self.outcomes[min(bisect.bisect_left(self.times, now), len(self.outcomes) - 1)]


def simulate(document: PolicyDocument, default: Policy, outcomes: Iterable[Outcome]) -> dict[str, TargetResult]:
    """Replays the calls. Returns the results by the name of the pipeline that governed them, such as api/prediction."""
    state = random.getstate()
    random.seed(0)  # for the random waits of retries and the jitter of the breaker
    collecting = gc.isenabled()
    gc.disable()  # a replay creates no cycles, and looking for them would take a third of its time
    try:
        replay = _Replay(document, default, sorted(outcomes, key=itemgetter(0)))
        stop_listening = events.subscribe(replay.on_event)
        try:
            replay.run()
        finally:
            stop_listening()
    finally:
        if collecting:
            gc.enable()
        random.setstate(state)
    return replay.results


class _Replay:
    def __init__(self, document: PolicyDocument, default: Policy, trace: list[Outcome]) -> None:
        self.results: dict[str, TargetResult] = {}
        self._trace = trace
        self._loop = VirtualLoop(trace[0].time if trace else 0.0)  # type: ignore[abstract]  # it needs no I/O
        self._targets: dict[str, _Target] = {}
        pipelines = PipelineRegistry(document, default, clock=self._loop.time)
        errors = ErrorClassifier(code=_code)
        by_target: dict[str, list[Outcome]] = {}
        for outcome in trace:
            by_target.setdefault(outcome.target, []).append(outcome)
        for name, outcomes in by_target.items():
            client, server, method = name.split("/")
            pipeline = pipelines.pipeline_for(client, server, method, errors)
            result = self.results.setdefault(pipeline.name, TargetResult())
            self._targets[name] = _Target(pipeline, result, outcomes)

    def run(self) -> None:
        loop, targets = self._loop, self._targets
        self._loop.advance(
            arrivals=(
                (outcome.time, _Call(loop, targets[outcome.target], outcome))
                for outcome in self._trace
                if outcome.attempt == 1
            )
        )

    def on_event(self, event: events.Event) -> None:
        result = self.results.get(event.policy)
        if result is None:
            return
        match event.kind:
            case "breaker_state":
                result.openings += event.value == "open"
            case "breaker_rejection":
                result.breaker_rejections += 1
            case "limit_rejection":
                result.limit_rejections += 1
            case "retry":
                result.retries += 1
            case "hedge":
                result.hedges += 1
            case "budget_exhausted":
                result.budget_rejections += 1


class _Call:
    """One replayed call. It drives the pipeline's coroutine on the loop, at a fraction of the cost of a task."""

    __slots__ = ("_code", "_loop", "_own", "_seconds", "_send", "_started", "_target")

    def __init__(self, loop: VirtualLoop, target: _Target, recorded: Outcome) -> None:
        self._loop = loop
        self._target = target
        self._own: Outcome | None = recorded  # answers the first attempt only
        self._send: Callable[[None], Any] | None = None

    def run(self) -> None:
        loop, target, send = self._loop, self._target, self._send
        if send is None:
            self._started = loop.now
            send = self._send = target.pipeline.call_async(self._attempt, timed=False).send
        try:
            awaited = send(None)
        except StopIteration:
            target.result.ok += 1
            target.result.durations.append(loop.now - self._started)
        except (_FailedError, TimeoutError, CircuitBreakerError, LimitExceededError):
            # Counted through events and as the calls that are not in `ok`
            target.result.durations.append(loop.now - self._started)
        else:
            if awaited is self:
                loop.run_at(loop.now + self._seconds, self)
            elif awaited is None:  # a sleep of 0 s
                loop.run_at(loop.now, self)
            else:
                awaited._asyncio_future_blocking = False
                awaited.add_done_callback(self._resume)

    def __await__(self) -> Generator["_Call"]:
        """Waits for one attempt with the outcome that `_attempt` has chosen."""
        yield self
        if self._code != "OK":
            raise _FailedError(self._code)

    def _resume(self, done: object) -> None:
        self.run()

    def _attempt(self, timeout: float) -> Awaitable[None]:
        target, outcome = self._target, self._own
        self._own = None
        if outcome is None or outcome.code in REJECTED:
            outcome = target.at(self._loop.now)
        target.result.attempts += 1
        if outcome is None:  # only refusals were recorded for this target
            self._code, self._seconds = "OK", 0.0
        elif outcome.duration > timeout or outcome.code == _TIMED_OUT:
            self._code, self._seconds = _TIMED_OUT, timeout
        else:
            self._code, self._seconds = outcome.code, outcome.duration
        return _slept(self._code, self._seconds) if target.hedged else self


async def _slept(code: str, seconds: float) -> None:
    """Runs one of several concurrent attempts. They are tasks, which can wait for futures only."""
    await asyncio.sleep(seconds)
    if code != "OK":
        raise _FailedError(code)
