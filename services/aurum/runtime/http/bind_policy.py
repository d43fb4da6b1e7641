"""Rules on who may reach a server: exposure without authentication must be allowed explicitly by a setting."""

import hmac
import ipaddress
from collections.abc import Mapping
from typing import Final

from aurum.runtime.settings import OPEN, SettingsError

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


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


def is_cross_site_write(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser sends a changing request for a page of another site."""
    return method not in SAFE_METHODS and is_cross_site(headers)


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser sends the request for a page of another site.

    The headers used (Fetch Metadata, Origin) cannot be forged by a page. The result is False for requests without them.
    Header names must be in lower case.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin", "")
    return bool(origin) and origin.partition("://")[2] != headers.get("host", "")


def is_same_origin(headers: Mapping[str, str]) -> bool:
    """Whether a browser states that one of our own pages sends the request."""
    return ("sec-fetch-site" in headers or "origin" in headers) and not is_cross_site(headers)


def has_foreign_host(headers: Mapping[str, str]) -> bool:
    """Whether the request addresses this machine by a name that is not its own.

    That is a sign of DNS rebinding, where a page's host name is made to resolve to 127.0.0.1.
    """
    host = headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return bool(name) and not is_loopback(name)


def same_secret(stated: str, secret: str) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(stated.encode(), secret.encode())
