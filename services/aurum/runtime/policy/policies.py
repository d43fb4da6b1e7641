"""The resilience policies of a process: the document in force, its pipelines and their live state."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aurum.resilience import (
    ConcurrencyLimit,
    ErrorClassifier,
    Pipeline,
    PipelineRegistry,
    PolicyError,
    plain_yaml,
)
from aurum.resilience.circuit_breaker import STATE_CLOSED
from aurum.resilience.durations import Seconds
from aurum.resilience.pipeline import attempt_seconds
from aurum.resilience.plain_yaml import YamlError
from aurum.resilience.policy import (
    AdmissionSpec,
    CircuitBreakerSpec,
    Policy,
    RetrySpec,
    SharesSpec,
    TimeoutSpec,
)
from aurum.runtime import metrics
from aurum.runtime.audit import AuditLog, Platform
from aurum.runtime.policy.document import PlatformPolicyDocument, TelemetrySpec
from aurum.runtime.policy.document import load_platform_document as load
from aurum.runtime.policy.files import document_path
from aurum.runtime.settings import Settings
from aurum.runtime.telemetry.logging import set_log_level
from aurum.runtime.telemetry.tracing import set_sample_ratio

logger = logging.getLogger(__name__)

_DOCUMENT = Platform("policy document")

_LONGEST_REASON = 500  # characters
_SWAPS = 3  # how often in a row a load is repeated because the volume's folder was swapped
_DEADLINE_ATTEMPTS = 2.5  # deadline of all attempts together, as a multiple of one attempt's timeout


def default_policy(settings: Settings) -> Policy:
    """Returns the policy that the settings define. It governs the calls that the policy document does not mention."""
    attempt = settings.timeout_read
    return Policy(
        target="*/*/*",
        retry=RetrySpec(
            max_attempts=settings.retry_max_attempts,
            base_delay=Seconds(settings.retry_base_delay),
            max_delay=Seconds(settings.retry_max_delay),
        ),
        circuit_breaker=CircuitBreakerSpec(
            enabled=settings.circuit_breaker_enabled,
            fail_max=settings.circuit_breaker_fail_max,
            open=Seconds(settings.circuit_breaker_timeout),
            max_open=Seconds(max(60.0, settings.circuit_breaker_timeout)),
        ),
        timeout=TimeoutSpec(
            deadline=Seconds(attempt * _DEADLINE_ATTEMPTS),
            attempt=Seconds(attempt),
            connect=Seconds(settings.timeout_connect),
            read=Seconds(attempt),
            write=Seconds(settings.timeout_write),
            pool=Seconds(settings.timeout_pool),
            db=Seconds(settings.timeout_db),
        ),
    )


def _log_warnings(document: PlatformPolicyDocument) -> None:
    for warning in document.warnings():
        logger.warning("the policy document in force: %s", warning)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document that could not be used. uid and generation are set if they could be read."""

    reason: str
    uid: str | None = None
    generation: int | None = None


class Policies:
    """The policies of one process. They can be changed while calls are in progress."""

    def __init__(self, service: str, settings: Settings, audit: AuditLog | None = None) -> None:
        """Loads the policy file, if there is one.

        Args:
            service: Name of the service.
            settings: Settings of the process.
            audit: Records each document that is put in force.

        Raises:
            PolicyError: The policy file cannot be used. At the start there is no earlier document to keep.
        """
        self._service = service
        self._audit = audit
        self._settings = settings
        self.path: Path | None = settings.policy_file
        self.refusal: Refusal | None = None
        self._since = datetime.now(UTC)
        document = _load(self.path) if self.path else PlatformPolicyDocument()
        self._document = document
        self.pipelines = PipelineRegistry(
            document, default_policy(settings), on_new=_create_series, on_gone=metrics.forget_target
        )
        self._admission: ConcurrencyLimit | None = None
        self._limits: list[ConcurrencyLimit] = []
        metrics.policy_generation.set(document.generation)
        metrics.policy_refused.set(0)
        self._apply_telemetry(document)
        _log_warnings(document)

    @property
    def document(self) -> PlatformPolicyDocument:
        """The document in force."""
        return self._document

    def reload(self) -> bool:
        """Reads the policy file and puts its document in force. Returns whether anything has changed."""
        return self.apply_loaded(self.read())

    def read(self) -> PlatformPolicyDocument | Refusal:
        """Returns the document in the policy file, or the reason why it is refused.

        The method blocks and may be called on any thread. It never raises an error.
        """
        if self.path is None:
            return self.document
        try:
            return _load(self.path)
        except PolicyError as error:
            return Refusal(str(error), *_identity(document_path(self.path)))
        except Exception as error:  # an arbitrary file must not end the process
            return Refusal(f"{self.path}: cannot be read: {error!r}"[:_LONGEST_REASON])

    def apply_loaded(self, loaded: PlatformPolicyDocument | Refusal) -> bool:
        """Puts a document in force, or reports a refused one and keeps the last good document.

        Returns whether anything has changed. It must be called on the thread that makes the calls.
        """
        if isinstance(loaded, Refusal):
            return self._refuse(loaded)
        if self.refusal is None and loaded == self.document:
            return False
        before = self.document
        try:
            self.apply(loaded)
        except Exception as error:  # a valid document that cannot be put in force
            self._put_in_force(before)
            return self._refuse(
                Refusal(f"cannot be put in force: {error!r}"[:_LONGEST_REASON], loaded.uid, loaded.generation)
            )
        return True

    def apply(self, document: PlatformPolicyDocument) -> None:
        """Puts a document in force for the calls that begin from now on."""
        before = _summary(self.document)
        self._put_in_force(document)
        self._since = datetime.now(UTC)
        self.refusal = None
        metrics.policy_refused.set(0)
        metrics.track_policy_reload("applied")
        logger.info(
            "a policy document is in force",
            extra={"policy_uid": document.uid, "generation": document.generation, "hash": document.content_hash},
        )
        _log_warnings(document)
        if self._audit is not None:
            self._audit.record(_DOCUMENT, "policy.apply", document.uid, before=before, after=_summary(document))

    def _put_in_force(self, document: PlatformPolicyDocument) -> None:
        admission, shadows = self._admission_spec(), {shadow.name for shadow in self.pipelines.shadows}
        self.pipelines.apply(document)
        self._document = document
        for name in shadows - {shadow.name for shadow in self.pipelines.shadows}:
            metrics.forget_policy_shadow(name)
        if self._admission and self._admission_spec() != admission:
            self._admission.configure(self._admission_spec().limit())
        self._apply_telemetry(document)
        metrics.policy_generation.set(document.generation)

    def _refuse(self, refusal: Refusal) -> bool:
        if refusal == self.refusal:
            return False
        self.refusal = refusal
        metrics.track_policy_reload("refused")
        metrics.policy_refused.set(1)
        logger.error("a policy document was refused, the last good one stays: %s", refusal.reason)
        return True

    def admission(self) -> ConcurrencyLimit:
        """Returns the limit on the calls that this process answers at a time."""
        if self._admission is None:
            self._admission = ConcurrencyLimit(f"{self._service}/calls", self._admission_spec().limit())
            self._limits.append(self._admission)
        return self._admission

    def stream_limit(self, streams: int) -> ConcurrencyLimit:
        """Returns a new limit on the endless streams that this process serves at a time."""
        limit = ConcurrencyLimit(f"{self._service}/streams", streams)
        self._limits.append(limit)
        return limit

    def pipeline(
        self,
        client: str,
        server: str,
        method: str,
        errors: ErrorClassifier,
        seconds: Callable[[Policy], float] = attempt_seconds,
        *,
        instance: str = "",
    ) -> Pipeline:
        """Returns the pipeline of a call under the policy in force. It must be requested anew for each call.

        Args:
            client: Name of the calling service.
            server: Name of the called service.
            method: Name of the called method.
            errors: How to interpret the errors of the transport.
            seconds: Returns the timeout of the policy that bounds an attempt.
            instance: Distinguishes several servers of the same name.
        """
        return self.pipelines.pipeline_for(client, server, method, errors, seconds, instance=instance)

    def state(self) -> dict[str, Any]:
        """Returns the response of /policy: the document in force, a refused one, and all pipelines and limits."""
        document, refusal = self.document, self.refusal
        return {
            "service": self._service,
            "policy": {
                "uid": document.uid,
                "generation": document.generation,
                "hash": document.content_hash,
                "since": self._since.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "applied": refusal is None,
                "reason": refusal.reason if refusal else None,
            },
            "refused": {"uid": refusal.uid, "generation": refusal.generation, "reason": refusal.reason}
            if refusal
            else None,
            "sources": [source.model_dump() for source in document.sources],
            "telemetry": document.telemetry.model_dump(by_alias=True) if document.telemetry else None,
            "targets": [_target_state(pipeline) for pipeline in self.pipelines],
            "shadows": [
                {"target": shadow.name, "calls": shadow.calls, "decisions": dict(shadow.decisions)}
                for shadow in self.pipelines.shadows
            ],
            "limits": [_limit_state(limit) for limit in self._limits],
        }

    def _apply_telemetry(self, document: PlatformPolicyDocument) -> None:
        """Sets log level and sampling ratio as the document says, or by the settings where it says nothing."""
        telemetry = document.telemetry or TelemetrySpec()
        set_log_level(telemetry.log_level or self._settings.log_level)
        ratio = telemetry.sampling_ratio
        set_sample_ratio(self._settings.tracing_sample_ratio if ratio is None else ratio)

    def _admission_spec(self) -> AdmissionSpec:
        policy = self.document.for_server(self._service)
        return policy.admission if policy else default_admission(self._settings)


def default_admission(settings: Settings) -> AdmissionSpec:
    """Returns the admission of a server that no policy mentions."""
    return AdmissionSpec(max_concurrent=settings.rpc_concurrency_limit, shares=SharesSpec())


def _load(path: Path) -> PlatformPolicyDocument:
    """Loads the document. Raises PolicyError.

    A load that fails because a volume's folder was swapped meanwhile is repeated.
    """
    for _ in range(_SWAPS):
        file = document_path(path)
        try:
            return load(file)
        except PolicyError:
            if file.exists() or file == document_path(path):
                raise
    return load(document_path(path))


def _summary(document: PlatformPolicyDocument) -> dict[str, Any]:
    return {"generation": document.generation, "hash": document.content_hash}


def _create_series(pipeline: Pipeline) -> None:
    state = pipeline.breaker.current_state if pipeline.breaker else STATE_CLOSED
    metrics.initialise_target(pipeline.name, state, pipeline.limit.limit, lambda: pipeline.budget.tokens)


def _target_state(pipeline: Pipeline) -> dict[str, Any]:
    breaker, limit = pipeline.breaker, pipeline.limit
    counts = breaker.counts if breaker else None
    return {
        "name": pipeline.name,
        "breaker": breaker.current_state if breaker else "disabled",
        "failures": counts.failures if counts else 0,
        "window": {"calls": counts.calls, "failures": counts.failures, "slow": counts.slow} if counts else None,
        "retry_budget_tokens": round(pipeline.budget.tokens, 2),
        "limit": _limit_state(limit),
        "matched": pipeline.policy.target,
        "policy": pipeline.policy.model_dump(mode="json", by_alias=True, exclude={"target"}),
    }


def _limit_state(limit: ConcurrencyLimit) -> dict[str, Any]:
    return {"name": limit.name, "limit": limit.limit, "in_flight": limit.in_flight, "queued": limit.queued}


def _identity(path: Path) -> tuple[str | None, int | None]:
    """Returns uid and generation of an invalid document, as far as they can be read."""
    try:
        content = plain_yaml.load(plain_yaml.read_text(path))
    except YamlError:
        return None, None
    if not isinstance(content, dict):
        return None, None
    uid, generation = content.get("uid"), content.get("generation")
    return uid if isinstance(uid, str) else None, generation if isinstance(generation, int) else None
