"""Helpers of tests of the gateway's inputs: starting the platform, and reading its metrics and stored values."""

from datetime import datetime
from typing import Any

import yaml

from tests.support.http import http
from tests.support.platform import Platform


def start_gateway(platform: Platform, *inputs: dict[str, Any]) -> None:
    """Starts ingestion, the API, and a gateway with these inputs."""
    path = platform.folder / "inputs.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"inputs": list(inputs)}))
    platform.extra |= {"AURUM_EDGE_INPUTS": str(path), "AURUM_FEATURE_PREDICTIVE": "false"}
    for service in ("ingestion", "edge", "api"):
        platform.start(service)


def is_connected(platform: Platform, name: str) -> bool:
    """Returns whether an input is connected."""
    try:
        return platform.metric("edge", f'edge_input_connected{{input="{name}"}}') == 1
    except OSError:
        return False


def input_problem(platform: Platform, name: str) -> str:
    """Returns the problem that the overview shows for an input; empty if there is none."""
    inputs = platform.admin("edge", "/overview").json["inputs"]
    return str(next(each["problem"] for each in inputs if each["name"] == name) or "")


def input_counts(platform: Platform, name: str, kind: str = "readings") -> dict[str, float]:
    """Returns how many readings or messages an input has counted, by result."""
    counts = {}
    for line in platform.admin("edge", "/metrics").body.decode().splitlines():
        if line.startswith(f'edge_input_{kind}_total{{input="{name}",result="'):
            counts[line.partition('result="')[2].partition('"')[0]] = float(line.split("} ")[1].split(" ")[0])
    return counts


def stored_values(platform: Platform, machine: str, sensor: str) -> list[float]:
    """Returns the stored values of a sensor in time order."""
    return [value for series in _stored_series(platform, machine, sensor) for value in series["values"]]


def newest_time(platform: Platform, machine: str, sensor: str) -> float:
    """Returns the time of the newest stored reading in seconds since the epoch; 0 if there is none."""
    times = [at for series in _stored_series(platform, machine, sensor) for at in series["timestamps"][-1:]]
    return max((datetime.fromisoformat(at).timestamp() for at in times), default=0.0)


def _stored_series(platform: Platform, machine: str, sensor: str) -> list[dict[str, Any]]:
    response = http("GET", f"{platform.api}/api/machines/{machine}/metrics?sensor={sensor}&points=0")
    return list(response.json.get("series", []))
