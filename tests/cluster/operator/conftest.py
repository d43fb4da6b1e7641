"""The operator as a process beside a real API server; its pods are played (see fake.py)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import kube
from tests.cluster.kube import Namespace
from tests.cluster.operator.fake import RELEASE, FakeRelease
from tests.conftest import free_port

MakeRelease = Callable[[dict[str, int]], FakeRelease]


class Operator:
    """The process. It is started and killed by the tests."""

    def __init__(self, namespace: str, folder: Path, **settings: str) -> None:
        self.log = folder / "operator.log"
        self.port = free_port()
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AURUM_", "OTEL_"))}
        self._environment = {
            **clean,
            "AURUM_OPERATOR_NAMESPACE": namespace,
            "AURUM_OPERATOR_RELEASE": RELEASE,
            "AURUM_OPERATOR_DEFAULTS": "fake-policy",
            "AURUM_ADMIN_PORT": str(self.port),
            "AURUM_STATE_DIR": str(folder),
            **settings,
        }
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._popen
        return self._popen.pid

    def start(self) -> None:
        with self.log.open("ab") as output:
            command = [sys.executable, "-m", "aurum.cli", "operator"]
            self._popen = subprocess.Popen(command, env=self._environment, stdout=output, stderr=subprocess.STDOUT)

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self._popen
        self._popen.send_signal(number)
        return self._popen.wait(20)

    def stop(self) -> None:
        if self._popen and self._popen.poll() is None:
            self.kill(signal.SIGTERM)

    def metric(self, name: str) -> float:
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split(" # ")[0].split()[-1]) for line in lines if line.startswith(name))


@pytest.fixture(scope="session")
def crds(helm: None) -> None:
    if lacking := kube.missing():
        pytest.skip(lacking)
    kube.install_definitions()
    kube.run("kubectl", "wait", "--for=condition=Established", "crd", "resiliencepolicies.aurumai.io")


def _new_namespace() -> Iterator[Namespace]:
    namespace = Namespace(f"operator-test-{time.time_ns() % 10**9}")
    namespace.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name}})
    yield namespace
    kube.run("kubectl", "delete", "namespace", namespace.name, "--ignore-not-found", "--wait=false")


@pytest.fixture
def space(crds: None) -> Iterator[Namespace]:
    """A namespace of its own."""
    yield from _new_namespace()


@pytest.fixture(scope="module")
def shared_space(crds: None) -> Iterator[Namespace]:
    """A namespace without an operator, for tests of the API server alone."""
    yield from _new_namespace()


@pytest.fixture
def releases(space: Namespace, tmp_path: Path) -> Iterator[MakeRelease]:
    made: list[FakeRelease] = []

    def make(pods: dict[str, int]) -> FakeRelease:
        made.append(FakeRelease(space.name, tmp_path / "pods", pods))
        return made[-1]

    yield make
    for release in made:
        release.stop()


@pytest.fixture
def operator(space: Namespace, tmp_path: Path) -> Iterator[Operator]:
    process = Operator(space.name, tmp_path)
    yield process
    process.stop()
    lines = process.log.read_text().splitlines() if process.log.exists() else []
    unexpected = [line for line in lines if "Traceback" in line]
    assert not unexpected, unexpected[-3:]


def policy(name: str, kind: str = "ResiliencePolicy", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "aurumai.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def conditions(space: Namespace, name: str, kind: str = "resiliencepolicy") -> dict[str, tuple[str, str]]:
    """By type: status and reason; only what is of the present generation."""
    body = space.get(kind, name)
    return {
        each["type"]: (each["status"], each["reason"])
        for each in body.get("status", {}).get("conditions", ())
        if each["observedGeneration"] == body["metadata"]["generation"]
    }


def converged(space: Namespace, name: str, kind: str = "resiliencepolicy") -> bool:
    return conditions(space, name, kind).get("Converged") == ("True", "Converged")
