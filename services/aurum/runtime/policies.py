"""The resilience policies that a process has in force, and their live state."""

from collections.abc import Callable
from typing import Any

from aurum.resilience import ConcurrencyLimit, Pipeline, PolicyDocument, load_policy_document
from aurum.resilience.policy import CircuitBreakerSpec, Policy, RetrySpec, TimeoutSpec
from aurum.runtime import metrics
from aurum.runtime.settings import Settings

_DEADLINE_ATTEMPTS = 2.5  # all attempts together get so many times the time of one


def built_in_document(settings: Settings) -> PolicyDocument:
    """The policies that the settings stand for; generation 0."""
    return PolicyDocument(
        default=Policy(
            target="*/*/*",
            retry=RetrySpec(
                max_attempts=settings.retry_max_attempts,
                base_delay_seconds=settings.retry_base_delay,
                max_delay_seconds=settings.retry_max_delay,
            ),
            circuit_breaker=CircuitBreakerSpec(
                enabled=settings.circuit_breaker_enabled,
                fail_max=settings.circuit_breaker_fail_max,
                open_seconds=settings.circuit_breaker_timeout,
            ),
            timeout=TimeoutSpec(
                attempt_seconds=settings.timeout_read, deadline_seconds=settings.timeout_read * _DEADLINE_ATTEMPTS
            ),
        )
    )


class Policies:
    """One pipeline for each policy and pair of services, made at first use."""

    def __init__(self, service: str, settings: Settings) -> None:
        """Raises PolicyError if the policy file cannot be used."""
        self._service = service
        self.document = (
            load_policy_document(settings.policy_file) if settings.policy_file else built_in_document(settings)
        )
        self._pipelines: dict[tuple[str, str], Pipeline] = {}
        self._limits: list[ConcurrencyLimit] = []
        metrics.policy_generation.set(self.document.generation)

    def limit(self, name: str, calls: int) -> ConcurrencyLimit:
        """A concurrency limit that is listed among the policies."""
        limit = ConcurrencyLimit(name, calls)
        self._limits.append(limit)
        return limit

    def pipeline(
        self,
        client: str,
        server: str,
        method: str,
        *,
        is_failure: Callable[[BaseException], bool],
        is_retryable: Callable[[BaseException], bool],
        retry_after: Callable[[BaseException], float | None],
    ) -> Pipeline:
        """The pipeline of a call. All methods that one policy governs share it, and with it breaker and budget."""
        policy = self.document.for_call(client, server, method)
        key = (server, policy.target)
        pipeline = self._pipelines.get(key)
        if pipeline is None:
            name = f"{client}/{server}" if policy.target.endswith("/*") else f"{client}/{server}/{method}"
            pipeline = Pipeline(name, policy, is_failure=is_failure, is_retryable=is_retryable, retry_after=retry_after)
            self._pipelines[key] = pipeline
            metrics.initialise_target(name)
            metrics.retry_budget_tokens.labels(name).set(pipeline.budget.tokens)
        return pipeline

    def state(self) -> dict[str, Any]:
        """What /policy answers: the document that is in force, and each breaker, budget and limit now."""
        return {
            "service": self._service,
            "policy": {
                "uid": self.document.uid,
                "generation": self.document.generation,
                "hash": self.document.content_hash,
                "applied": True,
                "reason": None,
            },
            "targets": [
                {
                    "name": pipeline.name,
                    "breaker": pipeline.breaker.current_state if pipeline.breaker else "disabled",
                    "failures": pipeline.breaker.fail_counter if pipeline.breaker else 0,
                    "retry_budget_tokens": round(pipeline.budget.tokens, 2),
                    "policy": pipeline.policy.model_dump(exclude={"target"}),
                }
                for pipeline in self._pipelines.values()
            ],
            "limits": [
                {"name": limit.name, "limit": limit.limit, "in_flight": limit.in_flight} for limit in self._limits
            ],
        }
