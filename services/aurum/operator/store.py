"""What the operator knows of the cluster: kept up to date by events, set right by lists now and then."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aurum.operator.kubernetes import COMPONENT
from aurum.operator.observed import CONTENT, ConfigMap, Pod, Resource, Workload
from aurum.resilience.policy import PolicyDocument, PolicyError, parse_policy_document
from aurum.runtime.policy_location import DEFAULTS

_ADMIN_PORT = 9090


@dataclass(slots=True)
class Store:
    """defaults_name: of the ConfigMap with the chart's policies. problem: why these cannot be used, if so."""

    defaults_name: str
    workloads: dict[str, Workload] = field(default_factory=dict)
    defaults: PolicyDocument = field(default_factory=PolicyDocument)
    problem: str = ""
    _resources: dict[str, tuple[int, Resource]] = field(default_factory=dict)
    _pods: dict[str, tuple[int, Pod]] = field(default_factory=dict)
    _config_maps: dict[str, tuple[int, ConfigMap]] = field(default_factory=dict)

    @property
    def resources(self) -> tuple[Resource, ...]:
        return tuple(resource for _, resource in self._resources.values())

    @property
    def pods(self) -> tuple[Pod, ...]:
        return tuple(pod for _, pod in self._pods.values())

    def config_maps(self) -> dict[str, ConfigMap]:
        """The ConfigMaps with documents, by service."""
        return {
            service: self._config_maps[workload.config_map][1]
            for service, workload in self.workloads.items()
            if workload.config_map in self._config_maps
        }

    def take_all(
        self, resources: list[dict[str, Any]], pods: list[dict[str, Any]], config_maps: list[dict[str, Any]]
    ) -> None:
        """What lists have brought is all there is."""
        for known, bodies in ((self._resources, resources), (self._pods, pods)):
            uids = {body["metadata"]["uid"] for body in bodies}
            for uid in set(known) - uids:
                del known[uid]
        names = {body["metadata"]["name"] for body in config_maps}
        for name in set(self._config_maps) - names:
            del self._config_maps[name]
        for body in resources:
            self.resource(body)
        for body in pods:
            self.pod(body)
        for body in config_maps:
            self.config_map(body)

    def resource(self, body: Mapping[str, Any], *, deleted: bool = False) -> bool:
        """A policy as it is now; whether anything has changed. What is older than what is known is let pass."""
        metadata = body["metadata"]
        uid, version = metadata["uid"], _version(metadata)
        if deleted:
            return self._resources.pop(uid, None) is not None
        known = self._resources.get(uid)
        if known and known[0] >= version:
            return False
        resource = Resource.of(body)
        self._resources[uid] = version, resource
        return known is None or known[1] != resource

    def pod(self, body: Mapping[str, Any], *, deleted: bool = False) -> bool:
        """The same for a pod; those that do not run, or end, are not there."""
        metadata = body["metadata"]
        uid, version = metadata["uid"], _version(metadata)
        known = self._pods.get(uid)
        if known and known[0] >= version and not deleted:
            return False
        pod = None if deleted else _running(body)
        if pod is None:
            return self._pods.pop(uid, None) is not None
        self._pods[uid] = version, pod
        return known is None or known[1] != pod

    def config_map(self, body: Mapping[str, Any], *, deleted: bool = False) -> bool:
        """The same for a ConfigMap, be it of the defaults or of a service."""
        metadata = body["metadata"]
        name, version = metadata["name"], _version(metadata)
        if name == self.defaults_name:
            return not deleted and self._take_defaults((body.get("data") or {}).get(DEFAULTS, ""))
        known = self._config_maps.get(name)
        if known and known[0] >= version:
            return False
        if deleted:
            return self._config_maps.pop(name, None) is not None
        config_map = ConfigMap(name, body.get("data") or {}, (metadata.get("annotations") or {}).get(CONTENT))
        self._config_maps[name] = version, config_map
        return known is None or known[1] != config_map

    def _take_defaults(self, text: str) -> bool:
        try:
            defaults = parse_policy_document(text, self.defaults_name)
        except PolicyError as problem:
            changed = self.problem != str(problem)
            self.problem = str(problem)
            return changed
        changed = defaults != self.defaults or bool(self.problem)
        self.defaults, self.problem = defaults, ""
        return changed


def _running(body: Mapping[str, Any]) -> Pod | None:
    metadata, status = body["metadata"], body.get("status") or {}
    ip = status.get("podIP")
    if metadata.get("deletionTimestamp") or status.get("phase") != "Running" or not ip:
        return None
    service = (metadata.get("labels") or {}).get(COMPONENT, "")
    ports = [
        port["containerPort"]
        for container in body["spec"].get("containers", ())
        for port in container.get("ports") or ()
        if port.get("name") == "admin"
    ]
    host = f"[{ip}]" if ":" in ip else ip
    annotations = metadata.get("annotations") or {}
    wanted = {name: value for name, value in annotations.items() if name.startswith("aurumai.io/")}
    return Pod(metadata["name"], metadata["uid"], service, f"{host}:{ports[0] if ports else _ADMIN_PORT}", wanted)


def _version(metadata: Mapping[str, Any]) -> int:
    """Resource versions grow; of two states of an object the one with the higher one is the newer."""
    version = str(metadata.get("resourceVersion", "0"))
    return int(version) if version.isdigit() else 0
