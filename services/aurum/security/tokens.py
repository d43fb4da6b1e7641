"""OIDC bearer tokens: JWTs that a known issuer has signed (RFC 7519, RFC 9068), with its keys from its JWKS (RFC 7517).

Only asymmetric algorithms, so that nobody can sign with a public key; the key is chosen by `kid` among the issuer's
own, never taken from the token; issuer, audience and times must all be there.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from aurum.security.identity import ASSIGNABLE, KEY_USER, Identity, Role

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LONGEST_TOKEN = 16_384  # characters
_LONGEST_KID = 256
_LEEWAY = 30  # seconds by which clocks may differ
_FRESH = 600.0  # seconds that a key set serves
_AGAIN_AFTER = 10.0  # seconds at least between two requests for a key set, however many unknown keys are named
_MOST_KEYS = 50
_LAST_SECOND = 253_402_300_799  # of the year 9999
_UNREADABLE = (ValueError, TypeError, OverflowError, RecursionError, AttributeError)
_MOST_USER = 200  # characters of a user's name in logs


class TokenError(Exception):
    """A token that is not accepted; the message says why, without the token."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """issuer, audience: what `iss` and `aud` must say. roles_claim, sites_claim: where a token says them, with dots
    between levels, such as realm_access.roles. role_of: what a role of the issuer's means here."""

    issuer: str
    audience: str
    roles_claim: str = "roles"
    sites_claim: str = "sites"
    role_of: Mapping[str, str] | None = None


Fetch = Callable[[], Awaitable[Mapping[str, Any]]]


class Tokens:
    def __init__(self, issuer: Issuer, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        """fetch: gets the issuer's key set; raises what it likes, which the last keys outlive."""
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._asked_at = float("-inf")
        self._fetching = asyncio.Lock()
        self.problem: str | None = None  # why the keys could not be fetched last time

    async def identify(self, token: str) -> Identity:
        """Raises TokenError."""
        if len(token) > _LONGEST_TOKEN:
            raise TokenError(f"the token is longer than {_LONGEST_TOKEN} characters")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, *_UNREADABLE) as error:
            raise TokenError("the token is no JWT") from error
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise TokenError("the token is not signed with an algorithm that is accepted here")
        if not isinstance(kid, str) or not 0 < len(kid) <= _LONGEST_KID:
            raise TokenError("the token names no key (kid)")
        key = await self._key(kid)
        if key.algorithm_name != algorithm:
            raise TokenError("the token's algorithm is not its key's")
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
        except _UNREADABLE as error:  # of a time that is no time
            raise TokenError("the token is not accepted: one of its claims cannot be read") from error
        return self._identity(claims)

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        known = {role.value: role for role in ASSIGNABLE}
        meaning = self._issuer.role_of or {}
        names = _names(claims, self._issuer.roles_claim) or []
        roles = {known.get(meaning.get(name, name)) for name in names}
        found: frozenset[Role] = frozenset(role for role in roles if role is not None)
        if not found:
            raise TokenError(f"the token gives no role ({self._issuer.roles_claim})")
        user = _user(str(claims.get("preferred_username") or claims.get("email") or claims["sub"]))
        sites = _names(claims, self._issuer.sites_claim)  # None binds to no site, which is not the same as an empty one
        until = int(claims["exp"])
        if until > _LAST_SECOND:
            raise TokenError("the token is not accepted: its exp is beyond the year 9999")
        return Identity(user, found, "token", frozenset(sites or ()), until=float(until))

    async def _key(self, kid: str) -> jwt.PyJWK:
        if self._clock() - self._fetched_at >= _FRESH or kid not in self._keys:
            await self._refresh(kid)
        key = self._keys.get(kid)
        if key is None:
            raise TokenError("the token's key is none of its issuer's" if self.problem is None else self.problem)
        return key

    async def _refresh(self, kid: str) -> None:
        async with self._fetching:
            fresh = self._clock() - self._fetched_at < _FRESH
            if (fresh and kid in self._keys) or self._clock() - self._asked_at < _AGAIN_AFTER:
                return
            self._asked_at = self._clock()
            try:
                content = await self._fetch()
                self._keys = parse_keys(content)
            except Exception as error:  # whatever it is, the keys that are known go on
                self.problem = f"the issuer's keys cannot be fetched at the moment: {error}"
                return
            self._fetched_at = self._clock()
            self.problem = None


def parse_keys(content: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    """The signature keys of a JWKS by their ids. Raises ValueError."""
    listed = content.get("keys")
    if not isinstance(listed, list):
        raise ValueError("the key set has no list of keys")
    found: dict[str, jwt.PyJWK] = {}
    for each in listed[:_MOST_KEYS]:
        if not isinstance(each, dict) or each.get("use", "sig") != "sig" or not isinstance(each.get("kid"), str):
            continue
        if each.get("kty") == "oct" or each.get("alg", "RS256") not in ALGORITHMS:
            continue  # a shared secret in a public key set opens everything
        try:
            found[each["kid"]] = jwt.PyJWK(each)
        except jwt.PyJWTError:
            continue
    if not found:
        raise ValueError("the key set has no key for signatures that can be used here")
    return found


def _user(name: str) -> str:
    """A user's name for logs, which owns sources too: two users never have the same, nor that of an API key. Raises
    TokenError."""
    if not name.strip():
        raise TokenError("the token names no user (preferred_username, email, sub)")
    if name.startswith(KEY_USER):
        raise TokenError(f"the token's user begins with {KEY_USER}, which stands for API keys")
    shown = "".join(each if each.isprintable() else "?" for each in name[:_MOST_USER])
    return shown if shown == name else f"{shown}#{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _names(claims: Mapping[str, Any], path: str) -> list[str] | None:
    """What a claim names: words separated by spaces, or a list of texts. None if the token has no such claim.

    Raises TokenError for one that is there and names nothing, or has another form: what binds a user must not be taken
    for the absence of a bond.
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
