"""Resilience policies for calls to dependencies: deadline, retry, limit, circuit breaker, timeout.

Each policy is a module of its own; `pipeline` composes them. The library stands alone: it exports nothing and logs
nothing, whoever wants to know subscribes with `events.subscribe`.
"""

from aurum.resilience.budget import RetryBudget
from aurum.resilience.circuit_breaker import CircuitBreakerError, ResilientCircuitBreaker
from aurum.resilience.deadline import DeadlineExceededError, deadline_scope, remaining
from aurum.resilience.limit import ConcurrencyLimit, LimitExceededError
from aurum.resilience.pipeline import Pipeline
from aurum.resilience.policy import PolicyDocument, PolicyError, load_policy_document
from aurum.resilience.retry import RetryPolicy, with_async_retry, with_retry
from aurum.resilience.timeout import TimeoutConfig

__all__ = [
    "CircuitBreakerError",
    "ConcurrencyLimit",
    "DeadlineExceededError",
    "LimitExceededError",
    "Pipeline",
    "PolicyDocument",
    "PolicyError",
    "ResilientCircuitBreaker",
    "RetryBudget",
    "RetryPolicy",
    "TimeoutConfig",
    "deadline_scope",
    "load_policy_document",
    "remaining",
    "with_async_retry",
    "with_retry",
]
