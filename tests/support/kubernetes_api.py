"""An API server of Kubernetes over HTTPS, for the operator and its commands as processes: objects in memory.

It does what the operator relies on: lists by label in pages, watches from a version, creation, merge patches, applied
manifests, the status as a part of its own, preconditions on uid and resourceVersion, and errors as a Status. It checks
no schema, and its certificate authority lacks the extensions that the strict mode of RFC 5280 asks for.
"""

import base64
import copy
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aurum.operator.resources import GROUP, KINDS, VERSION
from tests.support.authority import Authority

Object = dict[str, Any]
_POLICIES = f"apis/{GROUP}/{VERSION}"
_CORE = {"configmaps": "ConfigMap", "events": "Event", "pods": "Pod", "secrets": "Secret", "services": "Service"}
_KINDS: dict[str, dict[str, str]] = {  # by the path of a group: plural → kind
    "api/v1": _CORE,
    "apis/apps/v1": {"deployments": "Deployment", "statefulsets": "StatefulSet"},
    "apis/coordination.k8s.io/v1": {"leases": "Lease"},
    _POLICIES: {plural: kind for kind, (plural, _) in KINDS.items()},
}
_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Change:
    """An event of a watch."""

    version: int
    plural: str
    kind: str
    body: Object


@dataclass
class KubernetesApi:
    """The server. It runs from `start` to `stop`.

    Attributes:
        folder: Where its certificate and the kubeconfig are written.
        namespace: The namespace of the kube-context.
        refused: What it answers requests with, by method and plural, such as ("PATCH", "configmaps").
        pages: How many objects a page of a list has at most.
    """

    folder: Path
    namespace: str = "plant"
    refused: dict[tuple[str, str], int] = field(default_factory=dict)
    pages: int = 3
    _objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    _changes: list[Change] = field(default_factory=list)
    _version: int = 100
    _oldest: int = 0  # version from which a watch may begin
    _watches: int = 0  # raised to end all watches
    _stopped: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def start(self) -> None:
        certificates = Authority().fill(self.folder / "api-server", "kubernetes")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "tls.crt", certificates / "tls.key")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        authority = base64.b64encode((certificates / "ca.crt").read_bytes()).decode()
        address = f"https://127.0.0.1:{self._server.server_address[1]}"
        context_of = {"cluster": "plant", "user": "operator", "namespace": self.namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "plant", "cluster": {"server": address, "certificate-authority-data": authority}}],
            "users": [{"name": "operator", "user": {"token": "t"}}],
            "contexts": [{"name": "plant", "context": context_of}],
            "current-context": "plant",
        }
        self.kubeconfig.write_text(json.dumps(config))

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def apply(self, body: Mapping[str, Any]) -> Object:
        """Creates or replaces an object, as `kubectl apply` does."""
        plural = next(p for kinds in _KINDS.values() for p, kind in kinds.items() if kind == body["kind"])
        with self._changed:
            return self._put(plural, body["metadata"]["name"], copy.deepcopy(dict(body)))

    def get(self, plural: str, name: str) -> Object:
        with self._changed:
            return copy.deepcopy(self._objects[plural, name])

    def all(self, plural: str) -> list[Object]:
        with self._changed:
            return [copy.deepcopy(body) for (each, _), body in sorted(self._objects.items()) if each == plural]

    def delete(self, plural: str, name: str) -> None:
        with self._changed:
            self._remove(plural, name)

    def end_watches(self, change: Mapping[str, Any] | None = None) -> None:
        """Ends all watches. None can go on from where it was, and nobody is told of a change made meanwhile."""
        with self._changed:
            if change:
                self.apply(change)
            self._oldest = self._version + 1
            self._version += 1
            self._changes.clear()
            self._watches += 1
            self._changed.notify_all()

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Object, content_type: str) -> Object:
        """Raises RefusedError."""
        group, plural, name, subresource = _parsed(path)
        if not plural:
            return _discovered(group)
        with self._changed:
            if code := self.refused.get((method, plural)):
                raise RefusedError(code, f"{plural} are refused")
            if method == "GET":
                return self._read(plural, name) if name else self._list(group, plural, query)
            if method == "POST":
                return self._create(plural, body)
            if method == "PUT":
                return self._replace(plural, name, body)
            if method == "DELETE":
                return self._remove(plural, name)
            applied = content_type == "application/apply-patch+yaml"
            return self._patch(plural, name, body, subresource, applied=applied)

    def watch(self, plural: str, query: Mapping[str, str]) -> Iterator[Object]:
        """Yields events until the server stops, or ends its watches."""
        seen, wanted = int(query.get("resourceVersion") or 0), _selector(query)
        with self._changed:
            current, too_old = self._watches, seen < self._oldest
        if too_old:
            yield {"type": "ERROR", "object": _status(410, "too old resource version")}
            return
        while True:
            with self._changed:
                if self._stopped or self._watches != current:
                    return
                new = [each for each in self._changes if each.version > seen]
                if not new:
                    self._changed.wait()
                    continue
            seen = new[-1].version
            yield from (
                {"type": each.kind, "object": each.body}
                for each in new
                if each.plural == plural and _fits(each.body, wanted)
            )

    def _list(self, group: str, plural: str, query: Mapping[str, str]) -> Object:
        wanted = _selector(query)
        found = [body for (each, _), body in sorted(self._objects.items()) if each == plural and _fits(body, wanted)]
        start = int(query.get("continue") or 0)
        end = start + min(self.pages, int(query.get("limit") or len(found) or 1))
        return {
            "apiVersion": group.partition("/")[2],
            "kind": f"{_KINDS[group][plural]}List",
            "metadata": {"resourceVersion": str(self._version), "continue": str(end) if end < len(found) else ""},
            "items": copy.deepcopy(found[start:end]) if "limit" in query else copy.deepcopy(found),
        }

    def _read(self, plural: str, name: str) -> Object:
        if (plural, name) not in self._objects:
            raise RefusedError(404, f'{plural} "{name}" not found')
        return copy.deepcopy(self._objects[plural, name])

    def _create(self, plural: str, body: Object) -> Object:
        metadata = body.get("metadata", {})
        name = metadata.get("name") or f"{metadata['generateName']}{self._version}"
        if (plural, name) in self._objects:
            raise RefusedError(409, f'{plural} "{name}" already exists')
        return self._put(plural, name, body)

    def _patch(self, plural: str, name: str, body: Object, subresource: str, *, applied: bool) -> Object:
        known = self._objects.get((plural, name))
        if known is None and (subresource or not applied):
            raise RefusedError(404, f'{plural} "{name}" not found')
        metadata = body.get("metadata", {})
        for precondition in ("uid", "resourceVersion"):
            had = (known or {}).get("metadata", {}).get(precondition)
            if known and metadata.get(precondition, had) != had:
                raise RefusedError(409, f"the object has another {precondition}")
        if subresource == "status":
            return self._put(plural, name, {**(known or {}), "status": body["status"]})
        patch = {key: value for key, value in body.items() if key != "status"}
        if applied:  # its one manager has all of a part that it applies
            metadata = _merged((known or {}).get("metadata", {}), metadata)
            return self._put(plural, name, {**(known or {}), **patch, "metadata": metadata})
        return self._put(plural, name, _merged(known or {}, patch))

    def _replace(self, plural: str, name: str, body: Object) -> Object:
        known = self._objects.get((plural, name))
        if known is None:
            raise RefusedError(404, f'{plural} "{name}" not found')
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in (None, known["metadata"]["resourceVersion"]):
            raise RefusedError(409, f'{plural} "{name}" has been modified')
        return self._put(plural, name, body)

    def _put(self, plural: str, name: str, body: Object) -> Object:
        self._version += 1
        known = self._objects.get((plural, name), {})
        old = known.get("metadata", {})
        generation = old.get("generation", 0) + (known.get("spec") != body.get("spec") or not known)
        metadata = {
            "uid": f"{plural}-{self._version}",
            "creationTimestamp": f"2026-01-01T00:{self._version // 60 % 60:02d}:{self._version % 60:02d}Z",
            **old,
            **body.get("metadata", {}),
            "name": name,
            "namespace": self.namespace,
            "generation": generation,
            "resourceVersion": str(self._version),
        }
        group = next(group for group, kinds in _KINDS.items() if plural in kinds)
        version = group.partition("/")[2]
        stored = {"status": known.get("status", {}), **body, "metadata": metadata}
        stored |= {"apiVersion": version, "kind": _KINDS[group][plural]}
        if plural not in ("pods", *_KINDS[_POLICIES]):
            stored.pop("status", None)
        self._objects[plural, name] = stored
        self._tell(plural, "MODIFIED" if known else "ADDED", stored)
        return copy.deepcopy(stored)

    def _remove(self, plural: str, name: str) -> Object:
        body = self._read(plural, name)
        del self._objects[plural, name]
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self._tell(plural, "DELETED", body)
        return body

    def _tell(self, plural: str, kind: str, body: Object) -> None:
        self._changes.append(Change(self._version, plural, kind, copy.deepcopy(body)))
        self._changed.notify_all()


def _parsed(path: str) -> tuple[str, str, str, str]:
    """Group, plural, name and subresource; empty where the path ends before."""
    if "/namespaces/" not in path:
        return path.strip("/"), "", "", ""
    group, _, rest = path.strip("/").partition("/namespaces/")
    _, plural, name, subresource, *_ = [*rest.split("/"), "", "", ""]
    return group, plural, name, subresource


def _discovered(group: str) -> Object:
    """What the server has, by which kopf finds what it is to watch."""
    if group == "api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if group == "apis":
        versions = [path.split("/")[1:] for path in _KINDS if path.startswith("apis/")]
        return {
            "kind": "APIGroupList",
            "groups": [
                {
                    "name": name,
                    "versions": [{"groupVersion": f"{name}/{version}", "version": version}],
                    "preferredVersion": {"groupVersion": f"{name}/{version}", "version": version},
                }
                for name, version in versions
            ],
        }
    if group not in _KINDS:
        raise RefusedError(404, f"there is no {group}")
    resources = [
        {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": True, "verbs": _VERBS}
        for plural, kind in _KINDS[group].items()
    ]
    if group == "api/v1":
        resources.append({**resources[0], "name": "namespaces", "singularName": "namespace", "kind": "Namespace"})
        resources[-1]["namespaced"] = False
    return {"kind": "APIResourceList", "groupVersion": group.partition("/")[2], "resources": resources}


def _selector(query: Mapping[str, str]) -> dict[str, str]:
    pairs = (each.partition("=") for each in query.get("labelSelector", "").split(",") if each)
    return {name: value.removeprefix("=") for name, _, value in pairs}


def _fits(body: Object, wanted: Mapping[str, str]) -> bool:
    return wanted.items() <= (body["metadata"].get("labels") or {}).items()


def _merged(known: Object, patch: Object) -> Object:
    """RFC 7386."""
    merged = dict(known)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = _merged(merged[key] if isinstance(merged.get(key), dict) else {}, value)
        else:
            merged[key] = value
    return merged


class _Handler(BaseHTTPRequestHandler):
    api: KubernetesApi
    protocol_version = "HTTP/1.1"

    def _respond(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if self.headers.get("Authorization") != "Bearer t":
            self._send(401, _status(401, "Unauthorized"))
            return
        if query.get("watch") == "true":
            self._stream(parts.path, query)
            return
        given = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(given) if given else {}
            done = self.api.answer(self.command, parts.path, query, body, self.headers.get("Content-Type", ""))
        except RefusedError as refused:
            self._send(refused.code, _status(refused.code, str(refused)))
        else:
            self._send(201 if self.command == "POST" else 200, done)

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_PUT(self) -> None:
        self._respond()

    def do_PATCH(self) -> None:
        self._respond()

    def do_DELETE(self) -> None:
        self._respond()

    def _send(self, code: int, body: Object) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, path: str, query: Mapping[str, str]) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for event in self.api.watch(_parsed(path)[1], query):
                self.wfile.write(json.dumps(event).encode() + b"\n")
        except OSError:
            return  # the watcher has gone

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _handler(api: KubernetesApi) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"api": api})


def _status(code: int, message: str) -> Object:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
