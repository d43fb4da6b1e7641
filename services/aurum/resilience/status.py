"""The status codes of calls and their meaning, for spans, metrics, alerts, policies, rollout guards and HTTP answers.

The codes are those of gRPC. Answers over HTTP have the meaning of the code that they stand for. This package imports no
other, so the table is here, where the policies need it and all other packages can import it.
"""

from dataclasses import dataclass
from typing import Literal

Code = Literal[
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]
"""The status codes of gRPC except OK."""

Cause = Literal["server", "overload", "caller", "cancellation"]
"""Why a call was not answered: a fault of the server, a refusal for lack of capacity or beyond a limit, a request that
the server rightly rejects, or a caller that gave up."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """The meaning of a code.

    Attributes:
        cause: Why the call was not answered.
        http: Status of an answer over HTTP that stands for the code.
    """

    cause: Cause
    http: int


MEANINGS: dict[Code, Meaning] = {
    # The six errors of servers in OpenTelemetry's semantic conventions for gRPC
    "UNAVAILABLE": Meaning("server", 503),
    "DEADLINE_EXCEEDED": Meaning("server", 504),
    "INTERNAL": Meaning("server", 500),
    "UNKNOWN": Meaning("server", 500),
    "DATA_LOSS": Meaning("server", 500),
    "UNIMPLEMENTED": Meaning("server", 501),
    "RESOURCE_EXHAUSTED": Meaning("overload", 429),
    "CANCELLED": Meaning("cancellation", 499),
    "INVALID_ARGUMENT": Meaning("caller", 422),
    "OUT_OF_RANGE": Meaning("caller", 422),
    "UNAUTHENTICATED": Meaning("caller", 401),
    "PERMISSION_DENIED": Meaning("caller", 403),
    "NOT_FOUND": Meaning("caller", 404),
    "ALREADY_EXISTS": Meaning("caller", 409),
    "FAILED_PRECONDITION": Meaning("caller", 409),
    "ABORTED": Meaning("caller", 409),
}


def _caused_by(*causes: Cause) -> tuple[Code, ...]:
    return tuple(code for code, meaning in MEANINGS.items() if meaning.cause in causes)


SERVER_FAULTS = _caused_by("server")
"""Server errors, in spans, dashboards, alerts and the console. A declared refusal is none."""

NOT_SERVED = _caused_by("server", "overload")
"""The service could not do its work. Fallbacks replace these answers, and the guards of rollouts count them."""

OUTAGES = tuple(code for code in SERVER_FAULTS if code != "UNIMPLEMENTED")
"""What a circuit breaker counts by default. A missing method says nothing about the other methods of its target."""

TRANSIENT: tuple[Code, ...] = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "DEADLINE_EXCEEDED")
"""What another attempt may change, and what is retried by default."""

OVERLOAD_OF_TARGET: frozenset[str] = frozenset({"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"})
"""Signs that the called service is overloaded, for the adaptive limits of its callers."""

OVERLOAD_OF_SELF: frozenset[str] = frozenset({"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED"})
"""Signs that a server is overloaded itself, for its adaptive limit. UNAVAILABLE is none: it tells of what the server
depends on."""

HTTP_SERVER_FAULTS = range(500, 600)
"""The statuses of server errors over HTTP."""

_HTTP: dict[str, int] = {code: meaning.http for code, meaning in MEANINGS.items()}
_BY_HTTP: dict[int, Code] = {
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",  # by a proxy that does not reach the server
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def http_status(code: str) -> int:
    """Returns the HTTP status of an answer that stands for the code."""
    return _HTTP[code]


def code_of_http(status: int) -> Code:
    """Returns the code that an HTTP status other than success stands for.

    It is INTERNAL for the other server errors, and FAILED_PRECONDITION for what another attempt does not change.
    """
    return _BY_HTTP.get(status, "INTERNAL" if status in HTTP_SERVER_FAULTS else "FAILED_PRECONDITION")
