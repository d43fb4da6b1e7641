"""All requests of the operator to the API server. Its RBAC rules correspond to this module."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from lightkube.core.async_client import AsyncClient
from lightkube.core.exceptions import ApiError
from lightkube.core.resource import NamespacedResource
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.apps_v1 import Deployment, StatefulSet
from lightkube.resources.core_v1 import ConfigMap, Event, Pod, Secret, Service
from lightkube.types import PatchType

from aurum.operator import metrics
from aurum.operator.api_connection import MANAGER
from aurum.operator.cluster_snapshot import CONTENT, CREDENTIALS, TOUCHED, TRACK, Resource, Workload
from aurum.operator.desired_state import content_hash
from aurum.operator.resources import GROUP, KINDS, VERSION
from aurum.operator.rollout import rfc3339

_CHUNK = 200  # objects per page of a list
PART_OF = "app.kubernetes.io/part-of"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
# Label of Secrets. With INSTANCE, Argo CD would take them for objects that were removed from its repository
RELEASE = "aurumai.io/release"
_NOT_FOUND = 404

POLICIES = {
    kind: create_namespaced_resource(GROUP, VERSION, kind, plural, verbs=["get", "list", "patch"])
    for kind, (plural, _) in KINDS.items()
}


class Cluster:
    """One namespace of a cluster.

    All methods raise lightkube's ApiError or httpx2's HTTPError.

    Args:
        client: Client of the API server.
        namespace: The namespace.
        release: The Helm release whose objects the operator manages.
    """

    def __init__(self, client: AsyncClient, namespace: str, release: str) -> None:
        self.namespace = namespace
        self._client = client
        self._release = release
        self._labels = {PART_OF: "aurumai", INSTANCE: release}

    async def resources(self) -> list[dict[str, Any]]:
        """Returns all policies as JSON."""
        return [each for kind in POLICIES.values() async for each in self._list(kind)]

    async def pods(self) -> list[dict[str, Any]]:
        """Returns the pods of the release as JSON."""
        return [each async for each in self._list(Pod, self._labels)]

    async def config_maps(self) -> list[dict[str, Any]]:
        """Returns the ConfigMaps of the release as JSON."""
        return [each async for each in self._list(ConfigMap, self._labels)]

    async def workloads(self) -> dict[str, Workload]:
        """Returns the workloads of the release by the names of their services."""
        labels = {
            _component(each): each["metadata"].get("labels", {}) async for each in self._list(Service, self._labels)
        }
        workloads = {}
        for kind in (Deployment, StatefulSet):
            async for each in self._list(kind, self._labels):
                service = _component(each)
                metadata = each["metadata"]
                workloads[service] = Workload(
                    service, "apps/v1", kind.__name__, metadata["name"], metadata["uid"], labels.get(service, {})
                )
        return workloads

    async def apply_config_map(self, workload: Workload, data: Mapping[str, str]) -> dict[str, Any]:
        """Writes the ConfigMap of a service. It is owned by the workload and deleted with it."""
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": workload.config_map,
                "labels": {**self._labels, COMPONENT: workload.service, "app.kubernetes.io/managed-by": MANAGER},
                "annotations": {CONTENT: content_hash(data)},
                "ownerReferences": [
                    {
                        "apiVersion": workload.api_version,
                        "kind": workload.kind,
                        "name": workload.name,
                        "uid": workload.uid,
                    }
                ],
            },
            "data": dict(data),
        }
        metrics.operator_writes_total.labels("configmap").inc()
        return await self._apply(ConfigMap, workload.config_map, body)

    async def annotate_pod(self, name: str, touched: str, track: str) -> dict[str, Any]:
        """Sets the annotations of a pod, which makes the kubelet update its volumes."""
        metrics.operator_writes_total.labels("pod").inc()
        body = {"metadata": {"annotations": {TOUCHED: touched, TRACK: track}}}
        answer = await self._client.patch(Pod, name, body, namespace=self.namespace, patch_type=PatchType.MERGE)
        return _to_json(answer)

    async def announce_credentials(self, name: str, content: str) -> None:
        """Sets the annotation of a pod that identifies its credentials, which makes the kubelet update its volumes."""
        metrics.operator_writes_total.labels("pod").inc()
        body = {"metadata": {"annotations": {CREDENTIALS: content}}}
        await self._client.patch(Pod, name, body, namespace=self.namespace, patch_type=PatchType.MERGE)

    async def secret(self, name: str) -> dict[str, Any] | None:
        """Returns a Secret as JSON, or None if it does not exist."""
        try:
            return _to_json(await self._client.get(Secret, name, namespace=self.namespace))
        except ApiError as error:
            if error.status.code == _NOT_FOUND:
                return None
            raise

    async def create_secret(self, name: str, body: Mapping[str, Any]) -> None:
        """Creates a Secret. It has no owner, so that it outlives the release as its volumes do."""
        metrics.operator_writes_total.labels("secret").inc()
        labels = {PART_OF: "aurumai", RELEASE: self._release, "app.kubernetes.io/managed-by": MANAGER}
        created = {**body, "metadata": {**body["metadata"], "name": name, "labels": labels}}
        await self._client.create(Secret.from_dict(created), namespace=self.namespace)  # type: ignore[call-overload]

    async def replace_secret(self, name: str, body: Mapping[str, Any]) -> None:
        """Replaces a Secret, unless it has changed since it was read (409)."""
        metrics.operator_writes_total.labels("secret").inc()
        await self._client.replace(Secret.from_dict(dict(body)), name, namespace=self.namespace)  # type: ignore[call-overload]

    async def write_status(self, resource: Resource, status: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the status of a policy resource and returns the resource as JSON."""
        kind = POLICIES[resource.kind]
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": resource.kind,
            "metadata": {"name": resource.name, "uid": resource.uid},  # not another one of the same name
            "status": dict(status),
        }
        metrics.operator_writes_total.labels("status").inc()
        return await self._apply(kind.Status, resource.name, body)

    async def event(self, about: Mapping[str, str], kind: str, reason: str, message: str, now: float) -> None:
        """Creates a Kubernetes event.

        Args:
            about: apiVersion, kind, name and uid of an object.
            kind: Normal or Warning.
            reason: Reason in one word.
            message: Message, of which 1000 characters are kept.
            now: Seconds since 1970.
        """
        metrics.operator_writes_total.labels("event").inc()
        moment = rfc3339(now)
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{about['name']}.", "namespace": self.namespace},
            "involvedObject": {**about, "namespace": self.namespace},
            "type": kind,
            "reason": reason,
            "message": message[:1000],
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        await self._client.create(Event.from_dict(body), namespace=self.namespace)  # type: ignore[call-overload]

    async def _apply(self, kind: type[NamespacedResource], name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self._client.patch(
            kind,
            name,
            dict(body),
            namespace=self.namespace,
            patch_type=PatchType.APPLY,
            field_manager=MANAGER,
            force=True,
        )
        return _to_json(answer)

    async def _list(
        self, kind: type[NamespacedResource], labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        objects = self._client.list(
            kind, namespace=self.namespace, chunk_size=_CHUNK, labels=dict(labels or {}) or None
        )
        async for each in objects:
            plain = _to_json(each)
            plain.setdefault("kind", kind.__name__)
            yield plain


def _to_json(answer: Any) -> dict[str, Any]:
    return dict(answer) if isinstance(answer, dict) else dict(answer.to_dict())


def _component(body: Mapping[str, Any]) -> str:
    return str(body["metadata"].get("labels", {}).get(COMPONENT, ""))
