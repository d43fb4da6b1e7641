"""Maps all errors to HTTP responses in the format problem+json (RFC 9457) with the trace id."""

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import grpc
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from aurum.readings.tables import TableError
from aurum.runtime import metrics
from aurum.runtime.errors import AurumError, MethodNotAllowedError
from aurum.runtime.tracing import current_trace_id

logger = logging.getLogger(__name__)

_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 422,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INTERNAL: 500,
}
_RETRY_AFTER = 1  # seconds, if the error names none
_SHOWN = 20  # wrong fields in one answer
_NAME = 200  # characters of the name of a wrong field


class ProblemOut(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    trace_id: str
    errors: list[dict[str, Any]] = Field([], description="The wrong fields, each with field, row and detail.")


_PROBLEM = {"content": {"application/problem+json": {"schema": ProblemOut.model_json_schema()}}}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "What is wrong with the request, or with who sends it.", **_PROBLEM},
    "5XX": {"description": "What the platform cannot do at the moment, or not here.", **_PROBLEM},
}


class BodyTooLargeError(HTTPException):
    """A request's body is larger than allowed."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body is larger than {limit} bytes, which is the limit here")


def problem(
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    errors: Sequence[dict[str, Any]] = (),
    retry_after: float | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """Returns a problem response.

    Args:
        status: The HTTP status.
        detail: What is wrong, as a sentence.
        kind: The last part of the problem's type; by default from the status.
        errors: The wrong fields, each with field, row and detail.
        retry_after: Seconds after which the client may retry.
        headers: Further headers.
    """
    title = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Client Closed Request"
    content: dict[str, Any] = {
        "type": f"urn:aurumai:problem:{kind or title.lower().replace(' ', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "trace_id": current_trace_id(),
    }
    if errors:
        content["errors"] = list(errors)[:_SHOWN]
    headers = dict(headers or {})
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="AurumAI"'
    if status in (429, 503):
        headers["Retry-After"] = str(max(1, round(retry_after or _RETRY_AFTER)))
    return JSONResponse(content, status_code=status, headers=headers, media_type="application/problem+json")


def of_error(error: AurumError) -> JSONResponse:
    """Counts an error of the domain and returns it as a problem response."""
    metrics.track_error(error.reason)
    status = 405 if isinstance(error, MethodNotAllowedError) else _STATUS.get(error.code, 500)
    response = problem(
        status,
        error.message,
        kind=error.reason.lower().replace("_", "-"),
        errors=[{"field": each.field, "detail": each.description} for each in error.violations],
        retry_after=error.retry_after,
    )
    if isinstance(error, MethodNotAllowedError):
        response.headers["Allow"] = ", ".join(error.allowed)
    return response


def install(app: FastAPI) -> None:
    """Installs handlers that answer every error of an application with a problem response."""

    @app.exception_handler(AurumError)
    async def domain(request: Request, error: AurumError) -> JSONResponse:
        return of_error(error)

    @app.exception_handler(TableError)
    async def table(request: Request, error: TableError) -> JSONResponse:
        metrics.track_error("INVALID_READINGS")
        return problem(
            422,
            str(error),
            kind="invalid-readings",
            errors=[{"field": error.column or "row", "row": error.row, "detail": error.description}],
        )

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> JSONResponse:
        metrics.track_error("INVALID_ARGUMENT")
        errors = [
            {"field": ".".join(str(part) for part in each["loc"])[:_NAME], "detail": each["msg"]}
            for each in error.errors()[:_SHOWN]
        ]
        first = errors[0] if errors else {"field": "request", "detail": "is not valid"}
        return problem(422, f"{first['field']}: {first['detail']}", kind="invalid-argument", errors=errors)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        detail = error.detail
        if error.status_code == 404 and detail == "Not Found":
            detail = f"there is nothing at {request.url.path}; /docs lists what there is"
        return problem(error.status_code, detail, headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        metrics.track_error(type(error).__name__)
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(500, "something went wrong in the API; its log says more, by the trace_id")
