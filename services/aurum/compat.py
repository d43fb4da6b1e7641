"""Names of the previous platform, so that code written for it runs after a change of its imports.

The names keep their signatures. New code imports them from the modules that define them.
"""

from aurum.api.metrics import track_request, track_request_duration
from aurum.prediction.metrics import track_prediction
from aurum.readings.metrics import track_ingestion, track_ingestion_error
from aurum.resilience import (
    CircuitBreakerError,
    ResilientCircuitBreaker,
    RetryPolicy,
    TimeoutConfig,
    with_async_retry,
    with_retry,
)
from aurum.runtime.metrics import (
    track_circuit_breaker_failure,
    track_circuit_breaker_state,
    track_error,
    track_retry,
)
from aurum.runtime.telemetry.logging import (
    ContextualJSONFormatter,
    get_logger,
    reset_request_context,
    set_request_context,
    setup_logging,
)
from aurum.runtime.telemetry.tracing import get_tracer, set_span_attributes, traced_async_operation, traced_operation
from aurum.storage.metrics import track_db_connections, track_db_query

__all__ = [
    "CircuitBreakerError",
    "ContextualJSONFormatter",
    "ResilientCircuitBreaker",
    "RetryPolicy",
    "TimeoutConfig",
    "get_logger",
    "get_tracer",
    "reset_request_context",
    "set_request_context",
    "set_span_attributes",
    "setup_logging",
    "traced_async_operation",
    "traced_operation",
    "track_circuit_breaker_failure",
    "track_circuit_breaker_state",
    "track_db_connections",
    "track_db_query",
    "track_error",
    "track_ingestion",
    "track_ingestion_error",
    "track_prediction",
    "track_request",
    "track_request_duration",
    "track_retry",
    "with_async_retry",
    "with_retry",
]
