"""HTTP calls to other services under the policies of their target. Deadline, trace and criticality are sent along."""

import functools
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import httpx
from opentelemetry.trace import SpanKind, Status, StatusCode

from aurum.resilience import ErrorClassifier, TimeoutConfig
from aurum.resilience.errors import code_of
from aurum.resilience.retry_after import http_date, retry_after_seconds
from aurum.resilience.status import code_of_http
from aurum.runtime.errors import AurumError, InternalError, UnavailableError, from_policy_error
from aurum.runtime.grpc.client import context_metadata
from aurum.runtime.policy.policies import Policies
from aurum.runtime.telemetry.tracing import get_tracer

logger = logging.getLogger(__name__)

TIMEOUT_HEADER = "X-Request-Timeout"  # seconds that the sender waits for the answer
_MAX_ANSWER = 4_000_000  # bytes
CONNECTIONS = 16
_UNAUTHORIZED = 401


def _code(error: BaseException) -> str:
    match error:
        case httpx.HTTPStatusError():
            return code_of_http(error.response.status_code)
        case httpx.TimeoutException():
            return "DEADLINE_EXCEEDED"
        case httpx.TransportError():
            return "UNAVAILABLE"
    return code_of(error)


def _retry_after(error: BaseException) -> float | None:
    """Seconds that the server asks to wait (Retry-After). A date is relative to the Date of the response."""
    if not isinstance(error, httpx.HTTPStatusError):
        return None
    headers = error.response.headers
    answered = http_date(headers.get("Date", ""))
    return retry_after_seconds(headers.get("Retry-After", ""), time.time() if answered is None else answered)


HTTP_ERRORS = ErrorClassifier(_code, _retry_after)


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Returns the shared TLS context. Loading the certificate authorities takes 25 ms and 1 MB."""
    return httpx.create_ssl_context(trust_env=False)


class HttpDependency:
    """A service that is called over HTTP. Redirects are not followed.

    Args:
        client: Name of this service.
        server: Name of the called service.
        address: host:port, or the beginning of a URL. Calls may name the address of another instance.
        policies: Policies of the process.
        connections: Most connections that are open at a time.
        headers: Headers of each call, such as a key. They are never logged.
        authorizations: Returns the values of the Authorization header, called for each attempt. If the server answers
            the first one with 401, the next one is sent, since the server may know other tokens at the moment.
    """

    def __init__(
        self,
        client: str,
        server: str,
        address: str,
        policies: Policies,
        *,
        connections: int = CONNECTIONS,
        headers: Mapping[str, str] | None = None,
        authorizations: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self.client = client
        self.server = server
        self.address = address
        self._policies = policies
        self._headers = dict(headers or {})
        self._authorizations = authorizations
        self._http = httpx.AsyncClient(
            verify=_tls_context(),
            trust_env=False,
            limits=httpx.Limits(max_connections=connections, keepalive_expiry=60),
        )

    async def get_json(self, path: str, params: Mapping[str, str] | None = None, *, at: str | None = None) -> Any:
        """Returns the decoded response to GET. at: Address of another instance. Raises AurumError."""
        return await self._request("GET", path, params=params, at=at)

    async def post_json(self, path: str, content: Any, *, at: str | None = None) -> Any:
        """Returns the decoded response to POST, which is never retried. Raises AurumError."""
        return await self._request("POST", path, content=content, at=at)

    async def delete_json(self, path: str, *, at: str | None = None) -> Any:
        """Returns the decoded response to DELETE. Raises AurumError."""
        return await self._request("DELETE", path, at=at)

    async def _request(
        self,
        method: Literal["GET", "POST", "DELETE"],
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: Any = None,
        at: str | None = None,
    ) -> Any:
        address = at or self.address
        pipeline = self._policies.pipeline(self.client, self.server, method, HTTP_ERRORS)
        spec = pipeline.policy.timeout
        timeouts = TimeoutConfig(spec.connect, spec.read, spec.write, spec.pool, spec.db)

        async def attempt(timeout: float) -> httpx.Response:
            with get_tracer("aurum.http").start_as_current_span(
                f"{method} {path}",
                kind=SpanKind.CLIENT,
                attributes={
                    "peer.service": self.server,
                    "http.request.method": method,
                    "url.path": path,
                    "server.address": address,
                },
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    request = self._http.build_request(
                        method,
                        f"{address if '://' in address else f'http://{address}'}{path}",
                        params=params,
                        json=content,
                        headers={**context_metadata(), TIMEOUT_HEADER: f"{timeout:.3f}", **self._headers},
                        timeout=timeouts.within(timeout).to_httpx(),
                    )
                    response = await self._send(request)
                    span.set_attribute("http.response.status_code", response.status_code)
                    response.raise_for_status()
                except httpx.HTTPError as error:
                    span.set_status(Status(StatusCode.ERROR, str(error) or type(error).__name__))
                    raise
                return response

        started = time.monotonic()
        try:
            response = await pipeline.call_async(
                attempt, idempotent=method != "POST", target=f"{self.client}/{self.server}/{method}"
            )
            if len(response.content) > _MAX_ANSWER:
                raise InternalError(f"{self.server} answered with more than {_MAX_ANSWER} bytes")
            return response.json()
        except httpx.HTTPError as error:
            problem = str(error) or f"{type(error).__name__} after {time.monotonic() - started:.1f} s"
            raise UnavailableError(f"{self.server} at {address} does not answer: {problem}") from error
        except ValueError as error:
            raise InternalError(f"{self.server} at {address} did not answer with JSON") from error
        except AurumError:
            raise
        except Exception as error:
            translated = from_policy_error(error)
            if translated is None:
                logger.exception("%s at %s could not be asked", self.server, address)
                translated = InternalError(f"{self.server} at {address} could not be asked; the log says more")
            raise translated from error

    async def _send(self, request: httpx.Request) -> httpx.Response:
        """Sends a request, once with each of the authorizations until the server accepts one."""
        authorizations = self._authorizations() if self._authorizations else ()
        for authorization in authorizations[:-1]:
            request.headers["Authorization"] = authorization
            response = await self._http.send(request)
            if response.status_code != _UNAUTHORIZED:
                return response
        if authorizations:
            request.headers["Authorization"] = authorizations[-1]
        return await self._http.send(request)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()
