"""Resolves the name of a headless Service into the addresses of its pods."""

import asyncio
import ipaddress
import socket


def split_address(address: str) -> tuple[str, int]:
    """Returns host and port of host:port. Raises ValueError if it is not of this form."""
    host, colon, port = address.strip().rpartition(":")
    if not colon or not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)


def join_address(host: str, port: int) -> str:
    """Returns an address as host:port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_name(host: str) -> bool:
    """Whether a host is a name that has to be resolved, and not an address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


async def resolve(host: str, port: int) -> list[str]:
    """Returns the addresses of a host as host:port, sorted.

    Raises:
        OSError: The name cannot be resolved.
    """
    if not is_name(host):
        return [join_address(host, port)]
    found = await asyncio.to_thread(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    return sorted({join_address(str(each[4][0]), port) for each in found})
