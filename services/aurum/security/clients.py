"""Clients that authenticate with a TLS certificate: their roles, and the sources and machines they are bound to."""

import fnmatch
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from aurum.runtime.yaml_file import read_yaml
from aurum.security.identity import SITE_OWNER_PREFIX, Identity, Role

logger = logging.getLogger(__name__)

_MOST_CLIENTS = 10_000
_ALL = ("*",)
_CHECK_EVERY = 2.0  # seconds between two checks whether the file has changed
_ROLES = {role.value: role for role in Role}


class ClientFileError(ValueError):
    """The clients file cannot be used. The message names the file and the field."""


class ClientRule(BaseModel):
    """An entry of the clients file.

    Attributes:
        name: A subject alternative name (DNS, URI) of the certificate or, if it has none, its common name.
        roles: The names of the client's roles.
        sources: Shell patterns of the sources that the client may use.
        machines: Shell patterns of the machines that the client may access.
        owner: The owner of the client's sources, for clients that share sources, such as two gateways of one line.
            If empty, the client's name is used.
        site: Makes the site the owner of the client's sources, so that callers bound to only that site share them.
            Excludes `owner`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=200)
    roles: tuple[str, ...] = Field(min_length=1)
    sources: tuple[str, ...] = ("*",)
    machines: tuple[str, ...] = ("*",)
    owner: str = Field(default="", max_length=200)
    site: str = Field(default="", max_length=64)

    @field_validator("roles")
    @classmethod
    def _known(cls, roles: tuple[str, ...]) -> tuple[str, ...]:
        wrong = next((role for role in roles if role not in _ROLES), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} is not a role; the roles are {', '.join(_ROLES)}")
        return roles

    @model_validator(mode="after")
    def _owned_once(self) -> Self:
        if self.owner and self.site:
            raise ValueError("owner and site exclude each other; give one of them")
        return self


class ClientFile(BaseModel):
    """The content of the clients file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clients: tuple[ClientRule, ...] = Field(max_length=_MOST_CLIENTS)


@dataclass(frozen=True, slots=True)
class Client:
    """An authenticated client.

    Attributes:
        identity: Its name and roles.
        sources: Shell patterns of the sources that it may use.
        machines: Shell patterns of the machines that it may access.
        owner: The owner of the sources that it uses.
    """

    identity: Identity
    sources: tuple[str, ...] = ("*",)
    machines: tuple[str, ...] = ("*",)
    owner: str = ""

    @property
    def bound(self) -> bool:
        """Whether the client is restricted to some sources or machines, or belongs to a site."""
        return self.sources != _ALL or not self.may_access_all_machines or self.owner.startswith(SITE_OWNER_PREFIX)

    @property
    def may_access_all_machines(self) -> bool:
        """Whether the client may access every machine."""
        return "*" in self.machines

    def may_use_source(self, source_id: str) -> bool:
        """Whether the client may send batches of a source."""
        return _matches_any(self.sources, source_id)

    def may_access_machine(self, machine_id: str) -> bool:
        """Whether the client may access a machine."""
        return _matches_any(self.machines, machine_id)


def _matches_any(patterns: tuple[str, ...], name: str) -> bool:
    """Whether a name matches one of some shell patterns."""
    return patterns == _ALL or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


class Clients:
    """The known clients by name."""

    def __init__(self, rules: Iterable[ClientRule]) -> None:
        self._by_name = {
            rule.name: Client(
                Identity(rule.name, frozenset(_ROLES[role] for role in rule.roles), "certificate"),
                rule.sources,
                rule.machines,
                f"{SITE_OWNER_PREFIX}{rule.site}" if rule.site else f"certificate/{rule.owner or rule.name}",
            )
            for rule in rules
        }

    def client_for(self, properties: Mapping[str, Iterable[bytes]]) -> Client | None:
        """Returns the client of a certificate, or None if it is unknown.

        Args:
            properties: The peer's authentication context from gRPC.
        """
        kind: Literal["x509_subject_alternative_name", "x509_common_name"]
        for kind in ("x509_subject_alternative_name", "x509_common_name"):
            names = [each.decode("utf-8", "replace") for each in properties.get(kind, ())]
            if names:  # the common name counts only without a subject alternative name (RFC 6125)
                return next((client for name in names if (client := self._by_name.get(name))), None)
        return None

    def client_named(self, name: str) -> Client | None:
        """Returns the client with a name, or None if there is none."""
        return self._by_name.get(name)


class FollowedClients:
    """The clients of a file, which is read again when it changes.

    A client that is removed from the file is refused, also on its open streams. If the file becomes invalid, the last
    valid clients stay in force.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads the file. Raises ClientFileError."""
        self._path = path
        self._clock = clock
        self._stamp = _stamp(path)
        self._clients = load_clients(path)
        self._checked_at = clock()
        self._reader = ThreadPoolExecutor(1, "clients-file")  # thousands of entries take seconds to read
        self._reading: Future[None] | None = None

    def client_for(self, properties: Mapping[str, Iterable[bytes]]) -> Client | None:
        """Returns the client of a certificate; see Clients.client_for."""
        self._refresh_if_due()
        return self._clients.client_for(properties)

    def client_named(self, name: str) -> Client | None:
        """Returns the client with a name, or None if there is none."""
        self._refresh_if_due()
        return self._clients.client_named(name)

    def _refresh_if_due(self) -> None:
        """Reads the file in the background if it has not been checked for a while."""
        if self._clock() - self._checked_at >= _CHECK_EVERY and (self._reading is None or self._reading.done()):
            self._checked_at = self._clock()
            self._reading = self._reader.submit(self._refresh)

    def _refresh(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        try:
            self._clients = load_clients(self._path)
        except ClientFileError as error:
            logger.error("the clients file cannot be used; the last valid clients stay in force: %s", error)
        else:
            logger.info("the clients of %s are in force", self._path)
        self._stamp = stamp


def _stamp(path: Path) -> tuple[int, int] | None:
    """Returns what changes with each change of a file, or None without a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def load_clients(path: Path) -> Clients:
    """Reads a clients file. Raises ClientFileError."""
    return Clients(read_yaml(path, ClientFile, ClientFileError).clients)
