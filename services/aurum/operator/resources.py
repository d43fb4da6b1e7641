"""The specs of the two resources that people edit. Their parts are those of the policy document."""

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
    """Calls to a service: all of them, those of one method, those of one client."""

    service: str = Field(pattern=_NAME, max_length=63, description="The service that is called, such as prediction.")
    method: str | None = Field(
        None, pattern=r"^[A-Za-z]+$", max_length=63, description="Only this method, such as Predict."
    )
    client: str | None = Field(None, pattern=_NAME, max_length=63, description="Only calls of this service.")


class ServiceRef(PolicyPart):
    """A service."""

    service: str = Field(pattern=_NAME, max_length=63, description="Its name, such as prediction.")


class Selector(PolicyPart):
    """Services by the labels of their Kubernetes Services."""

    match_labels: dict[str, str] = Field(min_length=1, max_length=16, description="Labels that all must have.")


class GuardSpec(PolicyPart):
    """What must hold on the pods that have the new generation; the first that does not takes it back."""

    error_ratio: float | None = Field(
        0.05, gt=0, le=1, description="Share of their calls to the targets that the server fails or refuses."
    )
    p99: Duration | None = Field(None, gt=0, le=600, description="99th percentile of the time that those calls take.")
    breaker_open: bool = Field(True, description="Whether an open breaker to a target takes it back.")
    query: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        description="PromQL that yields a series when it does harm; `$pods` is a regular expression of the pods.",
    )


class RolloutSpec(PolicyPart):
    """How a new generation reaches the pods: a few first, watched in Prometheus, then more."""

    steps: tuple[int, ...] = Field(
        (10, 50, 100), min_length=1, max_length=10, description="Per cent of the pods, rising, the last one 100."
    )
    pause: Duration = Field(Seconds(30.0), ge=0, le=86_400, description="How long each step is watched.")
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
    """How calls to services are made. A part that is not given stays as less specific policies and the defaults say."""

    target_refs: tuple[TargetRef, ...] = Field((), min_length=1, max_length=16, description="Which calls it governs.")
    selector: Selector | None = None
    mode: Literal["Enforce", "Shadow"] = Field(
        "Enforce", description="Shadow: it decides beside what is in force, is measured, and enforces nothing."
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
    """How much services tell of themselves. Without targetRefs and selector, all of them."""

    target_refs: tuple[ServiceRef, ...] = Field((), min_length=1, max_length=16, description="Which services.")
    selector: Selector | None = None
    log_level: LogLevel | None = Field(None, description="Least severity that is logged.")
    sampling_ratio: float | None = Field(None, ge=0, le=1, description="Share of new traces that are recorded.")


KINDS: dict[str, tuple[str, type[PolicyPart]]] = {
    "ResiliencePolicy": ("resiliencepolicies", ResiliencePolicySpec),
    "TelemetryPolicy": ("telemetrypolicies", TelemetryPolicySpec),
}
