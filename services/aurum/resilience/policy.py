"""The policy document: which policies govern which calls. One source for the file that people edit and for /policy."""

import fnmatch
import hashlib
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class PolicyError(ValueError):
    """A policy document that cannot be used; the message names the field."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RetrySpec(_Part):
    """When a call is tried again."""

    max_attempts: int = Field(3, ge=1, le=10, description="Calls in all, the first one included.")
    base_delay_seconds: float = Field(0.1, ge=0, le=60, description="Bound of the first backoff; it doubles each time.")
    max_delay_seconds: float = Field(2.0, ge=0, le=300, description="Largest bound of a backoff.")
    budget_ratio: float = Field(0.2, ge=0, le=1, description="Retries allowed per call, over all calls.")
    budget_floor_per_second: float = Field(1.0, ge=0, le=1000, description="Retries per second allowed in any case.")

    @model_validator(mode="after")
    def _delays_in_order(self) -> "RetrySpec":
        if self.base_delay_seconds > self.max_delay_seconds:
            raise ValueError(
                f"base_delay_seconds ({self.base_delay_seconds}) is above max_delay_seconds ({self.max_delay_seconds})"
            )
        return self


class CircuitBreakerSpec(_Part):
    """When calls to a dependency are refused."""

    enabled: bool = Field(True, description="False lets every call through.")
    fail_max: int = Field(5, ge=1, le=10_000, description="Failures in a row that open it.")
    open_seconds: float = Field(10.0, ge=0, le=3600, description="How long it stays open.")
    half_open_probes: int = Field(1, ge=1, le=100, description="Calls let through at a time when half-open.")


class TimeoutSpec(_Part):
    """How long a call may take."""

    attempt_seconds: float = Field(2.0, gt=0, le=600, description="One attempt.")
    deadline_seconds: float = Field(5.0, gt=0, le=600, description="All attempts and the waits between them.")

    @model_validator(mode="after")
    def _attempt_within_deadline(self) -> "TimeoutSpec":
        if self.attempt_seconds > self.deadline_seconds:
            raise ValueError(
                f"attempt_seconds ({self.attempt_seconds}) is above deadline_seconds ({self.deadline_seconds})"
            )
        return self


class Policy(_Part):
    """The policies of the calls to one target."""

    target: str = Field(
        description="`client/server/Method`; each part may be a shell pattern, such as `api/prediction/*`."
    )
    retry: RetrySpec = Field(default_factory=RetrySpec)
    circuit_breaker: CircuitBreakerSpec = Field(default_factory=CircuitBreakerSpec)
    timeout: TimeoutSpec = Field(default_factory=TimeoutSpec)

    @model_validator(mode="after")
    def _target_has_three_parts(self) -> "Policy":
        if self.target.count("/") != 2:
            raise ValueError(f"target {self.target!r} is not client/server/Method")
        return self


class PolicyDocument(_Part):
    """All policies of a system. The first policy whose target matches a call governs it."""

    uid: str = Field("built-in", description="Identity of the document.")
    generation: int = Field(0, ge=0, description="Grows with each change; 0 for the built-in defaults.")
    policies: tuple[Policy, ...] = ()
    default: Policy = Field(default_factory=lambda: Policy(target="*/*/*"), description="For calls that none matches.")

    def for_call(self, client: str, server: str, method: str) -> Policy:
        """The policy of a call."""
        name = f"{client}/{server}/{method}"
        return next((policy for policy in self.policies if fnmatch.fnmatchcase(name, policy.target)), self.default)

    @property
    def content_hash(self) -> str:
        """Identifies the content, whatever the layout of the file that it came from."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def load_policy_document(path: Path) -> PolicyDocument:
    """Reads a YAML policy document. Raises PolicyError that names the file and the field."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return PolicyDocument.model_validate(content or {})
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise PolicyError(f"{path}: is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        raise PolicyError(f"{path}: {field}: {first['msg']}") from error
