"""The specs of the two custom resources. Their parts are those of the policy document."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from aurum.resilience.durations import Duration, Seconds
from aurum.resilience.policy import (
    AdaptiveConcurrencySpec,
    AdmissionSpec,
    BulkheadSpec,
    CircuitBreakerSpec,
    ContradictionError,
    FallbackSpec,
    HedgeSpec,
    PolicyPart,
    RetrySpec,
    TimeoutSpec,
)
from aurum.runtime.policy.document import LogLevel

GROUP, VERSION = "aurumai.io", "v1alpha1"
_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"

# The parts of a policy that govern a service's calls; `admission` governs what it takes on.
SECTIONS = (
    "retry",
    "hedge",
    "circuit_breaker",
    "timeout",
    "bulkhead",
    "adaptive_concurrency",
    "fallback",
)


class TargetRef(PolicyPart):
    """The calls to a service, to one of its methods, or from one client."""

    service: str = Field(pattern=_NAME, max_length=63, description="Called service, such as prediction.")
    method: str | None = Field(
        None,
        pattern=r"^[A-Za-z]+$",
        max_length=63,
        description="Called method, such as Predict. The default is all methods.",
    )
    client: str | None = Field(
        None, pattern=_NAME, max_length=63, description="Calling service. The default is all services."
    )


class ServiceRef(PolicyPart):
    """A service."""

    service: str = Field(pattern=_NAME, max_length=63, description="Name of the service, such as prediction.")


class Selector(PolicyPart):
    """Services selected by the labels of their Kubernetes Services."""

    match_labels: dict[str, str] = Field(
        min_length=1, max_length=16, description="Labels that a Service must have. All must match."
    )


class GuardSpec(PolicyPart):
    """Conditions for the pods that have the new generation. The first violation triggers the rollback."""

    error_ratio: float | None = Field(
        0.05,
        gt=0,
        le=1,
        description="Maximum share of the pods' calls to the targets that the server fails or refuses.",
    )
    p99: Duration | None = Field(
        None, gt=0, le=600, description="Maximum 99th percentile of the duration of these calls."
    )
    breaker_open: bool = Field(True, description="Whether an open breaker to a target triggers the rollback.")
    query: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        description="PromQL expression that triggers the rollback if it returns a series. `$pods` is a regular "
        "expression of the pods.",
    )


class RolloutSpec(PolicyPart):
    """How a new generation reaches the pods: in steps, observed by Prometheus queries."""

    steps: tuple[int, ...] = Field(
        (10, 50, 100),
        min_length=1,
        max_length=10,
        description="Percentages of the pods, in ascending order. The last one must be 100.",
    )
    pause: Duration = Field(
        Seconds(30.0), ge=0, le=86_400, description="Duration for which the guard observes each step."
    )
    guard: GuardSpec = Field(default_factory=GuardSpec)

    item_bounds: ClassVar[dict[str, tuple[int, int]]] = {"steps": (1, 100)}

    @model_validator(mode="after")
    def _steps_rise(self) -> "RolloutSpec":
        low, high = self.item_bounds["steps"]
        if any(not low <= step <= high for step in self.steps):
            raise ContradictionError("steps", f"each must be from {low} to {high}")
        if self.steps[-1] != high or list(self.steps) != sorted(set(self.steps)):
            raise ContradictionError("steps", f"must rise, and end with {high}")
        return self


class ResiliencePolicySpec(PolicyPart):
    """Policies of calls to services. Omitted parts are taken from less specific policies and from the defaults."""

    target_refs: tuple[TargetRef, ...] = Field(
        (), min_length=1, max_length=16, description="Calls that the policy governs."
    )
    selector: Selector | None = None
    mode: Literal["Enforce", "Shadow"] = Field(
        "Enforce",
        description="Enforce puts the policy in force. Shadow makes decisions without enforcing them, and counts them.",
    )
    retry: RetrySpec | None = None
    hedge: HedgeSpec | None = None
    circuit_breaker: CircuitBreakerSpec | None = None
    timeout: TimeoutSpec | None = None
    bulkhead: BulkheadSpec | None = None
    adaptive_concurrency: AdaptiveConcurrencySpec | None = None
    fallback: FallbackSpec | None = None
    admission: AdmissionSpec | None = None
    rollout: RolloutSpec | None = None

    @model_validator(mode="after")
    def _says_what_and_how(self) -> "ResiliencePolicySpec":
        if bool(self.target_refs) == (self.selector is not None):
            raise ContradictionError("targetRefs", "needs either targetRefs or selector")
        if not self.sections and self.admission is None:
            raise ContradictionError("retry", "must have at least one part, such as retry or timeout")
        if self.admission and any(ref.method or ref.client for ref in self.target_refs):
            raise ContradictionError("admission", "is for whole services: targetRefs may name no method or client")
        return self

    @property
    def sections(self) -> dict[str, PolicyPart]:
        """The parts that govern calls, by the names of their fields in `Policy`."""
        return {name: part for name in SECTIONS if (part := getattr(self, name)) is not None}


class TelemetryPolicySpec(PolicyPart):
    """Verbosity of the telemetry of services. Without targetRefs and selector, the policy applies to all services."""

    target_refs: tuple[ServiceRef, ...] = Field(
        (), min_length=1, max_length=16, description="Services that the policy governs."
    )
    selector: Selector | None = None
    log_level: LogLevel | None = Field(None, description="Lowest severity that is logged.")
    sampling_ratio: float | None = Field(None, ge=0, le=1, description="Share of new traces that are recorded.")


KINDS: dict[str, tuple[str, type[PolicyPart]]] = {
    "ResiliencePolicy": ("resiliencepolicies", ResiliencePolicySpec),
    "TelemetryPolicy": ("telemetrypolicies", TelemetryPolicySpec),
}
