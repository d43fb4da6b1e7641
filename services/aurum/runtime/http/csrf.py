"""Checks against requests that a page of another site makes a browser send (CSRF, DNS rebinding)."""

from collections.abc import Mapping
from typing import Final

from aurum.runtime.http.bind_policy import is_loopback

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


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
