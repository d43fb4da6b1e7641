"""A whole release on a cluster of this machine: time from `helm install` to the first trace through all three services,
then memory and CPU of all its pods at rest, with 20 simulated machines, telemetry included.

On the cluster of the current kube-context, whose nodes must have the images; processes are looked up in this machine's
/proc by the pods' uids, so the node has to be this machine.
"""

import argparse
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
from tests.support.cluster.kube import REPOSITORY, TAG, Namespace, http, install_definitions, run

from benchmarks.harness import Goal, report

NAME = "aurumai-release"
_UID = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a shorter rest")
    rest = 20 if parser.parse_args().quick else 90
    namespace = Namespace(NAME)
    run("kubectl", "create", "namespace", NAME, check=False)
    try:
        started = time.monotonic()
        install(namespace)
        first = first_trace(namespace, started)
        time.sleep(rest)  # the history that simulators bring along is taken in
        before, at = cpu_seconds(namespace), time.monotonic()
        time.sleep(rest)
        cpu = (cpu_seconds(namespace) - before) / (time.monotonic() - at)
        memory = resident(namespace)
    finally:
        run("kubectl", "delete", "namespace", NAME, "--wait=false")
    sidecars = [
        size for (pod, name), size in memory.items() if name == "otelcol-contrib" and "observability" not in pod
    ]
    report(
        "release",
        {
            "seconds_to_first_trace": Goal(first, 120, at_most=True),
            "gb_resident": Goal(sum(memory.values()) / 1e9, 2.5, at_most=True),
            "cores_at_rest": Goal(cpu, 0.7, at_most=True),
            "mb_of_a_sidecar": Goal(max(sidecars) / 1e6, 96, at_most=True),
        },
        {
            "mb": {f"{pod} {name}": round(size / 1e6) for (pod, name), size in sorted(memory.items())},
            "rest_seconds": rest,
        },
    )


def install(namespace: Namespace) -> None:
    install_definitions()
    namespace.helm(
        *("install", "observability", "charts/observability", "--values", "k8s/examples/ci-observability-values.yaml")
    )
    image = f"image.repository={REPOSITORY},image.tag={TAG}"
    namespace.helm(
        "install", "aurumai", "charts/aurumai", "--values", "k8s/examples/laptop-values.yaml", "--set", image
    )


def first_trace(namespace: Namespace, started: float) -> float:
    """Seconds until an explanation's trace with spans of api, prediction and ingestion can be looked up."""
    deadline = started + 300
    while time.monotonic() < deadline:
        try:
            with (
                namespace.forwarded("service/aurumai-api", 8000) as api,
                namespace.forwarded("service/observability-jaeger", 16686) as jaeger,
            ):
                while time.monotonic() < deadline:
                    machines = http("GET", f"{api}/api/machines?limit=1")[1]["items"]
                    _, answer = http("GET", f"{api}/api/machines/{machines[0]['machine_id']}/explanation")
                    for _ in range(10):
                        if services_of(jaeger, answer["prediction"]["trace_id"]) == {"api", "prediction", "ingestion"}:
                            return time.monotonic() - started
                        time.sleep(1)
        except (OSError, ValueError, KeyError, IndexError):
            time.sleep(1)  # it is not there yet
    raise SystemExit("no trace through all services within five minutes")


def services_of(jaeger: str, trace_id: str) -> set[str]:
    status, found = http("GET", f"{jaeger}/api/traces/{trace_id}")
    if status != 200 or not found.get("data"):
        return set()
    return {process["serviceName"] for process in found["data"][0]["processes"].values()}


def processes(namespace: Namespace) -> dict[tuple[str, str], list[psutil.Process]]:
    """The processes of the pods on this machine, by pod and command."""
    pods = {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in namespace.get("pods")["items"]}
    found: dict[tuple[str, str], list[psutil.Process]] = defaultdict(list)
    for process in psutil.process_iter():
        try:
            match = _UID.search(Path(f"/proc/{process.pid}/cgroup").read_text())
            pod = pods.get(match[1].replace("_", "-")) if match else None
            if pod and process.name() != "pause":
                found[pod, process.name()].append(process)
        except (OSError, psutil.NoSuchProcess):
            continue
    if not found:
        raise SystemExit("the pods do not run on this machine")
    return found


def resident(namespace: Namespace) -> dict[tuple[str, str], int]:
    return {key: sum(each.memory_info().rss for each in group) for key, group in processes(namespace).items()}


def cpu_seconds(namespace: Namespace) -> float:
    times: list[Any] = [each.cpu_times() for group in processes(namespace).values() for each in group]
    return float(sum(each.user + each.system for each in times))


if __name__ == "__main__":
    main()
