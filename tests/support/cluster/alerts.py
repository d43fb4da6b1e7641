"""What the tests of dashboards and alerts share, and what has to be told of alerts."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.support.cluster.kube import CHARTS, Namespace, http, wait_for

DASHBOARDS = [json.loads(path.read_text()) for path in sorted((CHARTS / "observability" / "dashboards").glob("*.json"))]
FASTER = 120
DOCS, GRAFANA = "https://docs.example.com/aurum/", "https://grafana.example.com"
FIRES, CLEARS = 240.0, 420.0  # seconds
METER = {
    "name": "meters",
    "protocol": "modbus",
    "host": "meter",
    "port": 5020,
    "registers": [
        {"address": 0, "machine": "meter-1", "sensor": "seconds"},
        {"address": 9, "machine": "meter-1", "sensor": "seconds_again"},
    ],
    "rules": [{"sensor": "seconds", "minimum": 0, "maximum": 59}],
}


def age(release: Namespace) -> float:
    """Seconds since the newest pod of the release was ready."""
    ready = [
        condition["lastTransitionTime"]
        for pod in release.pods()
        for condition in pod["status"]["conditions"]
        if condition["type"] == "Ready"
    ]
    return time.time() - time.mktime(time.strptime(max(ready), "%Y-%m-%dT%H:%M:%SZ")) + time.timezone


class Watch:
    """What the webhook was told, and the faults that are over: alert → when they began to be healed."""

    def __init__(self, release: Namespace, webhook: str) -> None:
        self.release = release
        self.ended: dict[str, float] = {}
        self._webhook = webhook

    def told(self, alert: str, status: str, since: float = 0.0) -> list[dict[str, Any]]:
        """What it was told of an alert that began or ended after a moment."""
        moment = {"firing": "startsAt", "resolved": "endsAt"}[status]
        return [
            each
            for each in self._alerts()
            if (each["labels"]["alertname"], each["status"]) == (alert, status) and _seconds(each[moment]) >= since
        ]

    def fires(self, names: set[str]) -> None:
        """Waits until all of them fire, after which the fault is about to end."""
        self._wait(lambda: {name for name in names if not self.told(name, "firing")}, "firing", FIRES)
        self.ended |= dict.fromkeys(names, time.time())

    def clears(self) -> None:
        """Waits until each has ended after its fault, and none was told of as firing since."""

        def missing() -> set[str]:
            last = {each["fingerprint"]: each for each in self._alerts()}.values()
            firing = {each["labels"]["alertname"] for each in last if each["status"] == "firing"}
            return {
                name for name, since in self.ended.items() if name in firing or not self.told(name, "resolved", since)
            }

        self._wait(missing, "resolved", CLEARS)

    def _alerts(self) -> list[dict[str, Any]]:
        """In the order in which they were told of."""
        return [each for notification in http("GET", self._webhook)[1] for each in notification["alerts"]]

    def _wait(self, missing: Callable[[], set[str]], status: str, seconds: float) -> None:
        started = time.monotonic()
        left = missing()
        while left:
            passed = time.monotonic() - started
            assert passed < seconds, f"not {status} within {seconds} s: {', '.join(sorted(left))}"
            time.sleep(2)
            before, left = left, missing()
            for name in sorted(before - left):
                print(f"{name} {status} after {passed:.0f} s")


def _seconds(moment: str) -> float:
    import datetime

    return datetime.datetime.fromisoformat(moment[:19] + "+00:00").timestamp()


def predict(api: str, machines: Sequence[str]) -> None:
    """For each of them, four at a time, whatever comes back."""
    with ThreadPoolExecutor(4, "predict") as pool:
        for _ in pool.map(lambda machine: http("POST", f"{api}/api/predict", {"machine_id": machine}), machines):
            pass


def known_machines(api: str) -> list[dict[str, Any]]:
    """What the API knows, once its breaker lets it ask."""
    found = wait_for(lambda: http("GET", f"{api}/api/machines?limit=100")[1]["items"], 60, "the machines are known")
    return list(found)
