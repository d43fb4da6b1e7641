"""Clients that prove who they are by a certificate: what they may call, and for which sources and machines."""

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
from aurum.security.identity import OF_SITE, Identity, Role

logger = logging.getLogger(__name__)

_MOST_CLIENTS = 10_000
_ALL = ("*",)
_LOOK_EVERY = 2.0  # seconds between two looks at a file of clients
_ROLES = {role.value: role for role in Role}


class ClientFileError(ValueError):
    """A file of clients that cannot be used; the message names the file and the field."""


class ClientRule(BaseModel):
    """name: a subject alternative name (DNS, URI) or, without one, the common name. sources, machines: patterns.
    owner: to whom the sources belong that it uses, for clients that share them, such as two gateways of one line; its
    name if empty. site: in place of it, so that they belong to whoever is bound to that site alone."""

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
            raise ValueError(f"{wrong!r} is no role; there are {', '.join(_ROLES)}")
        return roles

    @model_validator(mode="after")
    def _owned_once(self) -> Self:
        if self.owner and self.site:
            raise ValueError("owner and site are two answers to the same question; give one of them")
        return self


class ClientFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    clients: tuple[ClientRule, ...] = Field(max_length=_MOST_CLIENTS)


@dataclass(frozen=True, slots=True)
class Client:
    """sources, machines: shell patterns of those for which it may speak. owner: of the sources that it uses."""

    identity: Identity
    sources: tuple[str, ...] = ("*",)
    machines: tuple[str, ...] = ("*",)
    owner: str = ""

    @property
    def bound(self) -> bool:
        """Whether it speaks for some sources or machines only, or belongs to a site."""
        return self.sources != _ALL or not self.speaks_for_all_machines or self.owner.startswith(OF_SITE)

    @property
    def speaks_for_all_machines(self) -> bool:
        return "*" in self.machines

    def speaks_for_source(self, source_id: str) -> bool:
        return _any(self.sources, source_id)

    def speaks_for_machine(self, machine_id: str) -> bool:
        return _any(self.machines, machine_id)


def _any(patterns: tuple[str, ...], name: str) -> bool:
    return patterns == _ALL or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


class Clients:
    def __init__(self, rules: Iterable[ClientRule]) -> None:
        self._by_name = {
            rule.name: Client(
                Identity(rule.name, frozenset(_ROLES[role] for role in rule.roles), "certificate"),
                rule.sources,
                rule.machines,
                f"{OF_SITE}{rule.site}" if rule.site else f"certificate/{rule.owner or rule.name}",
            )
            for rule in rules
        }

    def of(self, properties: Mapping[str, Iterable[bytes]]) -> Client | None:
        """Whose certificate it is, by what gRPC says of a peer; None if it is nobody's that is known."""
        kind: Literal["x509_subject_alternative_name", "x509_common_name"]
        for kind in ("x509_subject_alternative_name", "x509_common_name"):
            names = [each.decode("utf-8", "replace") for each in properties.get(kind, ())]
            if names:  # a common name counts only where there is no other (RFC 6125)
                return next((found for name in names if (found := self._by_name.get(name))), None)
        return None

    def named(self, name: str) -> Client | None:
        """The client of a name, as it is known now."""
        return self._by_name.get(name)


class FollowedClients:
    """The clients of a file, which may change while they are in use: who is removed from it is refused, also in the
    streams that it has open. A file that cannot be used leaves the last good clients in force."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ClientFileError."""
        self._path = path
        self._clock = clock
        self._stamp = _stamp(path)
        self._clients = load_clients(path)
        self._looked_at = clock()
        self._reader = ThreadPoolExecutor(1, "clients-file")  # thousands of entries take seconds to read
        self._reading: Future[None] | None = None

    def of(self, properties: Mapping[str, Iterable[bytes]]) -> Client | None:
        self._look()
        return self._clients.of(properties)

    def named(self, name: str) -> Client | None:
        self._look()
        return self._clients.named(name)

    def _look(self) -> None:
        if self._clock() - self._looked_at >= _LOOK_EVERY and (self._reading is None or self._reading.done()):
            self._looked_at = self._clock()
            self._reading = self._reader.submit(self._refresh)

    def _refresh(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        try:
            self._clients = load_clients(self._path)
        except ClientFileError as error:
            logger.error("the file of clients cannot be used, the last good clients stay in force: %s", error)
        else:
            logger.info("the clients of %s are in force", self._path)
        self._stamp = stamp


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def load_clients(path: Path) -> Clients:
    """Raises ClientFileError."""
    return Clients(read_yaml(path, ClientFile, ClientFileError).clients)
