"""A snapshot of the cluster for the command line: the operator's view without the reports of pods."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from aurum.operator.api_connection import open_client
from aurum.operator.cluster_snapshot import Resource, World
from aurum.operator.informer_cache import Store
from aurum.operator.kubernetes import Cluster


async def look(namespace: str | None, release: str, defaults: str) -> World:
    """Reads everything that policies depend on, using the current kube-context.

    Raises lightkube's ConfigError or ApiError.
    """
    client = open_client(namespace)
    try:
        cluster = Cluster(client, client.namespace, release)
        store = Store(defaults)
        store.workloads = await cluster.workloads()
        store.take_all(await cluster.resources(), await cluster.pods(), await cluster.config_maps())
        return World(
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


def with_manifests(world: World, manifests: Iterable[dict[str, Any]]) -> World:
    """Returns the world as if these resources were applied. Existing resources keep their age."""
    known = {(each.kind, each.name): each for each in world.resources}
    for number, body in enumerate(manifests):
        metadata = {"uid": f"new-{number}", "creationTimestamp": "9999", "generation": 1, **body["metadata"]}
        proposed = Resource.of({**body, "metadata": metadata})
        present = known.get((proposed.kind, proposed.name))
        if present:
            metadata |= {"uid": present.uid, "creationTimestamp": present.created, "generation": present.generation + 1}
            proposed = Resource.of({**body, "metadata": metadata, "status": present.status})
        known[proposed.kind, proposed.name] = proposed
    return replace(world, resources=tuple(known.values()))
