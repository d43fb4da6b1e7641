"""A certificate authority of the tests."""

import datetime
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass
class Authority:
    name: str = "authority of the tests"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        self.certificate = self._sign(
            self.name, self.key.public_key(), [x509.BasicConstraints(ca=True, path_length=0)], days=10
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, *, days: float = 1.0) -> tuple[bytes, bytes]:
        """Certificate and key in PEM, for a DNS name at 127.0.0.1. days: until it ends; below 0 for over."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(name), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        found = self._sign(name, key.public_key(), [x509.SubjectAlternativeName(names)], days)
        return found.public_bytes(serialization.Encoding.PEM), _pem(key)

    def fill(self, folder: Path, name: str, *, days: float = 1.0) -> Path:
        """A folder as cert-manager's Secret is mounted; its files are replaced one after the other."""
        folder.mkdir(parents=True, exist_ok=True)
        chain, key = self.issue(name, days=days)
        for file, content in (("tls.crt", chain), ("tls.key", key), ("ca.crt", self.pem)):
            beside = folder / f".{file}"
            beside.write_bytes(content)
            beside.replace(folder / file)
        return folder

    def settings(self, folder: Path, name: str, clients: str) -> dict[str, str]:
        """Of services that speak mutual TLS as `name`, with a file of clients."""
        file = folder / "clients.yaml"
        file.write_text(clients)
        certificates = self.fill(folder / "certificates", name)
        return {"AURUM_RPC_TLS_FOLDER": str(certificates), "AURUM_RPC_CLIENTS_FILE": str(file)}

    def _sign(
        self, name: str, key: ec.EllipticCurvePublicKey, extensions: list[x509.ExtensionType], days: float
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self.name))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=5))
            .not_valid_after(now + datetime.timedelta(days=days))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self.key, hashes.SHA256())
