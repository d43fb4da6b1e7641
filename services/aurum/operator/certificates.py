"""The certificates that the operator issues: an authority, and one for each service that it signs.

All functions are pure apart from the random keys. PEM goes in and out, so that a certificate is what a Secret holds.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_BACKDATED = timedelta(hours=1)  # for clocks of nodes that are slow
_RENEWED_AT = 2 / 3  # share of its validity after which a certificate is renewed
_LONGEST_NAME = 64  # characters of a common name (RFC 5280)
# What cryptography raises for certificates and keys that cannot be read, do not fit, or are of an unknown kind
_UNUSABLE = (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, in PEM."""

    certificate: bytes
    key: bytes


def create_authority(name: str, now: datetime, days: float) -> KeyPair:
    """Creates an authority that signs itself. name: Its common name. days: Its validity."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(name, name, key.public_key(), now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return KeyPair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def issue_certificate(authority: KeyPair, names: Sequence[str], now: datetime, days: float) -> KeyPair:
    """Issues a certificate for servers and clients.

    Args:
        authority: The signing authority.
        names: DNS names; the first is also the common name. 127.0.0.1 is added.
        now: Time of the issue.
        days: Validity, which ends with that of the authority at the latest.

    Raises:
        ValueError: The authority is not usable.
    """
    signing_key = serialization.load_pem_private_key(authority.key, None)
    if not isinstance(signing_key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError("the key of the authority is neither an elliptic-curve key nor an RSA key")
    signer = x509.load_pem_x509_certificate(authority.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    ends = min(now + timedelta(days=days), signer.not_valid_after_utc)
    builder = (
        _builder(names[0], signer.subject, key.public_key(), now, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_identifier(signer), critical=False)
    )
    return KeyPair(_pem(builder.sign(signing_key, hashes.SHA256())), _key_pem(key))


def ends_at(certificate: bytes) -> datetime:
    """Returns the end of a certificate's validity. Raises ValueError if it is unreadable."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def begins_at(certificate: bytes) -> datetime:
    """Returns the time of a certificate's issue. Raises ValueError if it is unreadable."""
    return x509.load_pem_x509_certificate(certificate).not_valid_before_utc + _BACKDATED


def is_due(certificate: bytes, now: datetime) -> bool:
    """Whether a certificate should be renewed: two thirds of its validity are over. Raises ValueError."""
    begun, ended = begins_at(certificate), ends_at(certificate)
    return now >= begun + (ended - begun) * _RENEWED_AT


def is_usable(pair: KeyPair, authority: bytes, names: Sequence[str]) -> bool:
    """Whether a certificate belongs to its key, is signed by an authority, and has exactly the DNS names."""
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
        stated = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except _UNUSABLE:
        return False
    return set(stated.get_values_for_type(x509.DNSName)) == set(names) and matches_key(pair)


def matches_key(pair: KeyPair) -> bool:
    """Whether certificate and key can be read and belong together."""
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate)
        key = serialization.load_pem_private_key(pair.key, None)
    except _UNUSABLE:
        return False
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)


def _builder(
    name: str, issuer: str | x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer if isinstance(issuer, x509.Name) else _name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - _BACKDATED)
        .not_valid_after(ends)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_LONGEST_NAME])])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_identifier(signer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        found = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
