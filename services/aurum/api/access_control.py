"""Authentication, authorization and rate limits of HTTP requests."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers

from aurum.runtime.errors import (
    RATE_LIMIT,
    MethodNotAllowedError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
)
from aurum.runtime.http.csrf import SAFE_METHODS, has_foreign_host, is_cross_site_write, is_same_origin
from aurum.runtime.settings import OPEN
from aurum.security import metrics
from aurum.security.api_keys import ApiKeys
from aurum.security.identity import EVERYBODY, Identity, Role
from aurum.security.permissions import PUBLIC, ROUTES, ROUTES_OF_WHOLE_PLANT, RequiredRole
from aurum.security.rate_limits import RateLimits
from aurum.security.sessions import COOKIE, Sessions
from aurum.security.tokens import TokenError, Tokens

NOBODY = Identity("anonymous", frozenset(), "open")
_NO_ROUTE = Role.SERVICE  # which no caller of the API has
_BEARER, _KEY = "bearer ", "x-api-key"


@dataclass(slots=True)
class AccessControl:
    """Decides which requests are admitted.

    Attributes:
        keys: API keys, if they are accepted.
        tokens: OIDC tokens, if they are accepted. Without keys and tokens, callers are not authenticated.
        sessions: Sessions of the console, if callers are authenticated.
        limits: Rate limits by identity, or by address if callers are not authenticated.
        routes: The role that each route requires.
        local: Whether to refuse requests with foreign host names if callers are not authenticated.
    """

    keys: ApiKeys | None
    tokens: Tokens | None
    sessions: Sessions | None
    limits: RateLimits | None
    routes: Mapping[tuple[str, str], RequiredRole]
    local: bool = False

    @classmethod
    def open(cls, limits: RateLimits | None = None, *, local: bool = False) -> "AccessControl":
        """Returns an access control that does not authenticate callers."""
        return cls(None, None, None, limits, ROUTES, local)

    @property
    def authenticates(self) -> bool:
        """Whether callers are authenticated."""
        return self.keys is not None or self.tokens is not None

    async def admit(self, method: str, template: str, headers: Headers, address: str) -> Identity:
        """Authenticates and authorizes a request, and returns the caller's identity.

        Args:
            method: The HTTP method.
            template: The template of the path, or "unmatched".
            headers: The request's headers.
            address: The client's address.

        Raises:
            UnauthenticatedError: The credentials are missing or wrong.
            PermissionDeniedError: The caller lacks the role or is bound to sites, or the request comes from another
                web site.
            MethodNotAllowedError: The path exists with other methods only.
            ResourceExhaustedError: The caller exceeds its rate, or the address sent too many wrong keys.
        """
        self._check_browser_origin(method, headers)
        identity = await self.identify(headers, method, address) if self.authenticates else EVERYBODY
        required = self._required_role(method, template)
        if required is not PUBLIC and not identity.has(required):
            if identity is NOBODY:
                raise UnauthenticatedError("authentication is required: send a bearer token or an API key, or sign in")
            metrics.auth_refused_total.labels("role").inc()
            raise PermissionDeniedError(
                f"{identity.user_id} lacks the required role {required.value}", metadata={"role": required.value}
            )
        if identity.sites and (_table_method(method), template) in ROUTES_OF_WHOLE_PLANT:
            metrics.auth_refused_total.labels("sites").inc()
            raise PermissionDeniedError(
                f"{identity.user_id} is bound to sites, but this route concerns the whole plant", reason="WHOLE_PLANT"
            )
        self._take_from_rate(identity, address)
        return identity

    def is_still_valid(self, identity: Identity) -> bool:
        """Returns whether the credentials of an identity have neither expired nor been revoked."""
        if identity.until <= time.time():
            return False
        return not identity.key_id or (
            self.keys is not None and self.keys.session_identity(identity.key_id) is not None
        )

    async def identify(self, headers: Headers, method: str, address: str) -> Identity:
        """Returns the identity by key, token or session cookie; NOBODY without any, or with an invalid session.

        Raises:
            UnauthenticatedError: The key or token is not valid.
            PermissionDeniedError: A browser with a session makes a change on behalf of another web site.
        """
        authorization = headers.get("authorization", "")
        key = headers.get(_KEY) or (
            authorization[len(_BEARER) :] if authorization.lower().startswith(f"{_BEARER}aurum_") else None
        )
        if key is not None:
            identity = await self.keys.identify(key, address) if self.keys else None
            return identity or self._refuse("key", "the API key is unknown, revoked or expired")
        if authorization:
            return await self._identify_by_token(authorization)
        cookie = _session_cookie(headers)
        if cookie is None or self.sessions is None:
            return NOBODY
        session = self.sessions.identify(cookie)
        if session is not None and session.key_id:
            session = self.keys.session_identity(session.key_id) if self.keys else None
        if session is None:
            return NOBODY  # the console then asks the user to sign in again
        if method not in SAFE_METHODS and not is_same_origin(headers):
            raise PermissionDeniedError(
                "cross-site requests of a signed-in browser must not make changes", reason="CROSS_SITE"
            )
        return session

    def _check_browser_origin(self, method: str, headers: Headers) -> None:
        """Refuses changes that a browser makes on behalf of another web site, and foreign host names if `local`."""
        if is_cross_site_write(method, headers):
            raise PermissionDeniedError("cross-site requests of a browser must not make changes", reason="CROSS_SITE")
        if self.local and not self.authenticates and has_foreign_host(headers):
            raise PermissionDeniedError(
                f"the Host header is not a name of this machine; AURUM_AUTH_OPEN={OPEN} accepts all names",
                reason="FOREIGN_NAME",
            )

    async def _identify_by_token(self, authorization: str) -> Identity:
        if self.tokens is None or not authorization.lower().startswith(_BEARER):
            return self._refuse("scheme", "this authorization scheme is not accepted; use Bearer")
        try:
            return await self.tokens.identify(authorization[len(_BEARER) :].strip())
        except TokenError as error:
            return self._refuse("token", str(error))

    def _required_role(self, method: str, template: str) -> RequiredRole:
        if template == "unmatched":
            return PUBLIC  # the answer is 404 anyway
        required = self.routes.get((_table_method(method), template), _NO_ROUTE)
        if required is _NO_ROUTE:
            allowed = sorted(method for method, path in self.routes if path == template)
            if not allowed:
                raise PermissionDeniedError(f"{template} is not accessible: the access table has no role for it")
            raise MethodNotAllowedError(method, allowed)
        return required

    def _take_from_rate(self, identity: Identity, address: str) -> None:
        if self.limits is None:
            return
        wait = self.limits.take(identity.user_id if identity.kind != "open" else address)
        if wait:
            metrics.auth_refused_total.labels("rate").inc()
            raise ResourceExhaustedError(
                "this identity exceeds its request rate (AURUM_API_RATE)", reason=RATE_LIMIT, retry_after=wait
            )

    @staticmethod
    def _refuse(reason: str, message: str) -> Identity:
        metrics.auth_refused_total.labels(reason).inc()
        raise UnauthenticatedError(message)


def _session_cookie(headers: Headers) -> str | None:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return cookie.value if cookie else None


def _table_method(method: str) -> str:
    """Returns the method under which the table of routes lists a request. HEAD and OPTIONS count as GET."""
    return "GET" if method in ("HEAD", "OPTIONS") else method
