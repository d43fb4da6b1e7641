"""Bounds the parts that a call inherits by those that a more specific policy states for it.

Parts of one policy may not contradict each other, but an inherited part was written without knowledge of the others. It
is therefore reduced to what they leave of it: a limit within a fixed limit, and nothing of what could never occur.
"""

from collections.abc import Mapping

from aurum.resilience.policy import AdaptiveConcurrencySpec, BulkheadSpec, CircuitBreakerSpec, PolicyPart, TimeoutSpec


def bound_inherited(parts: Mapping[str, PolicyPart], ranks: Mapping[str, int]) -> dict[str, PolicyPart]:
    """Returns the parts of a call, the inherited ones bounded.

    Args:
        parts: The parts by the names of the fields of `Policy`.
        ranks: How specific the policy is from which each part comes. Only parts with a lower rank are bounded.
    """
    bounded = dict(parts)
    limit, bulkhead = parts.get("adaptive_concurrency"), parts.get("bulkhead")
    if (
        isinstance(limit, AdaptiveConcurrencySpec)
        and isinstance(bulkhead, BulkheadSpec)
        and ranks["adaptive_concurrency"] < ranks["bulkhead"]
    ):
        bounded["adaptive_concurrency"] = _limit_within(limit, bulkhead.max_concurrent)
    timeout = parts.get("timeout")
    if isinstance(timeout, TimeoutSpec):
        attempt = min(timeout.attempt, timeout.deadline)
        if "hedge" in parts and ranks["hedge"] < ranks["timeout"] and getattr(parts["hedge"], "delay", 0.0) >= attempt:
            del bounded["hedge"]  # no attempt would last until the next one starts
        breaker = parts.get("circuit_breaker")
        if isinstance(breaker, CircuitBreakerSpec) and ranks["circuit_breaker"] < ranks["timeout"]:
            bounded["circuit_breaker"] = _breaker_within(breaker, attempt)
    return bounded


def _limit_within(limit: AdaptiveConcurrencySpec, most: int) -> AdaptiveConcurrencySpec:
    """Returns a limit that never exceeds a number of calls."""
    if limit.max_limit <= most:
        return limit
    changed = {name: min(getattr(limit, name), most) for name in ("max_limit", "initial_limit", "min_limit")}
    return limit.model_copy(update=changed)


def _breaker_within(breaker: CircuitBreakerSpec, attempt: float) -> CircuitBreakerSpec:
    """Returns a breaker that counts no slow calls if no attempt can be as slow. attempt: Longest time in seconds."""
    if breaker.slow_call is None or breaker.slow_call < attempt:
        return breaker
    stated = breaker.model_dump(exclude={"slow_call", "slow_call_rate"}, exclude_unset=True)
    return CircuitBreakerSpec(**stated)
