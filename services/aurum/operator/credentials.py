"""The credentials of a release that the operator creates once and renews, as a pure function of what exists.

They are Secrets: an authority with a certificate for each service, the token of the admin ports, and the secret that
signs the console's sessions. What exists and is usable stays as it is, so the function can be applied at any time.

An authority is replaced in three steps, so that no handshake fails between pods that have read different versions. Its
successor is created and accepted by all; after `OVERLAP` it signs all certificates; its predecessor is accepted until
it ends. A token is replaced in two: the one before stays in the Secret for `OVERLAP` as `previous`.
"""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from aurum.operator.certificates import (
    KeyPair,
    begins_at,
    create_authority,
    ends_at,
    is_due,
    is_usable,
    issue_certificate,
    matches_key,
)

OVERLAP = timedelta(hours=1)  # longer than any pod takes to read a changed Secret
ROTATED = "aurumai.io/rotated"  # annotation: when the token was created
RENEW = "aurumai.io/renew"  # annotation by which a person asks for a renewal now
TLS, OPAQUE = "kubernetes.io/tls", "Opaque"
_CRT, _KEY, _CA = "tls.crt", "tls.key", "ca.crt"
_NEXT_CRT, _NEXT_KEY, _PREVIOUS_CRT = "next.crt", "next.key", "previous.crt"
_TOKEN, _PREVIOUS, _SESSIONS = "token", "previous", "secret"
_TOKEN_BYTES, _SESSION_BYTES = 36, 48
_SHORTEST_TOKEN, _SHORTEST_SESSIONS = 16, 32  # characters that the services require


@dataclass(frozen=True, slots=True)
class Credential:
    """The content of a Secret. annotations: Only those of this module."""

    data: Mapping[str, bytes]
    type: str = OPAQUE
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WantedCredentials:
    """What a release needs.

    Attributes:
        namespace: Namespace of the release.
        services: Kubernetes Services that need a certificate, in the Secret SERVICE-tls.
        authority: Secret of the authority, needed if there are services.
        admin: Secret of the admin token, or None.
        sessions: Secret that signs the console's sessions, or None.
        certificate_days: Validity of the certificates of services.
        authority_days: Validity of the authority.
        token_days: Age at which the admin token is replaced.
    """

    namespace: str
    services: tuple[str, ...] = ()
    authority: str = ""
    admin: str | None = None
    sessions: str | None = None
    certificate_days: float = 90.0
    authority_days: float = 3650.0
    token_days: float = 90.0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all Secrets."""
        tls = (self.authority, *(tls_secret(service) for service in self.services)) if self.services else ()
        return (*tls, *(name for name in (self.admin, self.sessions) if name))


def tls_secret(service: str) -> str:
    """Returns the name of the Secret with the certificate of a service."""
    return f"{service}-tls"


def dns_names(service: str, namespace: str) -> tuple[str, ...]:
    """Returns the names under which a service is called."""
    return service, f"{service}.{namespace}", f"{service}.{namespace}.svc", "localhost"


def derive_credentials(
    wanted: WantedCredentials, present: Mapping[str, Credential], now: datetime
) -> dict[str, Credential]:
    """Returns the Secrets to write, by name; those that are missing, unusable or due for renewal.

    Args:
        wanted: What the release needs.
        present: The existing Secrets by name.
        now: The time, in UTC.
    """
    desired: dict[str, Credential] = {}
    if wanted.services:
        desired |= _certificates(wanted, present, now)
    if wanted.admin:
        desired[wanted.admin] = _admin_token(present.get(wanted.admin), now, timedelta(days=wanted.token_days))
    if wanted.sessions:
        desired[wanted.sessions] = _session_secret(present.get(wanted.sessions))
    return {name: each for name, each in desired.items() if present.get(name) != each}


def first_end(present: Iterable[Credential]) -> datetime | None:
    """Returns when the first of the certificates ends, or None if there is none."""
    found = [each.data[_CRT] for each in present if _CRT in each.data]
    return min((ends_at(certificate) for certificate in found), default=None)


def _certificates(wanted: WantedCredentials, present: Mapping[str, Credential], now: datetime) -> dict[str, Credential]:
    authority = _authority(wanted, present.get(wanted.authority), now)
    signing = _pair(authority)
    others = [authority.data[name] for name in (_NEXT_CRT, _PREVIOUS_CRT) if name in authority.data]
    bundle = b"".join([signing.certificate, *others])
    desired = {wanted.authority: authority}
    for service in wanted.services:
        name, names = tls_secret(service), dns_names(service, wanted.namespace)
        there = present.get(name)
        pair = _pair(there) if there else KeyPair(b"", b"")
        renewed = there is None or RENEW in there.annotations
        if renewed or not is_usable(pair, signing.certificate, names) or is_due(pair.certificate, now):
            pair = issue_certificate(signing, names, now, wanted.certificate_days)
        desired[name] = Credential({_CRT: pair.certificate, _KEY: pair.key, _CA: bundle}, there.type if there else TLS)
    return desired


def _authority(wanted: WantedCredentials, present: Credential | None, now: datetime) -> Credential:
    """Returns the authority, with a successor or predecessor while it is being replaced."""
    if present is None or not matches_key(_pair(present)) or ends_at(present.data[_CRT]) <= now:
        pair = create_authority(f"{wanted.authority} {now:%Y-%m-%d}", now, wanted.authority_days)
        return Credential({_CRT: pair.certificate, _KEY: pair.key}, present.type if present else TLS)
    data = {name: present.data[name] for name in (_CRT, _KEY)}
    following = KeyPair(present.data.get(_NEXT_CRT, b""), present.data.get(_NEXT_KEY, b""))
    if matches_key(following):
        if now - begins_at(following.certificate) < OVERLAP:
            data |= {_NEXT_CRT: following.certificate, _NEXT_KEY: following.key}
        else:
            data = {_CRT: following.certificate, _KEY: following.key, _PREVIOUS_CRT: present.data[_CRT]}
    elif RENEW in present.annotations or is_due(present.data[_CRT], now):
        made = create_authority(f"{wanted.authority} {now:%Y-%m-%d}", now, wanted.authority_days)
        data |= {_NEXT_CRT: made.certificate, _NEXT_KEY: made.key}
    before = present.data.get(_PREVIOUS_CRT)
    if _PREVIOUS_CRT not in data and before and _is_valid(before, now):
        data[_PREVIOUS_CRT] = before
    return Credential(data, present.type)


def _admin_token(present: Credential | None, now: datetime, longest: timedelta) -> Credential:
    token = present.data.get(_TOKEN, b"") if present else b""
    fresh = {ROTATED: now.strftime("%Y-%m-%dT%H:%M:%SZ")}
    if present is None or len(token) < _SHORTEST_TOKEN:
        return Credential({_TOKEN: _random_text(_TOKEN_BYTES)}, present.type if present else OPAQUE, fresh)
    rotated = _moment(present.annotations.get(ROTATED))
    if RENEW in present.annotations or (rotated is not None and now - rotated >= longest):
        return Credential({_TOKEN: _random_text(_TOKEN_BYTES), _PREVIOUS: token}, present.type, fresh)
    if rotated is None:  # it was created by others
        return Credential(present.data, present.type, fresh)
    kept = {name: value for name, value in present.data.items() if name != _PREVIOUS or now - rotated < OVERLAP}
    return Credential(kept, present.type, present.annotations)


def _session_secret(present: Credential | None) -> Credential:
    if present is not None and len(present.data.get(_SESSIONS, b"")) >= _SHORTEST_SESSIONS:
        return present
    return Credential({_SESSIONS: _random_text(_SESSION_BYTES)}, present.type if present else OPAQUE)


def _pair(credential: Credential) -> KeyPair:
    return KeyPair(credential.data.get(_CRT, b""), credential.data.get(_KEY, b""))


def _is_valid(certificate: bytes, now: datetime) -> bool:
    try:
        return ends_at(certificate) > now
    except ValueError:
        return False


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.strptime(text or "", "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _random_text(size: int) -> bytes:
    return secrets.token_urlsafe(size).encode()
