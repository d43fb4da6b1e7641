"""Resilience policies for calls to dependencies: deadline, retry, hedge, limit, circuit breaker, timeout, shadow.

Each policy has its own module, and `pipeline` composes them. The library exports no metrics and logs only errors of
subscribers. Other code observes it through `events.subscribe`.
"""

from aurum.resilience.budget import RetryBudget
from aurum.resilience.circuit_breaker import BreakerConfig, CircuitBreakerError, ResilientCircuitBreaker
from aurum.resilience.criticality import Criticality, criticality_scope, current_criticality
from aurum.resilience.deadline import DeadlineExceededError, deadline_scope, received_deadline, remaining
from aurum.resilience.errors import ErrorClassifier
from aurum.resilience.limit import ConcurrencyLimit, LimitConfig, LimitExceededError
from aurum.resilience.pipeline import Pipeline
from aurum.resilience.pipeline_registry import PipelineRegistry
from aurum.resilience.policy import Policy, PolicyDocument, PolicyError, load_policy_document
from aurum.resilience.retry import RetryPolicy, with_async_retry, with_retry
from aurum.resilience.timeout import TimeoutConfig

__all__ = [
    "BreakerConfig",
    "CircuitBreakerError",
    "ConcurrencyLimit",
    "Criticality",
    "DeadlineExceededError",
    "ErrorClassifier",
    "LimitConfig",
    "LimitExceededError",
    "Pipeline",
    "PipelineRegistry",
    "Policy",
    "PolicyDocument",
    "PolicyError",
    "ResilientCircuitBreaker",
    "RetryBudget",
    "RetryPolicy",
    "TimeoutConfig",
    "criticality_scope",
    "current_criticality",
    "deadline_scope",
    "load_policy_document",
    "received_deadline",
    "remaining",
    "with_async_retry",
    "with_retry",
]
