"""The policy document: which policies govern which calls. The models serve the file that people edit and /policy.

Durations are numbers with a unit (250ms, 2s, 5m). Names are written as in Kubernetes (maxAttempts). The names of the
attributes (max_attempts) are accepted too.
"""

import fnmatch
import hashlib
import math
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from aurum.resilience import plain_yaml
from aurum.resilience.circuit_breaker import BreakerConfig
from aurum.resilience.durations import Duration, Seconds, format_duration
from aurum.resilience.limit import LimitConfig
from aurum.resilience.limit_algorithms import Aimd, LimitAlgorithm, Vegas
from aurum.resilience.plain_yaml import YamlError, at_line, shown_path
from aurum.resilience.status import OUTAGES, TRANSIENT, Code

MAX_INT64 = 2**63 - 1  # as Kubernetes counts generations
_LONGEST_PROBLEM = 500  # characters: a value that is wrong may be as long as its document


class PolicyError(ValueError):
    """An invalid policy document. The message names the file and the path of the field."""


class ContradictionError(ValueError):
    """Contradictory values. field: Path of one of them, relative to the model that is checked."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


class PolicyPart(BaseModel):
    """Base of all parts of a document: immutable, with names as in Kubernetes, and without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class RetrySpec(PolicyPart):
    """Retries of failed calls. Only calls that may be repeated are retried, within the retry budget."""

    max_attempts: int = Field(3, ge=1, le=10, description="Maximum number of attempts of a call, including the first.")
    base_delay: Duration = Field(
        Seconds(0.1), ge=0, le=60, description="Upper bound of the first backoff. It doubles with each attempt."
    )
    max_delay: Duration = Field(
        Seconds(2.0),
        ge=0,
        le=300,
        description="Largest upper bound of a backoff. The delay is random between 0 and the bound.",
    )
    retry_on: tuple[Code, ...] = Field(
        TRANSIENT,
        description="Status codes that are retried.",
    )
    budget_ratio: float = Field(
        0.2, ge=0, le=1, description="Retries and hedges allowed per call, averaged over all calls."
    )
    budget_floor: float = Field(1.0, ge=0, le=1000, description="Retries per second that are always allowed.")

    @model_validator(mode="after")
    def _delays_in_order(self) -> "RetrySpec":
        _at_most(self, "base_delay", "max_delay")
        return self


class HedgeSpec(PolicyPart):
    """A second attempt in parallel to a slow one. The first answer counts. Only repeatable calls are hedged."""

    delay: Duration = Field(
        description="Time after which the next attempt starts. The 95th percentile of the call's duration is a "
        "good value."
    )
    max_attempts: int = Field(2, ge=2, le=5, description="Maximum number of concurrent attempts, including the first.")


class CircuitBreakerSpec(PolicyPart):
    """Conditions under which calls to a failing target are refused."""

    enabled: bool = Field(
        True, description="Whether the breaker is in use. If false, all calls pass and nothing is recorded."
    )
    mode: Literal["consecutive", "count", "time"] = Field(
        "consecutive",
        description="Condition that opens the breaker: failures in a row, a share of the last calls, or a share "
        "of the calls of the last seconds.",
    )
    fail_max: int = Field(
        5, ge=1, le=10_000, description="consecutive: number of failures in a row that open the breaker."
    )
    window_calls: int = Field(100, ge=1, le=100_000, description="count: number of calls in the window.")
    window: Duration = Field(Seconds(10.0), gt=0, le=3600, description="time: length of the window.")
    failure_rate: float = Field(
        0.5, gt=0, le=1, description="count, time: share of failed calls that opens the breaker."
    )
    slow_call: Duration | None = Field(
        None,
        gt=0,
        le=600,
        description="Duration from which a call is slow. A call in progress counts as slow from that moment.",
    )
    slow_call_rate: float = Field(
        1.0, gt=0, le=1, description="count, time: share of slow calls that opens the breaker."
    )
    minimum_calls: int = Field(
        20,
        ge=1,
        le=100_000,
        description="count, time: minimum number of calls in the window before the breaker can open.",
    )
    failure_codes: tuple[Code, ...] = Field(
        OUTAGES,
        description="Status codes that count as failures.",
    )
    open: Duration = Field(
        Seconds(5.0),
        ge=0,
        le=3600,
        description="Duration of the open state. It should be at least the timeout of an attempt.",
    )
    open_jitter: float = Field(0.1, ge=0, lt=1, description="Share of the open duration by which it varies at random.")
    open_growth: float = Field(
        1.5, ge=1, le=10, description="Factor by which the open duration grows after each failed probe."
    )
    max_open: Duration = Field(Seconds(60.0), ge=0, le=86400, description="Maximum duration of the open state.")
    half_open_probes: int = Field(
        1, ge=1, le=100, description="Number of probes in the half-open state. All must succeed to close the breaker."
    )
    force: Literal["open", "closed"] | None = Field(
        None,
        description="Fixed state: open refuses all calls, closed lets all calls pass. It is meant for manual "
        "intervention.",
    )

    @model_validator(mode="after")
    def _can_open(self) -> "CircuitBreakerSpec":
        _at_most(self, "open", "max_open")
        if self.mode == "count":
            _at_most(self, "minimum_calls", "window_calls")
        return self

    def config(self) -> BreakerConfig:
        """Returns the configuration of the breaker."""
        return BreakerConfig(
            mode=self.mode,
            fail_max=self.fail_max,
            window_calls=self.window_calls,
            window_seconds=self.window,
            failure_rate=self.failure_rate,
            slow_seconds=self.slow_call,
            slow_rate=self.slow_call_rate,
            minimum_calls=self.minimum_calls,
            open_seconds=self.open,
            open_jitter=self.open_jitter,
            open_growth=self.open_growth,
            max_open_seconds=self.max_open,
            probes=self.half_open_probes,
            forced=self.force,
        )


class TimeoutSpec(PolicyPart):
    """Maximum durations of a call and of its parts."""

    deadline: Duration = Field(
        Seconds(5.0), gt=0, le=600, description="Time for all attempts, including the delays between them."
    )
    attempt: Duration = Field(
        Seconds(2.0), gt=0, le=600, description="Timeout of one attempt. It is shorter if the deadline is near."
    )
    connect: Duration = Field(Seconds(0.5), gt=0, le=600, description="Timeout for a connection, within the attempt.")
    read: Duration = Field(Seconds(2.0), gt=0, le=600, description="HTTP: timeout for receiving data.")
    write: Duration = Field(Seconds(2.0), gt=0, le=600, description="HTTP: timeout for sending data.")
    pool: Duration = Field(Seconds(2.0), gt=0, le=600, description="HTTP: timeout for a free connection of the pool.")
    db: Duration = Field(
        Seconds(10.0), gt=0, le=600, description="Store: timeout of one statement, after which it is interrupted."
    )

    @model_validator(mode="after")
    def _attempt_within_deadline(self) -> "TimeoutSpec":
        if "attempt" in self.model_fields_set:
            _at_most(self, "attempt", "deadline")
        return self


class BulkheadSpec(PolicyPart):
    """Fixed limit on the calls in progress."""

    max_concurrent: int = Field(256, ge=1, le=100_000, description="Maximum number of calls in progress.")
    max_queued: int = Field(
        0, ge=0, le=100_000, description="Maximum number of queued calls. Further calls are refused."
    )
    max_wait: Duration = Field(Seconds(0.0), ge=0, le=60, description="Maximum time in the queue.")

    @model_validator(mode="after")
    def _queue_can_be_waited_in(self) -> "BulkheadSpec":
        if self.max_queued and not self.max_wait:
            raise ContradictionError("maxWait", f"is 0s, so that nothing could wait in a queue of {self.max_queued}")
        return self


class AdaptiveConcurrencySpec(PolicyPart):
    """Limit on the calls in progress that adapts to the capacity of the target."""

    algorithm: Literal["vegas", "aimd"] = Field(
        "vegas",
        description="vegas compares the duration of calls with the fastest ones. aimd reacts to refusals and timeouts.",
    )
    initial_limit: int = Field(20, ge=1, le=100_000, description="Initial limit.")
    min_limit: int = Field(4, ge=1, le=100_000, description="Minimum limit.")
    max_limit: int = Field(256, ge=1, le=100_000, description="Maximum limit.")
    slow_call: Duration | None = Field(None, gt=0, le=600, description="aimd: mean duration that counts as overload.")

    @model_validator(mode="after")
    def _limits_in_order(self) -> "AdaptiveConcurrencySpec":
        _at_most(self, "min_limit", "initial_limit")
        _at_most(self, "initial_limit", "max_limit")
        if self.slow_call is not None and self.algorithm != "aimd":
            raise ContradictionError("slowCall", f"means nothing to {self.algorithm}; it is for aimd")
        return self

    def new(self) -> LimitAlgorithm:
        """Returns the algorithm in its initial state."""
        if self.algorithm == "vegas":
            return Vegas(self.initial_limit, self.min_limit, self.max_limit)
        return Aimd(self.initial_limit, self.min_limit, self.max_limit, self.slow_call or math.inf)


class FallbackSpec(PolicyPart):
    """Answers in place of a failed call, where a service has them. They are always marked as degraded."""

    last_good: bool = Field(True, description="Whether the last good answer is used, with its age.")
    last_good_max_age: Duration = Field(
        Seconds(600.0), gt=0, le=86400, description="Maximum age of the last good answer."
    )
    rule: bool = Field(
        True, description="Whether the answer of the fallback rule is used after that, where the service has one."
    )


class Policy(PolicyPart):
    """The policies of the calls to one target."""

    target: str = Field(
        description="Calls that the policy governs, as `client/server/Method`. Each part may be a shell pattern, "
        "such as `api/prediction/*`."
    )
    retry: RetrySpec = Field(default_factory=RetrySpec)
    hedge: HedgeSpec | None = None
    circuit_breaker: CircuitBreakerSpec = Field(default_factory=CircuitBreakerSpec)
    timeout: TimeoutSpec = Field(default_factory=TimeoutSpec)
    bulkhead: BulkheadSpec = Field(default_factory=BulkheadSpec)
    adaptive_concurrency: AdaptiveConcurrencySpec | None = None
    fallback: FallbackSpec = Field(default_factory=FallbackSpec)

    @model_validator(mode="after")
    def _parts_agree(self) -> "Policy":
        if self.target.count("/") != 2 or not all(self.target.split("/")):
            raise ContradictionError("target", f"{self.target!r} is not client/server/Method")
        attempt = min(self.timeout.attempt, self.timeout.deadline)
        for field, value in (
            ("hedge.delay", self.hedge and self.hedge.delay),
            ("circuitBreaker.slowCall", self.circuit_breaker.slow_call),
        ):
            if value and value >= attempt:
                raise ContradictionError(
                    field,
                    f"{format_duration(value)} is not below timeout.attempt ({format_duration(attempt)}), "
                    "so no call would ever take as long",
                )
        if self.adaptive_concurrency and self.adaptive_concurrency.max_limit > self.bulkhead.max_concurrent:
            raise ContradictionError(
                "adaptiveConcurrency.maxLimit",
                f"{self.adaptive_concurrency.max_limit} is above bulkhead.maxConcurrent "
                f"({self.bulkhead.max_concurrent})",
            )
        return self

    def warnings(self) -> list[str]:
        """Returns warnings about unusual values, as sentences that begin with the path of the field."""
        breaker, timeout = self.circuit_breaker, self.timeout
        longest = {"attempt": min(timeout.attempt, timeout.deadline)}
        if "db" in timeout.model_fields_set:  # the policy of a store, whose attempts are statements
            longest["db"] = min(timeout.db, timeout.deadline)
        return [
            f"circuitBreaker.open: {format_duration(breaker.open)} is below timeout.{field} "
            f"({format_duration(seconds)}), so that a probe may take longer, and all other calls are refused until it "
            "has ended"
            for field, seconds in longest.items()
            if breaker.enabled and breaker.open < seconds
        ]

    def limit(self) -> LimitConfig:
        """Returns the limit on the calls in progress."""
        adaptive = self.adaptive_concurrency
        return LimitConfig(
            adaptive.initial_limit if adaptive else self.bulkhead.max_concurrent,
            self.bulkhead.max_queued,
            self.bulkhead.max_wait,
            algorithm=adaptive.new() if adaptive else None,
        )


class SharesSpec(PolicyPart):
    """Share of the limit that each class of calls may use. The rest is reserved for more critical classes."""

    alarm: float = Field(1.0, gt=0, le=1, description="Share for alarms and health checks.")
    telemetry: float = Field(0.95, gt=0, le=1, description="Share for readings and registrations.")
    query: float = Field(
        0.9, gt=0, le=1, description="Share for queries of people and other services, and for calls without a class."
    )
    batch: float = Field(0.7, gt=0, le=1, description="Share for work that can wait, such as batches of predictions.")

    @model_validator(mode="after")
    def _in_order(self) -> "SharesSpec":
        _at_most(self, "batch", "query")
        _at_most(self, "query", "telemetry")
        _at_most(self, "telemetry", "alarm")
        return self


class AdmissionSpec(PolicyPart):
    """Limit on the unary calls of a server. Beyond it, the less critical calls are queued or refused first."""

    max_concurrent: int = Field(256, ge=1, le=100_000, description="Maximum number of calls in progress.")
    max_queued: int = Field(
        64, ge=0, le=100_000, description="Maximum number of queued calls. Further calls are refused."
    )
    max_wait: Duration = Field(Seconds(0.1), ge=0, le=60, description="Maximum time in the queue.")
    shares: SharesSpec = Field(default_factory=SharesSpec)
    adaptive_concurrency: AdaptiveConcurrencySpec | None = None

    @model_validator(mode="after")
    def _parts_agree(self) -> "AdmissionSpec":
        if self.max_queued and not self.max_wait:
            raise ContradictionError("maxWait", f"is 0s, so that nothing could wait in a queue of {self.max_queued}")
        if self.adaptive_concurrency and self.adaptive_concurrency.max_limit > self.max_concurrent:
            raise ContradictionError(
                "adaptiveConcurrency.maxLimit",
                f"{self.adaptive_concurrency.max_limit} is above maxConcurrent ({self.max_concurrent})",
            )
        return self

    def limit(self) -> LimitConfig:
        """Returns the limit on the calls in progress, with the shares of the classes."""
        adaptive = self.adaptive_concurrency
        shares = self.shares
        return LimitConfig(
            adaptive.initial_limit if adaptive else self.max_concurrent,
            self.max_queued,
            self.max_wait,
            (shares.alarm, shares.telemetry, shares.query, shares.batch),
            adaptive.new() if adaptive else None,
        )


class ServerPolicy(PolicyPart):
    """The policy of a service as a server."""

    server: str = Field(min_length=1, description="Name of the service. It may be a shell pattern.")
    admission: AdmissionSpec = Field(default_factory=AdmissionSpec)


class PolicyDocument(PolicyPart):
    """All policies of a system. The first policy whose target matches a call governs it. The same holds for servers."""

    uid: str = Field("built-in", max_length=200, description="Identifier of the document.")
    generation: int = Field(
        0, ge=0, le=MAX_INT64, description="Number that grows with each change; 0 for the built-in defaults."
    )
    policies: tuple[Policy, ...] = ()
    servers: tuple[ServerPolicy, ...] = ()
    default: Policy | None = Field(
        None, description="Policy of the calls that no other policy matches. Without it the settings apply."
    )
    shadows: tuple[Policy, ...] = Field(
        (), description="Policies that make decisions without enforcing them. Their decisions are counted."
    )

    @model_validator(mode="after")
    def _each_is_used(self) -> "PolicyDocument":
        _distinct("policies", "target", [policy.target for policy in self.policies])
        _distinct("servers", "server", [server.server for server in self.servers])
        _distinct("shadows", "target", [shadow.target for shadow in self.shadows])
        return self

    def for_call(self, client: str, server: str, method: str) -> Policy | None:
        """Returns the policy of a call, or None if the document has none."""
        name = f"{client}/{server}/{method}"
        return next((policy for policy in self.policies if fnmatch.fnmatchcase(name, policy.target)), self.default)

    def shadow_of(self, name: str) -> Policy | None:
        """Returns the shadow policy of a call, or None. name: client/server/Method."""
        return next((shadow for shadow in self.shadows if fnmatch.fnmatchcase(name, shadow.target)), None)

    def for_server(self, server: str) -> ServerPolicy | None:
        """Returns the policy of a server, or None if the document has none."""
        return next((each for each in self.servers if fnmatch.fnmatchcase(server, each.server)), None)

    def warnings(self) -> list[str]:
        """Returns warnings about unusual values, as sentences that begin with the path of the field."""
        named = {f"policies[{index}]": policy for index, policy in enumerate(self.policies)}
        named |= {f"shadows[{index}]": policy for index, policy in enumerate(self.shadows)}
        if self.default is not None:
            named["default"] = self.default
        return [f"{path}.{warning}" for path, policy in named.items() for warning in policy.warnings()]

    @property
    def content_hash(self) -> str:
        """Hash of the content, independent of the layout of the file."""
        return hashlib.sha256(self.model_dump_json(by_alias=True).encode()).hexdigest()[:16]


D = TypeVar("D", bound=PolicyDocument)


def parse_policy_document(text: str, source: str) -> PolicyDocument:
    """Parses a YAML policy document. It raises no other errors than PolicyError.

    Args:
        text: The document.
        source: Where it came from, for errors.

    Raises:
        PolicyError: The document is invalid. The message has the source, the field and the line.
    """
    return parse_document(PolicyDocument, text, source)


def load_policy_document(path: Path) -> PolicyDocument:
    """Loads a policy file. It raises no other errors than PolicyError.

    Raises:
        PolicyError: The file cannot be read or is invalid. The message has the file, the field and the line.
    """
    return load_document(PolicyDocument, path)


def parse_document(model: type[D], text: str, source: str) -> D:
    """Parses a document of an extended model, as `parse_policy_document` does."""
    try:
        content = plain_yaml.load(text)
        return model.model_validate({} if content is None else content)
    except YamlError as error:
        raise PolicyError(f"{source}: {error}") from error
    except ValidationError as error:
        (line,) = plain_yaml.lines_of(text, [error.errors(include_url=False)[0]["loc"]])
        raise PolicyError(f"{source}: {describe(error)}{at_line(line)}") from error


def load_document(model: type[D], path: Path) -> D:
    """Loads a document of an extended model, as `load_policy_document` does."""
    try:
        text = plain_yaml.read_text(path)
    except YamlError as error:
        raise PolicyError(f"{path}: {error}") from error
    return parse_document(model, text, str(path))


def describe(error: ValidationError) -> str:
    """Returns the first error as a sentence that begins with the path of its field, such as policies[0].retry."""
    first: Any = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    path = shown_path(first["loc"])
    if isinstance(cause, ContradictionError):
        path = f"{path}.{cause.field}".lstrip(".")
    message = str(cause) if cause is not None else first["msg"]
    if first["type"] == "extra_forbidden":
        message = "is not a field that there is here"
    return f"{path or 'document'}: {message}"[:_LONGEST_PROBLEM]


def _at_most(part: PolicyPart, lower: str, upper: str) -> None:
    """Raises if the value of one field is above that of another."""
    low, high = getattr(part, lower), getattr(part, upper)
    if low > high:
        shown = [format_duration(each) if lower in _DURATIONS else str(each) for each in (low, high)]
        raise ContradictionError(to_camel(lower), f"{shown[0]} is above {to_camel(upper)} ({shown[1]})")


_DURATIONS = frozenset({"base_delay", "open", "attempt"})


def _distinct(field: str, key: str, names: list[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ContradictionError(
                f"{field}[{index}].{key}",
                f"{name!r} is there before, at {field}[{names.index(name)}]; only that is used",
            )
