"""Maps all errors to HTTP responses in the format problem+json (RFC 9457) with the trace id."""

import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from aurum.readings.tables import TableError
from aurum.resilience.status import http_status
from aurum.runtime import metrics
from aurum.runtime.errors import AurumError, FieldViolation, MethodNotAllowedError
from aurum.runtime.telemetry.tracing import current_trace_id

logger = logging.getLogger(__name__)

_RETRY_AFTER = 1  # seconds, if the error names none
_MAX_ERRORS = 20  # invalid fields in one answer
_MAX_FIELD_NAME = 200  # characters of the name of an invalid field
_MAX_PARAMETER = 200  # characters of a value in the text of an invalid field


class ProblemOut(BaseModel):
    """A problem by RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    trace_id: str
    errors: list[dict[str, Any]] = Field(
        [],
        description="The invalid fields, each with field, row, detail and, for texts of the client's own, code and "
        "parameters.",
    )
    parameters: dict[str, str] = Field({}, description="The values in the detail, for texts of the client's own.")


_PROBLEM = {"content": {"application/problem+json": {"schema": ProblemOut.model_json_schema()}}}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request is invalid, or the caller may not make it.", **_PROBLEM},
    "5XX": {
        "description": "The platform cannot handle the request at the moment, or not in this installation.",
        **_PROBLEM,
    },
}


class BodyTooLargeError(HTTPException):
    """A request's body is larger than allowed."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body exceeds {limit} bytes, the limit of this route")


def problem_response(
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    errors: Sequence[dict[str, Any]] = (),
    parameters: Mapping[str, str] | None = None,
    retry_after: float | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """Returns a problem response.

    Args:
        status: The HTTP status.
        detail: What is wrong, as a sentence.
        kind: The last part of the problem's type; by default from the status.
        errors: The invalid fields, each with field, row, detail, code and parameters.
        parameters: The values in the detail, for texts of the client's own.
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
        content["errors"] = list(errors)[:_MAX_ERRORS]
    if parameters:
        content["parameters"] = dict(parameters)
    headers = dict(headers or {})
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="AurumAI"'
    if status in (429, 503):
        headers["Retry-After"] = str(max(1, round(retry_after or _RETRY_AFTER)))
    return JSONResponse(content, status_code=status, headers=headers, media_type="application/problem+json")


def error_response(error: AurumError) -> JSONResponse:
    """Counts an error of the domain and returns it as a problem response."""
    metrics.track_error(error.reason)
    status = 405 if isinstance(error, MethodNotAllowedError) else http_status(error.code.name)
    response = problem_response(
        status,
        error.message,
        kind=error.reason.lower().replace("_", "-"),
        errors=[_field_problem(violation) for violation in error.violations],
        parameters=error.metadata,
        retry_after=error.retry_after,
    )
    if isinstance(error, MethodNotAllowedError):
        response.headers["Allow"] = ", ".join(error.allowed)
    return response


def parameters_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the values in the text of an invalid field, as texts; those that are no text or number are left out."""
    return {name: str(value)[:_MAX_PARAMETER] for name, value in values.items() if isinstance(value, str | int | float)}


def _field_problem(violation: FieldViolation) -> dict[str, Any]:
    coded = _coded(violation.code, violation.parameters) if violation.code else {}
    return {"field": violation.field, "detail": violation.description, **coded}


def _coded(code: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    return {"code": code, **({"parameters": dict(parameters)} if parameters else {})}


def _is_for_a_page(request: Request) -> bool:
    """Whether a browser asks for a page, rather than a program for something of the API."""
    wanted = request.headers.get("accept", "")
    return request.method in ("GET", "HEAD") and "text/html" in wanted and not request.url.path.startswith("/api/")


def install(app: FastAPI, not_found_page: Callable[[Request], Response]) -> None:
    """Installs handlers that answer every error of an application with a problem response."""

    @app.exception_handler(AurumError)
    async def domain(request: Request, error: AurumError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(TableError)
    async def table(request: Request, error: TableError) -> JSONResponse:
        metrics.track_error("INVALID_READINGS")
        return problem_response(
            422,
            str(error),
            kind="invalid-readings",
            errors=[
                {"field": each.column or "row", "row": each.row, "detail": each.description}
                for each in (error, *error.others)
            ],
        )

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> JSONResponse:
        metrics.track_error("INVALID_ARGUMENT")
        errors = [
            {
                "field": ".".join(str(part) for part in mistake["loc"])[:_MAX_FIELD_NAME],
                "detail": mistake["msg"],
                **_coded(mistake["type"], parameters_of(mistake.get("ctx", {}))),
            }
            for mistake in error.errors()[:_MAX_ERRORS]
        ]
        first = errors[0] if errors else {"field": "request", "detail": "is not valid"}
        return problem_response(422, f"{first['field']}: {first['detail']}", kind="invalid-argument", errors=errors)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        detail = error.detail
        if error.status_code == 404 and detail == "Not Found":
            if _is_for_a_page(request):
                return not_found_page(request)
            detail = f"there is no route {request.url.path}; /docs lists the routes"
        return problem_response(error.status_code, detail, headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        metrics.track_error(type(error).__name__)
        logger.error(
            "%s %s failed unexpectedly and was answered with 500", request.method, request.url.path, exc_info=error
        )
        return problem_response(500, "internal error; search the log of the API for the trace_id")
