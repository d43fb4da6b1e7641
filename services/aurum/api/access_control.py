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
_NO_ROUTE = Role.SERVICE  # no caller of the API has this role
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
        local: Whether to refuse requests under foreign host names if callers are not authenticated.
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
    def asks(self) -> bool:
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
        self._refuse_other_sites(method, headers)
        identity = await self.identify(headers, method, address) if self.asks else EVERYBODY
        wanted = self._wanted(method, template)
        if wanted is not PUBLIC and not identity.has(wanted):
            if identity is NOBODY:
                raise UnauthenticatedError("say who you are: with a bearer token, an API key, or by signing in")
            metrics.auth_refused_total.labels("role").inc()
            raise PermissionDeniedError(
                f"{identity.user_id} lacks the role {wanted.value} for this", metadata={"role": wanted.value}
            )
        if identity.sites and (_method(method), template) in ROUTES_OF_WHOLE_PLANT:
            metrics.auth_refused_total.labels("sites").inc()
            raise PermissionDeniedError(
                f"{identity.user_id} is bound to sites, and this is of the plant as a whole", reason="WHOLE_PLANT"
            )
        self._limit(identity, address)
        return identity

    def still(self, identity: Identity) -> bool:
        """Whether the proof of an identity is still valid."""
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
        stated = headers.get("authorization", "")
        key = headers.get(_KEY) or (stated[len(_BEARER) :] if stated.lower().startswith(f"{_BEARER}aurum_") else None)
        if key is not None:
            found = await self.keys.identify(key, address) if self.keys else None
            return found or self._refuse("key", "the API key is not known, was revoked or has expired")
        if stated:
            return await self._token(stated)
        cookie = _session_cookie(headers)
        if cookie is None or self.sessions is None:
            return NOBODY
        found = self.sessions.identify(cookie)
        if found is not None and found.key_id:
            found = self.keys.session_identity(found.key_id) if self.keys else None
        if found is None:
            return NOBODY  # the console then asks the user to sign in again
        if method not in SAFE_METHODS and not is_same_origin(headers):
            raise PermissionDeniedError("a signed-in browser changes nothing for another site", reason="CROSS_SITE")
        return found

    def _refuse_other_sites(self, method: str, headers: Headers) -> None:
        """Refuses changes that a browser makes on behalf of another web site, and foreign host names if `local`."""
        if is_cross_site_write(method, headers):
            raise PermissionDeniedError("a browser changes nothing here for another site", reason="CROSS_SITE")
        if self.local and not self.asks and has_foreign_host(headers):
            raise PermissionDeniedError(
                f"this machine is asked under a name that is not its own; AURUM_AUTH_OPEN={OPEN} lets all names in",
                reason="FOREIGN_NAME",
            )

    async def _token(self, stated: str) -> Identity:
        if self.tokens is None or not stated.lower().startswith(_BEARER):
            return self._refuse("scheme", "this authorization scheme is not accepted here")
        try:
            return await self.tokens.identify(stated[len(_BEARER) :].strip())
        except TokenError as error:
            return self._refuse("token", str(error))

    def _wanted(self, method: str, template: str) -> RequiredRole:
        if template == "unmatched":
            return PUBLIC  # the answer is 404 anyway
        wanted = self.routes.get((_method(method), template), _NO_ROUTE)
        if wanted is _NO_ROUTE:
            allowed = sorted(known for known, other in self.routes if other == template)
            if not allowed:
                raise PermissionDeniedError(f"{template} is closed: no role is known to open it")
            raise MethodNotAllowedError(method, allowed)
        return wanted

    def _limit(self, identity: Identity, address: str) -> None:
        if self.limits is None:
            return
        wait = self.limits.take(identity.user_id if identity.kind != "open" else address)
        if wait:
            metrics.auth_refused_total.labels("rate").inc()
            raise ResourceExhaustedError(
                "too many requests at once from this identity (AURUM_API_RATE)", reason=RATE_LIMIT, retry_after=wait
            )

    @staticmethod
    def _refuse(why: str, sentence: str) -> Identity:
        metrics.auth_refused_total.labels(why).inc()
        raise UnauthenticatedError(sentence)


def _session_cookie(headers: Headers) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return found.value if found else None


def _method(method: str) -> str:
    """Returns the method under which the table of routes lists a request. HEAD and OPTIONS count as GET."""
    return "GET" if method in ("HEAD", "OPTIONS") else method
