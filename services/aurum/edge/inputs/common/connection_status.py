"""The connection state of an input, as shown by the gateway's overview, a metric and the log."""

import logging

from aurum.edge import metrics

logger = logging.getLogger(__name__)


class ConnectionStatus:
    def __init__(self, name: str) -> None:
        """Creates the state of the input `name`."""
        self._name = name
        self._caused = False
        self._connected = metrics.edge_input_connected.labels(name)
        self._connected.set(0)
        self.problem: str | None = "is not connected yet"

    def lost(self, problem: str, *, cause: bool = True) -> None:
        """Records that the connection is lost.

        Args:
            problem: What happened, for the log and the health check.
            cause: Whether the peer or the network is at fault. If not, a known cause remains the reported problem.
        """
        self._connected.set(0)
        if problem != self.problem and (cause or not self._caused):
            logger.warning("%s: %s", self._name, problem)
            self.problem, self._caused = problem, cause

    def found(self) -> None:
        if self.problem is not None:
            logger.info("%s is connected", self._name)
        self._connected.set(1)
        self.problem, self._caused = None, False
