"""A snapshot of the cluster for the command line: the operator's view without the reports of pods."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from aurum.operator.api_connection import open_client
from aurum.operator.cluster_snapshot import ClusterSnapshot, Resource
from aurum.operator.informer_cache import InformerCache
from aurum.operator.kubernetes import Cluster


async def snapshot_cluster(namespace: str | None, release: str, defaults: str) -> ClusterSnapshot:
    """Reads everything that policies depend on, using the current kube-context.

    Raises lightkube's ConfigError or ApiError.
    """
    client = open_client(namespace)
    try:
        cluster = Cluster(client, client.namespace, release)
        store = InformerCache(defaults)
        store.workloads = await cluster.workloads()
        store.replace_all(await cluster.resources(), await cluster.pods(), await cluster.config_maps())
        return ClusterSnapshot(
            cluster.namespace,
            store.resources,
            store.workloads,
            store.pods,
            store.config_maps(),
            store.defaults,
            {},
            {},
            time.time(),
        )
    finally:
        await client.aclose()


def with_manifests(cluster: ClusterSnapshot, manifests: Iterable[dict[str, Any]]) -> ClusterSnapshot:
    """Returns the cluster as if these resources were applied. Existing resources keep their age."""
    by_kind_and_name = {(each.kind, each.name): each for each in cluster.resources}
    for number, body in enumerate(manifests):
        metadata = {"uid": f"new-{number}", "creationTimestamp": "9999", "generation": 1, **body["metadata"]}
        proposed = Resource.from_json({**body, "metadata": metadata})
        present = by_kind_and_name.get((proposed.kind, proposed.name))
        if present:
            metadata |= {"uid": present.uid, "creationTimestamp": present.created, "generation": present.generation + 1}
            proposed = Resource.from_json({**body, "metadata": metadata, "status": present.status})
        by_kind_and_name[proposed.kind, proposed.name] = proposed
    return replace(cluster, resources=tuple(by_kind_and_name.values()))
