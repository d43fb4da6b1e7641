"""A platform that authenticates its callers."""

from dataclasses import dataclass

from aurum.security.identity import Role
from tests.support.issuer import TestIssuer
from tests.support.platform import Platform


@dataclass
class Guarded:
    platform: Platform
    keys: dict[Role, str]
    issuer: TestIssuer

    @property
    def api(self) -> str:
        return self.platform.api

    def headers(self, role: Role | None) -> dict[str, str]:
        return {} if role is None else {"X-API-Key": self.keys[role]}
