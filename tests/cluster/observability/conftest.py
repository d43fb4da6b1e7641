"""What the tests of dashboards and alerts share."""

import json
import re
import time
import urllib.parse
from typing import Any

from tests.cluster.kube import CHARTS, Namespace, http

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


def variables(prometheus: str, dashboard: dict[str, Any]) -> dict[str, str]:
    """What Grafana puts in for the variables when `All` is chosen, as their own queries find it."""
    found = {"__rate_interval": "1m", "__interval": "15s", "__range": "10m"}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
        match = urllib.parse.quote(expanded(selector, found))
        values = http("GET", f"{prometheus}/api/v1/label/{label}/values?match[]={match}")[1]["data"]
        if regex := variable["regex"].strip("/"):
            values = [value for value in values if re.search(regex, value)]
        assert values, f"{dashboard['title']}: nothing to choose for {variable['name']}"
        found[variable["name"]] = f"({'|'.join(map(re.escape, values))})".replace("\\", "\\\\")
    return found


def expanded(expr: str, values: dict[str, str]) -> str:
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(f"${name}", values[name])
    assert "$" not in expr.replace("$1", ""), expr
    return expr
