"""Identities of callers, and their roles."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

ProofKind = Literal["open", "key", "token", "session", "certificate"]
KEY_USER_PREFIX = "key:"  # prefix of the user_id of an API key
SITE_OWNER_PREFIX = "site/"  # prefix of the owner of sources that callers bound to one site share


class Role(Enum):
    """A role of a caller.

    Attributes:
        VIEWER: Reads everything of its sites.
        OPERATOR: Also handles alarms and records maintenance.
        ENGINEER: Also registers machines and changes models.
        INGEST: Sends readings and does nothing else.
        ADMIN: Does everything that users may do, including fault injection.
        SERVICE: A service of the platform that calls another one.
    """

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
    """Who makes a request, and how that was proved.

    Attributes:
        user_id: A name for logs, never a secret.
        roles: What the caller may do.
        kind: The kind of proof.
        sites: The sites that the caller is bound to; empty for all sites.
        key_id: The id of the API key that proved the identity.
        until: When the proof expires, in seconds since 1970.
    """

    user_id: str
    roles: frozenset[Role]
    kind: ProofKind
    sites: frozenset[str] = frozenset()
    key_id: str = ""
    until: float = math.inf

    def has(self, role: Role) -> bool:
        """Whether the identity has a role, or one that includes it."""
        return any(role in _INCLUDED[each] for each in self.roles)

    def may_see(self, site: str) -> bool:
        """Whether the caller may see machines of a site."""
        return not self.sites or site in self.sites

    @property
    def owner(self) -> str:
        """The owner of the sources that this caller uses.

        It is the site if the caller is bound to exactly one, so that a new key of that site can use the same sources.
        It is empty if callers are not authenticated.
        """
        if self.kind == "open":
            return ""
        return f"{SITE_OWNER_PREFIX}{next(iter(self.sites))}" if len(self.sites) == 1 else f"user/{self.user_id}"


EVERYBODY = Identity("anonymous", frozenset({Role.ADMIN}), "open")  # used if callers are not authenticated


def parse_roles(names: Iterable[str]) -> frozenset[Role]:
    """Returns the roles of these names. Raises ValueError, which lists the known roles, for an unknown or no name."""
    roles_by_name = {role.value: role for role in ASSIGNABLE}
    names = list(names)
    wrong = next((name for name in names if name not in roles_by_name), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is not a role; the roles are {', '.join(roles_by_name)}")
    if not names:
        raise ValueError(f"at least one role must be given; the roles are {', '.join(roles_by_name)}")
    return frozenset(roles_by_name[name] for name in names)
