"""How fast an edited policy reaches pods: kubectl edit → every pod has it in force → the status says Converged.

On the cluster of the current kube-context, whose nodes must have the images and whose pods must be reachable from here
(a local cluster). The pods are real: ten of the API, with the operator in the cluster. Each pod says itself since when
it has the document; on one machine its clock is ours. Then the memory of an operator with 1,000 policies, more than
anybody has, and what it writes while nothing changes.
"""

import argparse
import json
import os
import statistics
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.client import Client
from lightkube.resources.core_v1 import Pod
from lightkube.types import PatchType
from tests.support.cluster.kube import REPOSITORY, TAG, install_definitions, run

from aurum.operator.kubernetes import POLICIES
from benchmarks.harness import Goal, report

NAMESPACE = "aurumai-propagation"
KIND = POLICIES["ResiliencePolicy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer edits, fewer policies, a shorter rest")
    quick = parser.parse_args().quick
    pods, edits, many, rest = (3, 10, 100, 30) if quick else (10, 100, 1000, 300)
    client = Client(KubeConfig.from_env().get(), namespace=NAMESPACE, trust_env=False)
    install(pods)
    try:
        result = measure(client, edits)
        result |= crowded(client, many, rest)
    finally:
        run("kubectl", "delete", "namespace", NAMESPACE, "--wait=false")
    goals = {
        "applied_by_all_p50_seconds": Goal(result["applied"]["p50"], 0.5, at_most=True),
        "applied_by_all_p99_seconds": Goal(result["applied"]["p99"], 1.5, at_most=True),
        "converged_p99_seconds": Goal(result["converged"]["p99"], 2.0, at_most=True),
        "operator_mib_with_many_policies": Goal(result["rss_mib"], 120, at_most=True),
        "writes_while_nothing_changes": Goal(result["writes_at_rest"], 0, at_most=True),
    }
    report("propagation", goals, {"pods": pods, "edits": edits, "policies": many, "rest_seconds": rest, **result})


def install(pods: int) -> None:
    """A release without what does not matter here: simulators, collectors, the gateway."""
    run("kubectl", "create", "namespace", NAMESPACE, check=False)
    install_definitions()
    values = {
        "image": {"repository": REPOSITORY, "tag": TAG},
        "environment": "benchmark",
        "edge": {"enabled": False},
        "api": {"replicas": pods, "resources": {"requests": {"cpu": "5m", "memory": "64Mi"}}},
        "prediction": {"replicas": 1, "resources": {"requests": {"cpu": "5m", "memory": "64Mi"}}},
        "ingestion": {"persistence": {"enabled": False}, "resources": {"requests": {"cpu": "5m", "memory": "64Mi"}}},
        "telemetry": {"collector": {"enabled": False}},
        "settings": {"AURUM_TRACING_ENABLED": "false"},
    }
    path = Path(os.environ.get("TMPDIR", "/tmp")) / "propagation-values.json"  # noqa: S108
    path.write_text(json.dumps(values))
    arguments = ("--namespace", NAMESPACE, "--values", str(path), "--wait", "--timeout", "8m")
    run("helm", "upgrade", "--install", "aurumai", "charts/aurumai", *arguments)


def measure(client: Client, edits: int) -> dict[str, Any]:
    """Edits one policy again and again, with rests in between."""
    addresses = [
        f"{pod.status.podIP}:9090"  # type: ignore[union-attr]
        for pod in client.list(Pod, labels={"app.kubernetes.io/component": "api"})
    ]
    applied: list[float] = []
    converged: list[float] = []
    for number in range(edits + 1):
        spec = {"targetRefs": [{"service": "prediction"}], "retry": {"maxAttempts": 2 + number % 8}}
        body = {"apiVersion": "aurumai.io/v1alpha1", "kind": "ResiliencePolicy", "metadata": {"name": "edited"}}
        done = client.patch(
            KIND, "edited", {**body, "spec": spec}, patch_type=PatchType.APPLY, field_manager="bench", force=True
        )
        edited, generation = time.time(), done["metadata"]["generation"]
        at = until_converged(client, generation)
        seconds = [since(address, generation) - edited for address in addresses]
        if number:  # the first one is new; what is measured are edits
            applied.append(max(seconds))
            converged.append(at - edited)
        time.sleep(2.1)  # a status is written every two seconds at most
    return {"applied": spread(applied), "converged": spread(converged)}


def until_converged(client: Client, generation: int) -> float:
    deadline = time.time() + 60
    while time.time() < deadline:
        status = client.get(KIND, "edited").get("status") or {}
        now = time.time()
        for each in status.get("conditions", ()):
            if each["type"] == "Converged" and each["status"] == "True" and each["observedGeneration"] == generation:
                return now
        time.sleep(0.01)
    raise SystemExit(f"generation {generation} has not converged within a minute: {json.dumps(status)}")


def since(address: str, generation: int) -> float:
    """When a pod put the document in force that has this generation of the policy."""
    with urllib.request.urlopen(f"http://{address}/policy", timeout=5) as answer:
        state = json.load(answer)
    assert [source["generation"] for source in state["sources"]] == [generation], state["sources"]
    return datetime.fromisoformat(state["policy"]["since"]).timestamp()


def crowded(client: Client, many: int, rest: int) -> dict[str, Any]:
    """Many policies (most lose to an older one, since there are not so many calls), then rest."""
    for number in range(many):
        spec = {"targetRefs": [{"service": "prediction"}], "bulkhead": {"maxConcurrent": 1 + number}}
        body = {"apiVersion": "aurumai.io/v1alpha1", "kind": "ResiliencePolicy", "metadata": {"name": f"p{number}"}}
        client.patch(KIND, f"p{number}", {**body, "spec": spec}, patch_type=PatchType.APPLY, field_manager="bench")
    address = f"{next(iter(client.list(Pod, labels={'app.kubernetes.io/component': 'operator'}))).status.podIP}:9090"  # type: ignore[union-attr]
    deadline, told = time.time() + 180, 0
    while time.time() < deadline and told < many:
        told = sum(bool((body.get("status") or {}).get("conditions")) for body in client.list(KIND, chunk_size=200))
        time.sleep(2)
    time.sleep(10)
    before = writes(address)
    time.sleep(rest)
    after = writes(address)
    return {"writes_at_rest": after - before, "rss_mib": rss(address), "policies_with_status": told}


def writes(address: str) -> float:
    return sum(
        value
        for name, value in metrics(address)
        if name.startswith("operator_writes_total") and 'kind="lease"' not in name
    )


def rss(address: str) -> float:
    return dict(metrics(address))["process_resident_memory_bytes"] / 2**20


def metrics(address: str) -> list[tuple[str, float]]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.split(" # ")[0].rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return [(name, float(value)) for name, value in pairs]


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "max": ordered[-1],
        "min": ordered[0],
    }


if __name__ == "__main__":
    main()
