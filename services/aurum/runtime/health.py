"""Readiness of a service: it has started, is not stopping, and no dependency is missing."""

from collections.abc import Callable

Check = Callable[[], str | None]

PROBES = ("/livez", "/readyz", "/metrics")
"""Paths that Kubernetes and Prometheus ask periodically."""


class Health:
    """The state of one service. A check returns None, or a sentence that says what is missing."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._started = False
        self._stopping = False
        self.draining = False
        self._listeners: list[Callable[[bool], None]] = []

    def add_check(self, name: str, check: Check) -> None:
        """Adds a check of readiness. check: Returns None, or a sentence that says what is missing."""
        self._checks[name] = check

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Calls `listener` with True when the service starts to accept work, and with False when it stops."""
        self._listeners.append(listener)

    def started(self) -> None:
        """Marks the service as started, and notifies the listeners."""
        self._started = True
        self._notify(True)

    def drain(self) -> None:
        """Marks the service as draining. It still serves all callers, but new ones should use another instance."""
        self.draining = True

    def stopping(self) -> None:
        """Marks the service as stopping, and notifies the listeners."""
        self._stopping = True
        self._notify(False)

    def missing(self) -> dict[str, str]:
        """Returns the reasons why the service is not ready, by check. It is empty when the service is ready."""
        if self._stopping or self.draining:
            return {"service": "is stopping"}
        if not self._started:
            return {"service": "is starting"}
        problems = ((name, check()) for name, check in self._checks.items())
        return {name: problem for name, problem in problems if problem}

    def _notify(self, serving: bool) -> None:
        for listener in self._listeners:
            listener(serving)
