"""At the API's door: who it is, whether that may be asked, and whether it is asked too often."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers

from aurum.runtime import metrics
from aurum.runtime.errors import (
    RATE_LIMIT,
    MethodNotAllowedError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
)
from aurum.runtime.exposure import SAFE_METHODS, changes_for_elsewhere, from_ourselves, under_foreign_name
from aurum.runtime.settings import OPEN
from aurum.security.access import PUBLIC, ROUTES, ROUTES_OF_WHOLE_PLANT, Wanted
from aurum.security.api_keys import ApiKeys
from aurum.security.identity import EVERYBODY, Identity, Role
from aurum.security.rate_limits import RateLimits
from aurum.security.sessions import COOKIE, Sessions
from aurum.security.tokens import TokenError, Tokens

NOBODY = Identity("anonymous", frozenset(), "open")
_NO_ROUTE = Role.SERVICE  # which nobody who calls the API has
_BEARER, _KEY = "bearer ", "x-api-key"


@dataclass(slots=True)
class Gatekeeper:
    """keys, tokens, sessions: what is taken for proof; none of them where everybody may do all. limits: of requests by
    identity. local: whether only this machine is to be heard, where everybody may do all."""

    keys: ApiKeys | None
    tokens: Tokens | None
    sessions: Sessions | None
    limits: RateLimits | None
    routes: Mapping[tuple[str, str], Wanted]
    local: bool = False

    @classmethod
    def open(cls, limits: RateLimits | None = None, *, local: bool = False) -> "Gatekeeper":
        """For where nobody is asked who they are."""
        return cls(None, None, None, limits, ROUTES, local)

    @property
    def asks(self) -> bool:
        return self.keys is not None or self.tokens is not None

    async def admit(self, method: str, template: str, headers: Headers, address: str) -> Identity:
        """Raises UnauthenticatedError, PermissionDeniedError, ResourceExhaustedError."""
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
        """Whether what has proved an identity holds now."""
        if identity.until <= time.time():
            return False
        return not identity.key_id or (self.keys is not None and self.keys.still(identity.key_id) is not None)

    async def identify(self, headers: Headers, method: str, address: str) -> Identity:
        """Who it is; NOBODY if nothing is said. Raises UnauthenticatedError if what is said is wrong."""
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
            found = self.keys.still(found.key_id) if self.keys else None
        if found is None:
            return NOBODY  # over: the console asks to sign in again
        if method not in SAFE_METHODS and not from_ourselves(headers):
            raise PermissionDeniedError("a signed-in browser changes nothing for another site", reason="CROSS_SITE")
        return found

    def _refuse_other_sites(self, method: str, headers: Headers) -> None:
        """A browser that has a page of somebody else's open neither signs in here for it, nor acts where all may."""
        if changes_for_elsewhere(method, headers):
            raise PermissionDeniedError("a browser changes nothing here for another site", reason="CROSS_SITE")
        if self.local and not self.asks and under_foreign_name(headers):
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

    def _wanted(self, method: str, template: str) -> Wanted:
        if template == "unmatched":
            return PUBLIC  # there is nothing to be seen
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
    """By which the table knows a request's method."""
    return "GET" if method in ("HEAD", "OPTIONS") else method
