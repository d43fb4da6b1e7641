"""What the tests of dashboards and alerts share."""

import json
import time

from tests.cluster.kube import CHARTS, Namespace

DASHBOARDS = [json.loads(path.read_text()) for path in sorted((CHARTS / "observability" / "dashboards").glob("*.json"))]


def age(release: Namespace) -> float:
    """Seconds since the newest pod of the release was ready."""
    ready = [
        condition["lastTransitionTime"]
        for pod in release.pods()
        for condition in pod["status"]["conditions"]
        if condition["type"] == "Ready"
    ]
    return time.time() - time.mktime(time.strptime(max(ready), "%Y-%m-%dT%H:%M:%SZ")) + time.timezone
