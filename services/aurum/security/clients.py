"""Clients that prove who they are by a certificate: what they may call, and for which sources and machines."""

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from aurum.runtime.yaml_file import read_yaml
from aurum.security.identity import OF_SITE, Identity, Role

_MOST_CLIENTS = 10_000
_ALL = ("*",)
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
        return self.sources != _ALL or self.machines != _ALL or self.owner.startswith(OF_SITE)

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


def load_clients(path: Path) -> Clients:
    """Raises ClientFileError."""
    return Clients(read_yaml(path, ClientFile, ClientFileError).clients)
