"""OIDC bearer tokens: JWTs of a configured issuer (RFC 7519, RFC 9068), verified with the keys of its JWKS (RFC 7517).

Only asymmetric algorithms are accepted, so that nobody can sign with a public key. `kid` selects one of the issuer's
keys; a key in the token itself is never used. The claims for issuer, audience and times are required.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from aurum.runtime.telemetry.logging import MAX_USER
from aurum.security.identity import ASSIGNABLE, KEY_USER_PREFIX, Identity, Role

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LONGEST_TOKEN = 16_384  # characters
_LONGEST_KID = 256
_LEEWAY = 30  # seconds by which clocks may differ
_FRESH = 600.0  # seconds for which a key set is used
_AGAIN_AFTER = 10.0  # least seconds between two requests for the key set, also if tokens name unknown keys
_MOST_KEYS = 50
_LAST_SECOND = 253_402_300_799  # end of the year 9999
_UNREADABLE = (ValueError, TypeError, OverflowError, RecursionError, AttributeError)


class TokenError(Exception):
    """A token is not accepted. The message says why and does not contain the token."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """An OIDC issuer, and how its tokens are read.

    Attributes:
        issuer: The required `iss` claim.
        audience: The required `aud` claim.
        roles_claim: Path of the claim with the roles, with dots between levels, such as realm_access.roles.
        sites_claim: Path of the claim with the sites, likewise.
        role_of: The role here for each of the issuer's role names that differ.
    """

    issuer: str
    audience: str
    roles_claim: str = "roles"
    sites_claim: str = "sites"
    role_of: Mapping[str, str] | None = None


Fetch = Callable[[], Awaitable[Mapping[str, Any]]]


class Tokens:
    """Verifies the tokens of one issuer, and keeps its keys up to date."""

    def __init__(self, issuer: Issuer, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepares the verification. The keys are fetched when they are first needed.

        Args:
            issuer: The issuer whose tokens are accepted.
            fetch: Fetches the issuer's key set. If it raises, the last keys stay in use.
            clock: Monotonic time in seconds.
        """
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._asked_at = float("-inf")
        self._fetching = asyncio.Lock()
        self.problem: str | None = None  # why the keys could not be fetched last time

    async def identify(self, token: str) -> Identity:
        """Verifies a token and returns its identity. Raises TokenError if it is not accepted."""
        if len(token) > _LONGEST_TOKEN:
            raise TokenError(f"the token is longer than {_LONGEST_TOKEN} characters")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, *_UNREADABLE) as error:
            raise TokenError("the token is not a JWT") from error
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise TokenError("the token is not signed with an algorithm that is accepted here")
        if not isinstance(kid, str) or not 0 < len(kid) <= _LONGEST_KID:
            raise TokenError("the token names no key (kid)")
        key = await self._key(kid)
        if key.algorithm_name != algorithm:
            raise TokenError("the token's algorithm differs from that of its key")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._issuer.audience,
                issuer=self._issuer.issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.InvalidTokenError as error:
            raise TokenError(f"the token is not accepted: {error}") from error
        except _UNREADABLE as error:  # such as a time that is not a number
            raise TokenError("the token is not accepted: one of its claims cannot be read") from error
        return self._identity(claims)

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        roles_by_name = {role.value: role for role in ASSIGNABLE}
        meaning = self._issuer.role_of or {}
        names = _claim_names(claims, self._issuer.roles_claim) or []
        roles = {roles_by_name.get(meaning.get(name, name)) for name in names}
        granted: frozenset[Role] = frozenset(role for role in roles if role is not None)
        if not granted:
            raise TokenError(f"the token gives no role ({self._issuer.roles_claim})")
        user = _printable_user(str(claims.get("preferred_username") or claims.get("email") or claims["sub"]))
        sites = _claim_names(
            claims, self._issuer.sites_claim
        )  # None: not bound to sites; an empty claim raises instead
        until = int(claims["exp"])
        if until > _LAST_SECOND:
            raise TokenError("the token is not accepted: its exp is beyond the year 9999")
        return Identity(user, granted, "token", frozenset(sites or ()), until=float(until))

    async def _key(self, kid: str) -> jwt.PyJWK:
        if self._clock() - self._fetched_at >= _FRESH or kid not in self._keys:
            await self._refresh(kid)
        key = self._keys.get(kid)
        if key is None:
            raise TokenError(self.problem or "the token's key is not a key of its issuer")
        return key

    async def _refresh(self, kid: str) -> None:
        async with self._fetching:
            up_to_date = self._clock() - self._fetched_at < _FRESH
            if (up_to_date and kid in self._keys) or self._clock() - self._asked_at < _AGAIN_AFTER:
                return
            self._asked_at = self._clock()
            try:
                content = await self._fetch()
                self._keys = parse_keys(content)
            except Exception as error:  # the known keys stay in use, whatever the error is
                self.problem = f"the issuer's keys cannot be fetched at the moment: {error}"
                return
            self._fetched_at = self._clock()
            self.problem = None


def parse_keys(content: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    """Returns the signature keys of a JWKS by their ids. Raises ValueError if there is none."""
    listed = content.get("keys")
    if not isinstance(listed, list):
        raise ValueError("the key set has no list of keys")
    keys: dict[str, jwt.PyJWK] = {}
    for each in listed[:_MOST_KEYS]:
        if not isinstance(each, dict) or each.get("use", "sig") != "sig" or not isinstance(each.get("kid"), str):
            continue
        if each.get("kty") == "oct" or each.get("alg", "RS256") not in ALGORITHMS:
            continue  # anybody could sign tokens with a shared secret from a public key set
        try:
            keys[each["kid"]] = jwt.PyJWK(each)
        except jwt.PyJWTError:
            continue
    if not keys:
        raise ValueError("the key set has no key for signatures that can be used here")
    return keys


def _printable_user(name: str) -> str:
    """Returns a user's name, made printable and short enough for logs.

    The name also owns sources. Therefore a changed name gets a hash, so that it stays unique, and names that could
    belong to an API key are refused.

    Raises:
        TokenError: The name is empty or has the prefix of API keys.
    """
    if not name.strip():
        raise TokenError("the token names no user (preferred_username, email, sub)")
    if name.startswith(KEY_USER_PREFIX):
        raise TokenError(f"the token's user begins with {KEY_USER_PREFIX}, which is reserved for API keys")
    shown = "".join(each if each.isprintable() else "?" for each in name[:MAX_USER])
    return shown if shown == name else f"{shown}#{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _claim_names(claims: Mapping[str, Any], path: str) -> list[str] | None:
    """Returns the names in a claim, which are separated by spaces or a list; None if the token has no such claim.

    An empty or malformed claim is an error, since a restriction to sites must not be read as no restriction.

    Raises:
        TokenError: The claim is empty or has another form.
    """
    value: Any = claims
    for part in path.split("."):
        if not isinstance(value, Mapping):
            raise TokenError(f"the token's claim {path} cannot be read")
        if part not in value:
            return None
        value = value[part]
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(each, str) and each.strip() for each in names):
        raise TokenError(f"the token's claim {path} is neither a list of names nor words separated by spaces")
    if not names:
        raise TokenError(f"the token's claim {path} is empty")
    return names
