"""The connection state of an input, as shown by the gateway's overview, a metric and the log."""

import logging

from aurum.edge import metrics

logger = logging.getLogger(__name__)


class ConnectionStatus:
    """The connection state of one input."""

    def __init__(self, name: str) -> None:
        """Creates the state of the input `name`."""
        self._name = name
        self._peer_fault = False
        self._connected = metrics.edge_input_connected.labels(name)
        self._connected.set(0)
        self.problem: str | None = "is not connected yet"

    def mark_lost(self, problem: str, *, cause: bool = True) -> None:
        """Records that the connection is lost.

        Args:
            problem: What happened, for the log and the health check.
            cause: Whether the peer or the network is at fault. If not, an earlier cause stays the reported
                problem.
        """
        self._connected.set(0)
        if problem != self.problem and (cause or not self._peer_fault):
            logger.warning("%s: %s", self._name, problem)
            self.problem, self._peer_fault = problem, cause

    def mark_connected(self) -> None:
        """Records that the input is connected."""
        if self.problem is not None:
            logger.info("%s is connected", self._name)
        self._connected.set(1)
        self.problem, self._peer_fault = None, False
