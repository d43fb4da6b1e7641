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


class Rule(NamedTuple):
    """A rule for a part of a policy."""

    expression: str
    field: str
    """The field that is named in the message; empty for the whole part."""
    message: str


_QUEUE = Rule(
    "self.maxQueued == 0 || duration(self.maxWait) > duration('0s')",
    "maxWait",
    "must be above 0s when maxQueued is above 0",
)


RULES: dict[type[PolicyPart], tuple[Rule, ...]] = {
    RetrySpec: (
        Rule("duration(self.baseDelay) <= duration(self.maxDelay)", "baseDelay", "must not be above maxDelay"),
    ),
    CircuitBreakerSpec: (
        Rule("duration(self.open) <= duration(self.maxOpen)", "open", "must not be above maxOpen"),
        Rule(
            "self.mode != 'count' || self.minimumCalls <= self.windowCalls",
            "minimumCalls",
            "must not be above windowCalls when mode is count",
        ),
    ),
    TimeoutSpec: (Rule("duration(self.attempt) <= duration(self.deadline)", "attempt", "must not be above deadline"),),
    BulkheadSpec: (_QUEUE,),
    AdaptiveConcurrencySpec: (
        Rule("self.minLimit <= self.initialLimit", "minLimit", "must not be above initialLimit"),
        Rule("self.initialLimit <= self.maxLimit", "initialLimit", "must not be above maxLimit"),
        Rule("!has(self.slowCall) || self.algorithm == 'aimd'", "slowCall", "is for algorithm aimd"),
    ),
    SharesSpec: (
        Rule("self.batch <= self.query", "batch", "must not be above query"),
        Rule("self.query <= self.telemetry", "query", "must not be above telemetry"),
        Rule("self.telemetry <= self.alarm", "telemetry", "must not be above alarm"),
    ),
    AdmissionSpec: (_QUEUE,),
    RolloutSpec: (
        Rule(
            "self.steps.isSorted() && self.steps[self.steps.size() - 1] == 100", "steps", "must rise, and end with 100"
        ),
    ),
    ResiliencePolicySpec: (
        Rule(
            "has(self.targetRefs) != has(self.selector)",
            "",
            "needs either targetRefs or selector",
        ),
        Rule(
            "!has(self.admission) || !has(self.targetRefs) || self.targetRefs.all(t, !has(t.method) && !has(t.client))",
            "admission",
            "is for whole services: targetRefs may name neither method nor client",
        ),
        Rule(
            "has(self.retry) || has(self.hedge) || has(self.circuitBreaker) || has(self.timeout) || "
            "has(self.bulkhead) || has(self.adaptiveConcurrency) || has(self.fallback) || has(self.admission)",
            "",
            "must have at least one part, such as retry or timeout",
        ),
        Rule(
            "!has(self.adaptiveConcurrency) || !has(self.bulkhead) || "
            "self.adaptiveConcurrency.maxLimit <= self.bulkhead.maxConcurrent",
            "adaptiveConcurrency",
            "maxLimit must not be above bulkhead.maxConcurrent",
        ),
        Rule(
            "!has(self.hedge) || !has(self.timeout) || duration(self.hedge.delay) < duration(self.timeout.attempt)",
            "hedge",
            "delay must be below timeout.attempt",
        ),
        Rule(
            "!has(self.circuitBreaker) || !has(self.circuitBreaker.slowCall) || !has(self.timeout) || "
            "duration(self.circuitBreaker.slowCall) < duration(self.timeout.attempt)",
            "circuitBreaker",
            "slowCall must be below timeout.attempt",
        ),
    ),
    TelemetryPolicySpec: (
        Rule("!has(self.targetRefs) || !has(self.selector)", "", "may have targetRefs or selector, not both"),
        Rule("has(self.logLevel) || has(self.samplingRatio)", "", "must have logLevel or samplingRatio"),
    ),
}


def validations(model: type[PolicyPart]) -> list[dict[str, str]]:
    """Returns the rules of a model as `x-kubernetes-validations`."""
    return [
        {"rule": rule.expression, **({"fieldPath": f".{rule.field}"} if rule.field else {}), "message": rule.message}
        for rule in RULES.get(model, ())
    ]
