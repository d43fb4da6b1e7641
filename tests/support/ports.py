"""Free TCP ports, divided among the processes that run tests side by side."""

import contextlib
import itertools
import os
import random
import socket

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PORTS = range(11_000, 30_000)  # below the ephemeral ports, which a connection could take before the service does
_share = _PORTS[_WORKER::_WORKERS]
_first = random.randrange(len(_share))
_ports = itertools.cycle([*_share[_first:], *_share[:_first]])


def free_port() -> int:
    """Returns a port that nothing listens on, that was not returned lately, and that no other worker returns."""
    for port in _ports:
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a cycle has no end")
