"""The operator's knowledge of the cluster, updated by events and corrected by periodic lists.

Two rules decide which of two states of an object is newer. The response to a request is newer than everything that was
known when the request was sent, whatever its resourceVersion: after a restore of etcd, versions are lower than before.
Among events, and responses that crossed them, the higher resourceVersion is newer.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from aurum.operator.cluster_snapshot import CONTENT, ConfigMap, Pod, Resource, Workload
from aurum.operator.kubernetes import COMPONENT
from aurum.resilience.policy import PolicyError
from aurum.runtime.policy.document import PlatformPolicyDocument, parse_platform_document
from aurum.runtime.policy.files import DEFAULTS

_ADMIN_PORT = 9090
_LONGEST_PROBLEM = 500  # characters
_MOST_UNREADABLE = 100  # unreadable objects that are remembered

T = TypeVar("T")


@dataclass(slots=True)
class _Row(Generic[T]):
    """The state of one object.

    Attributes:
        version: resourceVersion, or None if it is not a number.
        value: The object, or None if it was deleted.
        moment: When the state was taken.
    """

    version: int | None
    value: T | None
    moment: int


class _Table(Generic[T]):
    """The objects of one kind.

    Args:
        kind: Name of the kind in errors.
        key: Field of the metadata that identifies an object.
        parse: Converts the JSON of an object. It returns None for objects to be ignored.
    """

    def __init__(self, kind: str, key: str, parse: Callable[[Mapping[str, Any]], T | None]) -> None:
        self.kind = kind
        self.key = key
        self.parse = parse
        self._rows: dict[str, _Row[T]] = {}

    def values(self) -> tuple[T, ...]:
        return tuple(row.value for row in self._rows.values() if row.value is not None)

    def get(self, key: str) -> T | None:
        row = self._rows.get(key)
        return row.value if row else None

    def is_outdated(self, key: str, version: int | None) -> bool:
        """Whether a newer state than this version is known."""
        row = self._rows.get(key)
        return row is not None and row.version is not None and version is not None and row.version > version

    def update(self, key: str, version: int | None, value: T | None, moment: int, requested_at: int | None) -> bool:
        """Takes a state and returns whether anything has changed.

        Args:
            key: The object.
            version: resourceVersion of the state.
            value: The object, or None if it was deleted.
            moment: The present moment.
            requested_at: When the request was sent that this state answers, or None for an event.
        """
        row = self._rows.get(key)
        crossed = row is not None and (requested_at is None or row.moment > requested_at)
        if crossed and (self.is_outdated(key, version) or (row and version == row.version and value is not None)):
            return False
        self._rows[key] = _Row(version, value, moment)
        return (row.value if row else None) != value

    def remove_missing(self, keys: set[str], requested_at: int) -> None:
        """Removes the objects that were known when a list was requested and are not in it."""
        for key, row in list(self._rows.items()):
            if row.moment <= requested_at and (key not in keys or row.value is None):
                del self._rows[key]


@dataclass(slots=True)
class InformerCache:
    """The known state of the cluster.

    Attributes:
        defaults_name: Name of the ConfigMap with the chart's policies.
        workloads: Workloads by service.
        defaults: Policies of the chart.
        needs_list: Whether a list is due, because a restarted watch has shown older states than are known.
    """

    defaults_name: str
    workloads: dict[str, Workload] = field(default_factory=dict)
    defaults: PlatformPolicyDocument = field(default_factory=PlatformPolicyDocument)
    needs_list: bool = False
    _problem: str = ""
    _defaults_are_known: bool = False
    _moment: int = 0
    _resources: _Table[Resource] = field(default_factory=lambda: _Table("policy", "uid", Resource.from_json))
    _pods: _Table[Pod] = field(default_factory=lambda: _Table("pod", "uid", _parse_running_pod))
    _config_maps: _Table[ConfigMap] = field(default_factory=lambda: _Table("ConfigMap", "name", _parse_config_map))
    _unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def resources(self) -> tuple[Resource, ...]:
        """The policy resources."""
        return self._resources.values()

    @property
    def pods(self) -> tuple[Pod, ...]:
        """The running pods of the release."""
        return self._pods.values()

    @property
    def problem(self) -> str:
        """Why the chart's policies cannot be used, or an empty string."""
        return self._problem

    @property
    def held(self) -> bool:
        """Whether the chart's policies are unusable and have been since this process began."""
        return bool(self._problem) and not self._defaults_are_known

    @property
    def problems(self) -> tuple[str, ...]:
        """Descriptions of everything that cannot be parsed."""
        return (*([self._problem] if self._problem else []), *self._unreadable.values())

    def config_maps(self) -> dict[str, ConfigMap]:
        """Returns the ConfigMaps with documents by service."""
        by_service = {
            service: self._config_maps.get(workload.config_map) for service, workload in self.workloads.items()
        }
        return {service: config_map for service, config_map in by_service.items() if config_map is not None}

    def current_moment(self) -> int:
        """Returns the present moment. Callers keep it when they send a request and pass it with the response."""
        return self._moment

    def replace_all(
        self,
        resources: Iterable[Mapping[str, Any]],
        pods: Iterable[Mapping[str, Any]],
        config_maps: Iterable[Mapping[str, Any]],
        requested_at: int | None = None,
    ) -> None:
        """Replaces the known state by complete lists. requested_at: When they were requested, by default just now."""
        requested_at = self.current_moment() if requested_at is None else requested_at
        self._unreadable.clear()
        for bodies, table, update in (
            (list(resources), self._resources, self.update_resource),
            (list(pods), self._pods, self.update_pod),
            (list(config_maps), self._config_maps, self.update_config_map),
        ):
            table.remove_missing({str((body.get("metadata") or {}).get(table.key)) for body in bodies}, requested_at)
            for body in bodies:
                update(body, requested_at=requested_at)
        self.needs_list = False

    def update_resource(
        self, body: Mapping[str, Any], *, deleted: bool = False, listed: bool = False, requested_at: int | None = None
    ) -> bool:
        """Takes the state of a policy and returns whether anything has changed.

        Args:
            body: The object as JSON.
            deleted: Whether it was deleted.
            listed: Whether it comes from the initial list of a watch.
            requested_at: When the request was sent that this state answers, or None for an event.
        """
        return self._update(self._resources, body, deleted=deleted, listed=listed, requested_at=requested_at)

    def update_pod(
        self, body: Mapping[str, Any], *, deleted: bool = False, listed: bool = False, requested_at: int | None = None
    ) -> bool:
        """Takes the state of a pod, as `update_resource` does. Pods that do not run or are terminating are ignored."""
        return self._update(self._pods, body, deleted=deleted, listed=listed, requested_at=requested_at)

    def update_config_map(
        self, body: Mapping[str, Any], *, deleted: bool = False, listed: bool = False, requested_at: int | None = None
    ) -> bool:
        """Takes the state of a ConfigMap of the defaults or of a service, as `update_resource` does.

        Deleted defaults stay in force.
        """
        changed = self._update(self._config_maps, body, deleted=deleted, listed=listed, requested_at=requested_at)
        defaults = self._config_maps.get(self.defaults_name)
        if not changed or defaults is None or _name_of(body) != self.defaults_name:
            return changed
        return self._update_defaults(defaults.data.get(DEFAULTS, ""))

    def _update(
        self, table: _Table[T], body: Mapping[str, Any], *, deleted: bool, listed: bool, requested_at: int | None
    ) -> bool:
        name = f"{table.kind} {_name_of(body)}"
        try:
            metadata = body["metadata"]
            key, version = str(metadata[table.key]), _parse_version(metadata)
            value = None if deleted else table.parse(body)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            problem = f"{name} cannot be understood and is left out: {error!r}"[:_LONGEST_PROBLEM]
            new = self._unreadable.get(name) != problem
            if len(self._unreadable) < _MOST_UNREADABLE:
                self._unreadable[name] = problem
            return new
        self._unreadable.pop(name, None)
        if listed and table.is_outdated(key, version):
            self.needs_list = True
        self._moment += 1
        return table.update(key, version, value, self._moment, requested_at) or (listed and self.needs_list)

    def _update_defaults(self, text: str) -> bool:
        try:
            defaults = parse_platform_document(text, self.defaults_name)
        except PolicyError as problem:
            changed = self._problem != str(problem)
            self._problem = str(problem)
            return changed
        changed = defaults != self.defaults or bool(self._problem)
        self.defaults, self._problem, self._defaults_are_known = defaults, "", True
        return changed


def _name_of(body: Mapping[str, Any]) -> str:
    try:
        return str(body["metadata"]["name"])[:253]
    except (KeyError, TypeError):
        return "without a name"


def _parse_config_map(body: Mapping[str, Any]) -> ConfigMap:
    metadata = body["metadata"]
    return ConfigMap(metadata["name"], dict(body.get("data") or {}), (metadata.get("annotations") or {}).get(CONTENT))


def _parse_running_pod(body: Mapping[str, Any]) -> Pod | None:
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
    own_annotations = {name: value for name, value in annotations.items() if name.startswith("aurumai.io/")}
    return Pod(
        metadata["name"], metadata["uid"], service, f"{host}:{ports[0] if ports else _ADMIN_PORT}", own_annotations
    )


def _parse_version(metadata: Mapping[str, Any]) -> int | None:
    """Returns the resourceVersion as a number, or None if it is none. In that case the later state counts.

    Versions grow except after a restore, so the higher one of two states is the newer.
    """
    version = str(metadata.get("resourceVersion", ""))
    return int(version) if version.isdecimal() and len(version) <= 20 else None
