"""Pods without a kubelet: objects in a real API server, whose part a thread of this process plays.

When a pod's annotation is touched, its ConfigMap is read and put into a folder as the kubelet would, the policies of
production load it, and a small HTTP server answers /policy with their state. The address is a port of this machine.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.client import Client
from lightkube.core.exceptions import ApiError
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Pod, Service
from lightkube.types import PatchType

from aurum.operator.cluster_snapshot import TOUCHED, TRACK
from aurum.operator.kubernetes import COMPONENT, INSTANCE, PART_OF
from aurum.runtime.policy.files import DEFAULTS
from aurum.runtime.policy.policies import Policies
from aurum.runtime.settings import Settings

RELEASE = "fake"
_POLL = 0.03  # seconds


class FakePod:
    """One pod. refuses: what it says instead of loading a document; hangs: it takes calls and never answers."""

    def __init__(self, service: str, name: str, folder: Path) -> None:
        self.service = service
        self.name = name
        self.folder = folder
        self.refuses = False
        self.hangs = False
        self.seen: tuple[str, str] | None = None
        self.applied: dict[int, float] = {}  # generation of the document → when it was loaded
        folder.mkdir(parents=True)
        (folder / DEFAULTS).write_text("{}")
        self.policies = Policies(service, Settings(policy_file=folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def load(self, data: Mapping[str, str], track: str) -> None:
        """Does what the kubelet does, and then the service."""
        for name in ("policies.yaml", "candidate.yaml"):
            path = self.folder / name
            text = data.get(name)
            if text is None:
                path.unlink(missing_ok=True)
            else:
                path.write_text(text.replace("policies:", "policees:") if self.refuses else text)
        (self.folder / "track").write_text(track)
        self.policies.reload()
        self.applied.setdefault(self.policies.document.generation, time.monotonic())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        pod = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                for _ in range(100):
                    if not pod.hangs:
                        break
                    time.sleep(0.1)
                else:
                    return
                body = json.dumps(pod.policies.state()).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):  # whoever asked did not wait
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        return Handler


class FakeRelease:
    """The objects of a release in a namespace, and the kubelet of its pods."""

    def __init__(self, namespace: str, folder: Path, pods: Mapping[str, int]) -> None:
        self.namespace = namespace
        self.client = Client(KubeConfig.from_env().get(), namespace=namespace, trust_env=False)
        self.pods: list[FakePod] = []
        self._stop = threading.Event()
        self._config_map("fake-policy", "policy", {DEFAULTS: _DEFAULTS})
        for service, count in pods.items():
            self._workload(service)
            for number in range(count):
                self._pod(FakePod(service, f"fake-{service}-{number}", folder / f"{service}-{number}"))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)
        for pod in self.pods:
            pod.stop()

    def of(self, service: str) -> list[FakePod]:
        return [pod for pod in self.pods if pod.service == service]

    def config_map(self, service: str) -> dict[str, Any]:
        return dict(self.client.get(ConfigMap, f"fake-{service}-policy").to_dict())

    def _labels(self, service: str) -> dict[str, str]:
        return {PART_OF: "aurumai", INSTANCE: RELEASE, COMPONENT: service}

    def _config_map(self, name: str, component: str, data: dict[str, str]) -> None:
        body = {"metadata": {"name": name, "labels": self._labels(component)}, "data": data}
        self.client.create(ConfigMap.from_dict(body))

    def _workload(self, service: str) -> None:
        labels = self._labels(service)
        spec = {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _POD_SPEC},
        }
        self.client.create(
            Deployment.from_dict({"metadata": {"name": f"fake-{service}", "labels": labels}, "spec": spec})
        )
        ports = [{"name": "admin", "port": 9090}]
        body = {
            "metadata": {"name": f"fake-{service}", "labels": labels},
            "spec": {"clusterIP": "None", "selector": labels, "ports": ports},
        }
        self.client.create(Service.from_dict(body))

    def _pod(self, pod: FakePod) -> None:
        container = {**_CONTAINER, "ports": [{"name": "admin", "containerPort": pod.port}]}
        spec = {**_POD_SPEC, "containers": [container], "schedulerName": "nobody"}
        # Not owned by the Deployment, whose selector they would match: its controller adopts only what it may
        body = {"metadata": {"name": pod.name, "labels": {**self._labels(pod.service), "fake": "true"}}, "spec": spec}
        self.client.create(Pod.from_dict(body))
        status = {"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}}
        self.client.patch(Pod.Status, pod.name, status, patch_type=PatchType.MERGE)
        self.pods.append(pod)

    def _run(self) -> None:
        by_name = {pod.name: pod for pod in self.pods}
        while not self._stop.is_set():
            try:
                for body in self._listed():
                    annotations = body["metadata"].get("annotations") or {}
                    pod = by_name.get(body["metadata"]["name"])
                    seen = (annotations.get(TOUCHED, ""), annotations.get(TRACK, ""))
                    if pod and seen[0] and seen != pod.seen:
                        pod.seen = seen
                        pod.load(self.config_map(pod.service).get("data") or {}, seen[1])
            except ApiError as error:
                if error.status.code not in (404, 409):
                    raise
            self._stop.wait(_POLL)

    def _listed(self) -> Iterator[dict[str, Any]]:
        for body in self.client.list(Pod, labels={INSTANCE: RELEASE}):
            yield dict(body.to_dict())


_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
    "capabilities": {"drop": ["ALL"]},
}
_CONTAINER = {"name": "fake", "image": "nothing:never", "securityContext": _RESTRICTED}
_POD_SPEC: dict[str, Any] = {"automountServiceAccountToken": False, "containers": [_CONTAINER]}
_DEFAULTS = """
policies:
  - target: api/prediction/*
    timeout: {deadline: 3s, attempt: 1500ms}
"""
