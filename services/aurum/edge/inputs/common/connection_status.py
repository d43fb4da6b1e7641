"""The connection state of an input, as shown by the gateway's overview, metrics and the log."""

import logging
from collections.abc import Collection

from aurum.edge import metrics

logger = logging.getLogger(__name__)

_MAX_NAMED = 5  # missing parts that the problem names


class ConnectionStatus:
    """The connection state of one input."""

    def __init__(self, name: str) -> None:
        """Creates the state of the input `name`."""
        self._name = name
        self._peer_fault = False
        self._connected = metrics.edge_input_connected.labels(name)
        self._connected.set(0)
        self._missing_count = metrics.edge_input_missing.labels(name)
        self._lost: str | None = "is not connected yet"
        self._missing: str | None = None

    @property
    def problem(self) -> str | None:
        """Why the input is not connected, or which parts of its configuration the device does not have."""
        return self._lost or self._missing

    def mark_lost(self, problem: str, *, cause: bool = True) -> None:
        """Records that the connection is lost.

        Args:
            problem: What happened, for the log and the health check.
            cause: Whether the peer or the network is at fault. If not, an earlier cause stays the reported
                problem.
        """
        self._connected.set(0)
        if problem != self._lost and (cause or not self._peer_fault):
            logger.warning("%s: %s", self._name, problem)
            self._lost, self._peer_fault = problem, cause

    def mark_connected(self) -> None:
        """Records that the input is connected."""
        if self._lost is not None:
            logger.info("%s is connected", self._name)
        self._connected.set(1)
        self._lost, self._peer_fault = None, False

    def mark_missing(self, missing: Collection[str]) -> None:
        """Records which parts of the configuration the device does not have; none if all are there."""
        self._missing_count.set(len(missing))
        text = "; ".join(list(missing)[:_MAX_NAMED]) or None
        if text is not None and len(missing) > _MAX_NAMED:
            text += f"; and {len(missing) - _MAX_NAMED} more"
        if text is not None and text != self._missing:
            logger.warning("%s: %s", self._name, text)
        self._missing = text
