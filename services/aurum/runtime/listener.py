"""Listening sockets."""

import errno
import socket

BACKLOG = 1024  # connections that wait to be accepted


class PortInUseError(OSError):
    """Raised when a port is already in use. The message names the port and its setting."""


def listen(host: str, port: int, setting: str) -> socket.socket:
    """Returns a listening TCP socket. Raises PortInUseError or OSError with a message that names the setting."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm only for sockets with an explicit TCP protocol; it would delay answers by 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"port {port} on {host} is in use by another program; stop it or set {setting} to a free port"
            ) from error
        raise OSError(f"cannot listen on {host}:{port} ({setting}): {error.strerror}") from error
    listener.setblocking(False)
    return listener
