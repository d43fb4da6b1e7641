"""Who asks, and what that allows."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

Kind = Literal["open", "key", "token", "session", "certificate"]
KEY_USER = "key:"  # begins the user_id of an API key
OF_SITE = "site/"  # begins the owner of sources that belong to all who are bound to one site


class Role(Enum):
    """viewer: sees everything of its sites. operator: also works on alarms and records maintenance. engineer: also
    registers machines and changes models. ingest: sends readings, and nothing else. admin: may do all, faults
    included. service: one of the platform's own, towards the others."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ENGINEER = "engineer"
    INGEST = "ingest"
    ADMIN = "admin"
    SERVICE = "service"


_INCLUDED: dict[Role, frozenset[Role]] = {
    Role.VIEWER: frozenset({Role.VIEWER}),
    Role.OPERATOR: frozenset({Role.VIEWER, Role.OPERATOR}),
    Role.ENGINEER: frozenset({Role.VIEWER, Role.OPERATOR, Role.ENGINEER}),
    Role.INGEST: frozenset({Role.INGEST}),
    Role.ADMIN: frozenset({Role.VIEWER, Role.OPERATOR, Role.ENGINEER, Role.INGEST, Role.ADMIN}),
    Role.SERVICE: frozenset({Role.VIEWER, Role.OPERATOR, Role.ENGINEER, Role.INGEST, Role.SERVICE}),
}
ASSIGNABLE = tuple(role for role in Role if role is not Role.SERVICE)


@dataclass(frozen=True, slots=True)
class Identity:
    """user_id: a name for logs, never a secret. sites: to which it is bound; empty for all. kind: how it was proved.
    key_id: of the API key that proved it. until: seconds since 1970 at which the proof ends."""

    user_id: str
    roles: frozenset[Role]
    kind: Kind
    sites: frozenset[str] = frozenset()
    key_id: str = ""
    until: float = math.inf

    def has(self, role: Role) -> bool:
        """Whether one of its roles includes a role."""
        return any(role in _INCLUDED[each] for each in self.roles)

    def may_see(self, site: str) -> bool:
        return not self.sites or site in self.sites

    @property
    def owner(self) -> str:
        """To whom the sources belong that it uses: its site, where it has only one, so that a new key of the same site
        goes on with them; empty where nobody is asked."""
        if self.kind == "open":
            return ""
        return f"{OF_SITE}{next(iter(self.sites))}" if len(self.sites) == 1 else f"user/{self.user_id}"


EVERYBODY = Identity("anonymous", frozenset({Role.ADMIN}), "open")  # where no authentication is asked for


def parse_roles(names: Iterable[str]) -> frozenset[Role]:
    """Raises ValueError with a sentence that lists the roles that there are."""
    known = {role.value: role for role in ASSIGNABLE}
    names = list(names)
    wrong = next((name for name in names if name not in known), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is no role; there are {', '.join(known)}")
    if not names:
        raise ValueError(f"at least one role must be given; there are {', '.join(known)}")
    return frozenset(known[name] for name in names)
