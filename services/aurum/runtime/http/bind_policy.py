"""Rules on who may reach a server: exposure without authentication must be allowed explicitly by a setting."""

import ipaddress
from functools import lru_cache

from aurum.runtime.settings import OPEN, SettingsError


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def require_authentication(host: str, setting: str, *, openness: str, name: str, instead: str) -> None:
    """Refuses to expose a server without authentication.

    Args:
        host: Address that the server listens on.
        setting: Name of the setting with that address.
        openness: Value of the setting `name`, which may allow it.
        name: Name of the setting that may allow it.
        instead: Settings that turn authentication on.

    Raises:
        SettingsError: The server would be reachable from other machines.
    """
    if not is_loopback(host) and openness != OPEN:
        raise SettingsError(
            f"refusing to start: {setting}={host} exposes the server to other machines without authentication; "
            f"set {instead}, or {name}={OPEN} to allow it"
        )
