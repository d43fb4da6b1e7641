"""Rules on several fields at once, in the Common Expression Language (CEL), which the Kubernetes API server checks.

Each rule states what a validator of the same model checks in Python.
"""

from typing import NamedTuple

from aurum.operator.resources import ResiliencePolicySpec, RolloutSpec, TelemetryPolicySpec
from aurum.resilience.policy import (
    AdaptiveConcurrencySpec,
    AdmissionSpec,
    BulkheadSpec,
    CircuitBreakerSpec,
    PolicyPart,
    RetrySpec,
    SharesSpec,
    TimeoutSpec,
)


class CelRule(NamedTuple):
    """A rule for a part of a policy."""

    expression: str
    field: str
    """The field that is named in the message; empty for the whole part."""
    message: str


_QUEUE = CelRule(
    "self.maxQueued == 0 || duration(self.maxWait) > duration('0s')",
    "maxWait",
    "must be above 0s when maxQueued is above 0",
)


RULES: dict[type[PolicyPart], tuple[CelRule, ...]] = {
    RetrySpec: (
        CelRule("duration(self.baseDelay) <= duration(self.maxDelay)", "baseDelay", "must not be above maxDelay"),
    ),
    CircuitBreakerSpec: (
        CelRule("duration(self.open) <= duration(self.maxOpen)", "open", "must not be above maxOpen"),
        CelRule(
            "self.mode != 'count' || self.minimumCalls <= self.windowCalls",
            "minimumCalls",
            "must not be above windowCalls when mode is count",
        ),
    ),
    TimeoutSpec: (
        CelRule("duration(self.attempt) <= duration(self.deadline)", "attempt", "must not be above deadline"),
    ),
    BulkheadSpec: (_QUEUE,),
    AdaptiveConcurrencySpec: (
        CelRule("self.minLimit <= self.initialLimit", "minLimit", "must not be above initialLimit"),
        CelRule("self.initialLimit <= self.maxLimit", "initialLimit", "must not be above maxLimit"),
        CelRule("!has(self.slowCall) || self.algorithm == 'aimd'", "slowCall", "is for algorithm aimd"),
    ),
    SharesSpec: (
        CelRule("self.batch <= self.query", "batch", "must not be above query"),
        CelRule("self.query <= self.telemetry", "query", "must not be above telemetry"),
        CelRule("self.telemetry <= self.alarm", "telemetry", "must not be above alarm"),
    ),
    AdmissionSpec: (_QUEUE,),
    RolloutSpec: (
        CelRule(
            "self.steps.isSorted() && self.steps[self.steps.size() - 1] == 100", "steps", "must rise, and end with 100"
        ),
    ),
    ResiliencePolicySpec: (
        CelRule(
            "has(self.targetRefs) != has(self.selector)",
            "",
            "needs either targetRefs or selector",
        ),
        CelRule(
            "!has(self.admission) || !has(self.targetRefs) || self.targetRefs.all(t, !has(t.method) && !has(t.client))",
            "admission",
            "is for whole services: targetRefs may name neither method nor client",
        ),
        CelRule(
            "has(self.retry) || has(self.hedge) || has(self.circuitBreaker) || has(self.timeout) || "
            "has(self.bulkhead) || has(self.adaptiveConcurrency) || has(self.fallback) || has(self.admission)",
            "",
            "must have at least one part, such as retry or timeout",
        ),
        CelRule(
            "!has(self.adaptiveConcurrency) || !has(self.bulkhead) || "
            "self.adaptiveConcurrency.maxLimit <= self.bulkhead.maxConcurrent",
            "adaptiveConcurrency",
            "maxLimit must not be above bulkhead.maxConcurrent",
        ),
        CelRule(
            "!has(self.hedge) || !has(self.timeout) || duration(self.hedge.delay) < duration(self.timeout.attempt)",
            "hedge",
            "delay must be below timeout.attempt",
        ),
        CelRule(
            "!has(self.circuitBreaker) || !has(self.circuitBreaker.slowCall) || !has(self.timeout) || "
            "duration(self.circuitBreaker.slowCall) < duration(self.timeout.attempt)",
            "circuitBreaker",
            "slowCall must be below timeout.attempt",
        ),
    ),
    TelemetryPolicySpec: (
        CelRule("!has(self.targetRefs) || !has(self.selector)", "", "may have targetRefs or selector, not both"),
        CelRule("has(self.logLevel) || has(self.samplingRatio)", "", "must have logLevel or samplingRatio"),
    ),
}


def validations(model: type[PolicyPart]) -> list[dict[str, str]]:
    """Returns the rules of a model as `x-kubernetes-validations`."""
    return [
        {"rule": rule.expression, **({"fieldPath": f".{rule.field}"} if rule.field else {}), "message": rule.message}
        for rule in RULES.get(model, ())
    ]
