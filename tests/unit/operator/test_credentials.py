"""The credentials that the operator creates and renews: Secrets in, Secrets out, over years."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from aurum.operator.certificates import KeyPair, ends_at, is_usable
from aurum.operator.credentials import (
    OVERLAP,
    RENEW,
    Credential,
    WantedCredentials,
    derive_credentials,
    dns_names,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
WANTED = WantedCredentials(
    "plant", ("aurumai-api", "aurumai-ingestion"), "aurumai-authority", "aurumai-admin", "aurumai-sessions"
)
TLS = ("aurumai-api-tls", "aurumai-ingestion-tls")
Secrets = dict[str, Credential]


def settled(present: Mapping[str, Credential], now: datetime) -> Secrets:
    """What is in the cluster after the operator has looked at it."""
    return {**present, **derive_credentials(WANTED, present, now)}


def pair(credential: Credential) -> KeyPair:
    return KeyPair(credential.data["tls.crt"], credential.data["tls.key"])


def trusts(reader: Credential, other: Credential) -> bool:
    """Whether a pod with one Secret accepts the certificate of a pod with another."""
    shown = x509.load_pem_x509_certificate(other.data["tls.crt"])
    for authority in x509.load_pem_x509_certificates(reader.data["ca.crt"]):
        try:
            shown.verify_directly_issued_by(authority)
        except (ValueError, InvalidSignature):
            continue
        return True
    return False


def test_missing_credentials_are_created_once() -> None:
    """All Secrets are created, fit each other, and are left as they are by the next look."""
    made = settled({}, START)
    assert set(made) == {"aurumai-authority", *TLS, "aurumai-admin", "aurumai-sessions"}
    for service, name in zip(WANTED.services, TLS, strict=True):
        authority = made["aurumai-authority"].data["tls.crt"]
        assert is_usable(pair(made[name]), authority, dns_names(service, "plant"))
        assert made[name].data["ca.crt"] == authority
        assert ends_at(made[name].data["tls.crt"]) == START + timedelta(days=90)
    assert len(made["aurumai-admin"].data["token"]) >= 16
    assert len(made["aurumai-sessions"].data["secret"]) >= 32
    assert derive_credentials(WANTED, made, START + timedelta(days=50)) == {}


def test_certificates_are_renewed_before_they_end() -> None:
    """Certificates are renewed by the same authority after two thirds of their validity."""
    made = settled({}, START)
    due = derive_credentials(WANTED, made, START + timedelta(days=61))
    assert set(due) == set(TLS)
    assert all(trusts(made[TLS[0]], due[name]) and trusts(due[name], made[TLS[0]]) for name in TLS)


@pytest.mark.parametrize("damage", ["other key", "other names", "no PEM", "no DER", "missing"])
def test_unusable_certificate_is_issued_again(damage: str) -> None:
    """A certificate that does not fit its key, authority or service is issued again, and no other."""
    made = settled({}, START)
    broken = dict(made[TLS[0]].data)
    if damage == "other key":
        broken["tls.key"] = made[TLS[1]].data["tls.key"]
    elif damage == "other names":
        broken |= {key: made[TLS[1]].data[key] for key in ("tls.crt", "tls.key")}
    elif damage == "no PEM":
        broken["tls.crt"] = b"nothing"
    elif damage == "no DER":
        broken["tls.crt"] = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    else:
        del broken["tls.crt"]
    due = derive_credentials(WANTED, {**made, TLS[0]: replace(made[TLS[0]], data=broken)}, START)
    assert set(due) == {TLS[0]}
    assert is_usable(pair(due[TLS[0]]), made["aurumai-authority"].data["tls.crt"], dns_names("aurumai-api", "plant"))


def test_replaced_authority_breaks_no_handshake() -> None:
    """While an authority is replaced, pods with the Secrets of two successive steps accept each other."""
    states = [settled({}, START)]
    asked = dict(states[0])
    asked["aurumai-authority"] = replace(asked["aurumai-authority"], annotations={RENEW: "true"})
    now = START + timedelta(days=10)
    states.append(settled(asked, now))
    for _ in range(3):
        now += OVERLAP
        states.append(settled(states[-1], now))
    for before, after in itertools.pairwise(states):
        for one in TLS:
            for other in TLS:
                assert trusts(before[one], after[other])
                assert trusts(after[one], before[other])
    first, last = states[0]["aurumai-authority"], states[-1]["aurumai-authority"]
    assert first.data["tls.crt"] != last.data["tls.crt"]
    assert last.data["previous.crt"] == first.data["tls.crt"]
    assert "next.crt" not in last.data
    assert is_usable(pair(states[-1][TLS[0]]), last.data["tls.crt"], dns_names("aurumai-api", "plant"))
    assert RENEW not in last.annotations
    assert states[-1] == states[-2]


def test_authority_is_replaced_before_it_ends() -> None:
    """Over twenty years of daily looks, the certificates of two days always accept each other."""
    wanted = replace(WANTED, authority_days=300.0, certificate_days=30.0)
    present: Secrets = {}
    authorities, now = set(), START
    for _ in range(1000):
        following = {**present, **derive_credentials(wanted, present, now)}
        if present:
            assert trusts(present[TLS[0]], following[TLS[1]])
            assert trusts(following[TLS[1]], present[TLS[0]])
        assert ends_at(following[TLS[0]].data["tls.crt"]) > now
        assert ends_at(following["aurumai-authority"].data["tls.crt"]) > now
        authorities.add(following["aurumai-authority"].data["tls.crt"])
        present, now = following, now + timedelta(days=1)
    assert len(authorities) == 5
    assert len(x509.load_pem_x509_certificates(present[TLS[0]].data["ca.crt"])) <= 3


def test_admin_token_is_replaced_with_the_one_before() -> None:
    """An old token is replaced, and stays in the Secret for the overlap."""
    made = settled({}, START)
    token = made["aurumai-admin"].data["token"]
    then = START + timedelta(days=90)
    present = settled(made, then)
    rotated = present["aurumai-admin"]
    assert rotated.data["token"] != token
    assert rotated.data["previous"] == token
    assert "aurumai-admin" not in derive_credentials(WANTED, present, then + OVERLAP / 2)
    later = settled(present, then + OVERLAP)["aurumai-admin"]
    assert dict(later.data) == {"token": rotated.data["token"]}


def test_existing_token_and_session_secret_are_adopted() -> None:
    """A token and a session secret that others have created stay, and a token is replaced when it is old."""
    present = {
        "aurumai-admin": Credential({"token": b"of an earlier release"}),
        "aurumai-sessions": Credential({"secret": b"s" * 40}),
    }
    adopted = settled(present, START)
    assert adopted["aurumai-admin"].data == present["aurumai-admin"].data
    assert adopted["aurumai-sessions"] == present["aurumai-sessions"]
    assert derive_credentials(WANTED, adopted, START + timedelta(days=1)) == {}
    assert "previous" in settled(adopted, START + timedelta(days=91))["aurumai-admin"].data


def test_renewal_of_a_token_can_be_requested() -> None:
    """The annotation of a Secret requests a new token now, and is removed."""
    made = settled({}, START)
    made["aurumai-admin"] = replace(made["aurumai-admin"], annotations={RENEW: "true"})
    renewed = settled(made, START + timedelta(days=1))["aurumai-admin"]
    assert renewed.data["previous"] == made["aurumai-admin"].data["token"]
    assert RENEW not in renewed.annotations


def test_unusable_authority_is_created_again() -> None:
    """An authority that cannot be read is replaced together with the certificates that it signed."""
    made = settled({}, START)
    broken = replace(made["aurumai-authority"], data={"tls.crt": b"nothing", "tls.key": b"nothing"})
    due = derive_credentials(WANTED, {**made, "aurumai-authority": broken}, START)
    assert set(due) == {"aurumai-authority", *TLS}
    assert is_usable(pair(due[TLS[0]]), due["aurumai-authority"].data["tls.crt"], dns_names("aurumai-api", "plant"))
