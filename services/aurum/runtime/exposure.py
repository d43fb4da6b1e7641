"""Who reaches an address: what others reach asks who they are, or its settings say in words that it does not."""

import hmac
import ipaddress
from collections.abc import Mapping
from typing import Final

from aurum.runtime.settings import OPEN, SettingsError

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def require_closed(host: str, setting: str, *, said: str, name: str, instead: str) -> None:
    """Refuses to expose a server without authentication.

    Args:
        host: Address that the server listens on.
        setting: Name of the setting with that address.
        said: Value of the setting `name`, which may allow it.
        name: Name of the setting that may allow it.
        instead: Settings that turn authentication on.

    Raises:
        SettingsError: The server would be reachable from other machines.
    """
    if not is_loopback(host) and said != OPEN:
        raise SettingsError(
            f"refusing to start: {setting}={host} exposes the server to other machines without authentication; "
            f"set {instead}, or {name}={OPEN} to allow it"
        )


def changes_for_elsewhere(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser would change something for a page of somebody else's."""
    return method not in SAFE_METHODS and from_elsewhere(headers)


def from_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether a browser sends a request for a page of somebody else's, by what no page can forge (Fetch Metadata,
    Origin). False where no browser says anything. headers: by names in lower case."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin", "")
    return bool(origin) and origin.partition("://")[2] != headers.get("host", "")


def from_ourselves(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a page of ours sends a request."""
    return ("sec-fetch-site" in headers or "origin" in headers) and not from_elsewhere(headers)


def under_foreign_name(headers: Mapping[str, str]) -> bool:
    """Whether this machine is asked under a name that is not its own: a page whose name somebody has just made to mean
    127.0.0.1 (DNS rebinding)."""
    host = headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return bool(name) and not is_loopback(name)


def same_secret(stated: str, secret: str) -> bool:
    """In a time that tells nothing of where they differ."""
    return hmac.compare_digest(stated.encode(), secret.encode())
