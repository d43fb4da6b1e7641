"""The errors of the domain and their gRPC form: a status code with google.rpc details, in both directions."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from aurum.resilience import CircuitBreakerError, DeadlineExceededError, LimitExceededError
from aurum.resilience.errors import CIRCUIT_OPEN
from aurum.resilience.status import NOT_SERVED

DOMAIN = "aurumai.io"
DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_REUSED = "REQUEST_ID_REUSED"  # reason of ALREADY_EXISTS if a request id was used with other content

# Errors are sent in headers and may quote what the caller sent. gRPC refuses headers of more than 8 KiB at random. An
# error has three such texts, and its message has up to three times as many bytes in percent-encoding
_MAX_TEXT_BYTES = 1000  # of a text of an error


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """An invalid field.

    Attributes:
        field: Its path, such as batch.series[3].values[5].
        description: The problem.
        code: Stable name of the problem for programs of this process; gRPC does not carry it. Empty if it has none.
        parameters: The values in the description.
    """

    field: str
    description: str
    code: str = ""
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)


class AurumError(Exception):
    """An error that a caller can act on.

    Attributes:
        message: One sentence.
        reason: Stable name for programs.
        violations: The invalid fields, if any.
        metadata: Further details for programs.
        retry_after: Seconds after which another attempt makes sense, or None.
    """

    code = grpc.StatusCode.INTERNAL
    default_reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        violations: Sequence[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.message = _shortened(message)
        super().__init__(self.message)
        self.reason = reason or self.default_reason
        self.violations = tuple(
            dataclasses.replace(each, field=_shortened(each.field), description=_shortened(each.description))
            for each in violations
        )
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after


def _shortened(text: str) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= _MAX_TEXT_BYTES:
        return text
    return f"{encoded[:_MAX_TEXT_BYTES].decode(errors='ignore')}…"


class InvalidArgumentError(AurumError):
    """The request is invalid."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "INVALID_ARGUMENT"

    @classmethod
    def for_field(cls, field: str, description: str, **metadata: str) -> "InvalidArgumentError":
        """Creates the error for one invalid field."""
        return cls(f"{field}: {description}", violations=[FieldViolation(field, description)], metadata=metadata)


class NotFoundError(AurumError):
    """The requested object does not exist."""

    code = grpc.StatusCode.NOT_FOUND
    default_reason = "NOT_FOUND"


class UnauthenticatedError(AurumError):
    """The caller has not proved its identity."""

    code = grpc.StatusCode.UNAUTHENTICATED
    default_reason = "UNAUTHENTICATED"


class PermissionDeniedError(AurumError):
    """The caller is not allowed to do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    default_reason = "PERMISSION_DENIED"


class AlreadyExistsError(AurumError):
    """The object exists already, with other content."""

    code = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "ALREADY_EXISTS"


class FailedPreconditionError(AurumError):
    """The state of the system does not allow the request."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "FAILED_PRECONDITION"


class ResourceExhaustedError(AurumError):
    """A limit or quota is exhausted."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "RESOURCE_EXHAUSTED"


class UnavailableError(AurumError):
    """The service cannot answer at present. Another attempt may succeed."""

    code = grpc.StatusCode.UNAVAILABLE
    default_reason = "UNAVAILABLE"


class DeadlineError(AurumError):
    """The deadline passed before the call ended."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"


class UnimplementedError(AurumError):
    """The method is not supported."""

    code = grpc.StatusCode.UNIMPLEMENTED
    default_reason = "UNIMPLEMENTED"


class MethodNotAllowedError(UnimplementedError):
    """Raised for an HTTP path that does not support the method. allowed: The supported methods."""

    default_reason = "METHOD_NOT_ALLOWED"

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{method[:20]} is not answered here; use {', '.join(allowed)}")
        self.allowed = tuple(allowed)


class CancelledCallError(AurumError):
    """The call was cancelled."""

    code = grpc.StatusCode.CANCELLED
    default_reason = "CANCELLED"


class InternalError(AurumError):
    """An unexpected error. Its message reveals no details."""


_BY_CODE: dict[grpc.StatusCode, type[AurumError]] = {
    kind.code: kind
    for kind in (
        InvalidArgumentError,
        NotFoundError,
        UnauthenticatedError,
        PermissionDeniedError,
        AlreadyExistsError,
        FailedPreconditionError,
        ResourceExhaustedError,
        UnavailableError,
        DeadlineError,
        UnimplementedError,
        CancelledCallError,
        InternalError,
    )
}

# The service could not do its work; every other error is a regular answer
FAILURES = tuple(kind for kind in _BY_CODE.values() if kind.code.name in NOT_SERVED)

CONCURRENCY_LIMIT = "CONCURRENCY_LIMIT"
RATE_LIMIT = "RATE_LIMIT"
STREAM_LIMIT = "STREAM_LIMIT"
# Refusals beyond a caller's own share; they are no sign of overload
OWN_SHARE = frozenset({RATE_LIMIT, STREAM_LIMIT})
_TRY_AGAIN = 0.1  # seconds after which a place may be free again


def from_policy_error(error: BaseException) -> AurumError | None:
    """Converts the refusal of one of our own policies to the error for callers. Returns None for other errors."""
    match error:
        case CircuitBreakerError():
            wait = getattr(error, "retry_after", None)
            return UnavailableError(str(error), reason=CIRCUIT_OPEN, retry_after=wait or None)
        case LimitExceededError():
            return ResourceExhaustedError(str(error), reason=CONCURRENCY_LIMIT, retry_after=_TRY_AGAIN)
        case DeadlineExceededError():
            return DeadlineError(str(error))
    return None


def to_status(error: AurumError) -> status_pb2.Status:
    """Converts the error to google.rpc.Status with ErrorInfo and, where they apply, BadRequest and RetryInfo."""
    details: list[Any] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata),
    ]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=each.field, description=each.description)
                    for each in error.violations
                ]
            )
        )
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        any_message = any_pb2.Any()
        any_message.Pack(detail)
        packed.append(any_message)
    return status_pb2.Status(code=error.code.value[0], message=error.message, details=packed)


def _details(error: grpc.aio.AioRpcError) -> Sequence[any_pb2.Any]:
    """Returns the details of an error, or none if they belong to another status.

    That happens when a call ended locally while the server's error arrived.
    """
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except (DecodeError, ValueError):
        return ()
    return status.details if status else ()


def from_rpc_error(error: grpc.aio.AioRpcError) -> AurumError:
    """Returns the error that the server raised."""
    kind = _BY_CODE.get(error.code(), InternalError)
    reason: str | None = None
    metadata: dict[str, str] = {}
    violations: list[FieldViolation] = []
    retry_after: float | None = None
    for detail in _details(error):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations = [FieldViolation(each.field, each.description) for each in bad.field_violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after = retry.retry_delay.ToMilliseconds() / 1000
    return kind(
        error.details() or error.code().name,
        reason=reason,
        violations=violations,
        metadata=metadata,
        retry_after=retry_after,
    )
