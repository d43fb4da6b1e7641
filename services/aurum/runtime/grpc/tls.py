"""TLS between the services, with certificates that are reloaded while they are in use.

The folder has the format of cert-manager's Secrets (tls.crt, tls.key, ca.crt). Its certificates can be renewed at any
time without affecting calls.
"""

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from aurum.runtime.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

_FILES = ("tls.crt", "tls.key", "ca.crt")


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM certificates. chain, key: Our own. authorities: The authorities that sign those of the others."""

    chain: bytes
    key: bytes
    authorities: bytes


class CertificateFolder:
    """Reads the certificates of a folder again whenever they have changed. If that fails, the last ones stay in use."""

    def __init__(self, folder: Path) -> None:
        """Reads the certificates. Raises SettingsError if a file is missing or is not PEM."""
        self._folder = folder
        self._lock = threading.Lock()
        try:
            self._stamp = self._file_stamps()
            self._current = self._read()
        except (OSError, ValueError) as error:
            raise SettingsError(f"AURUM_RPC_TLS_FOLDER: {error}") from error

    @property
    def current(self) -> Certificates:
        """The present certificates."""
        return self.refreshed()[0]

    def refreshed(self) -> tuple[Certificates, bool]:
        """Returns the present certificates, and whether they have changed since the last call."""
        with self._lock:
            try:
                stamp = self._file_stamps()
                if stamp == self._stamp:
                    return self._current, False
                certificates = self._read()
            except (OSError, ValueError) as error:
                logger.warning("new certificates cannot be read yet: %s", error)  # they may be partly written
                return self._current, False
            self._stamp = stamp
            changed = certificates != self._current
            self._current = certificates
            return certificates, changed

    def _file_stamps(self) -> tuple[tuple[int, int], ...]:
        stats = [(self._folder / name).stat() for name in _FILES]
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in stats)

    def _read(self) -> Certificates:
        contents = [(self._folder / name).read_bytes() for name in _FILES]
        for name, content in zip(_FILES, contents, strict=True):
            if b"-----BEGIN" not in content:
                raise ValueError(f"{self._folder / name} is no PEM")
        return Certificates(*contents)


def certificate_folder(settings: Settings) -> CertificateFolder | None:
    """Returns the folder of the settings, or None without TLS between the services. Raises SettingsError."""
    return CertificateFolder(settings.rpc_tls_folder) if settings.rpc_tls_folder else None


def server_credentials(folder: CertificateFolder) -> grpc.ServerCredentials:
    """Returns credentials that use the present certificates at each handshake, and require a client certificate."""

    def configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(certificates.key, certificates.chain)], root_certificates=certificates.authorities
        )

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        certificates, changed = folder.refreshed()
        if changed:
            logger.info("new certificates are in use")
        return configuration(certificates) if changed else None

    return grpc.dynamic_ssl_server_credentials(
        configuration(folder.current),
        fetch,  # type: ignore[arg-type] # None, for as they are, is as documented
        require_client_authentication=True,
    )


def channel_credentials(certificates: Certificates) -> grpc.ChannelCredentials:
    """Returns the credentials of a client that authenticates with these certificates."""
    return grpc.ssl_channel_credentials(certificates.authorities, certificates.key, certificates.chain)
