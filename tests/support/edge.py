"""What tests of the gateway's inputs share: a platform that listens, and what can be seen of it."""

from datetime import datetime
from typing import Any

import yaml

from tests.support.http import http
from tests.support.platform import Platform


def listen(platform: Platform, *inputs: dict[str, Any]) -> None:
    """Starts ingestion, API, and a gateway with these inputs."""
    path = platform.folder / "inputs.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"inputs": list(inputs)}))
    platform.extra |= {"AURUM_EDGE_INPUTS": str(path), "AURUM_FEATURE_PREDICTIVE": "false"}
    for service in ("ingestion", "edge", "api"):
        platform.start(service)


def connected(platform: Platform, name: str) -> bool:
    try:
        return platform.metric("edge", f'edge_input_connected{{input="{name}"}}') == 1
    except OSError:
        return False


def results(platform: Platform, name: str, of: str = "readings") -> dict[str, float]:
    """How many, by what became of them."""
    found = {}
    for line in platform.admin("edge", "/metrics").body.decode().splitlines():
        if line.startswith(f'edge_input_{of}_total{{input="{name}",result="'):
            found[line.partition('result="')[2].partition('"')[0]] = float(line.split("} ")[1].split(" ")[0])
    return found


def readings(platform: Platform, machine: str, sensor: str) -> list[float]:
    """The values that are stored, in the order of time."""
    return [value for series in _stored(platform, machine, sensor) for value in series["values"]]


def newest(platform: Platform, machine: str, sensor: str) -> float:
    """When the latest that is stored was read, in seconds since 1970; 0 if there is none."""
    times = [at for series in _stored(platform, machine, sensor) for at in series["timestamps"][-1:]]
    return max((datetime.fromisoformat(at).timestamp() for at in times), default=0.0)


def _stored(platform: Platform, machine: str, sensor: str) -> list[dict[str, Any]]:
    answer = http("GET", f"{platform.api}/api/machines/{machine}/metrics?sensor={sensor}&points=0")
    return list(answer.json.get("series", []))
