"""The operator as a process beside a real API server; its pods are played (see fake.py)."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.cluster.fake_release import RELEASE, FakeRelease
from tests.support.cluster.kube import Namespace
from tests.support.ports import free_port

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
        return self.wait()

    def wait(self) -> int:
        """Waits for its end, and returns its exit code."""
        assert self._popen
        return self._popen.wait(20)

    def stop(self) -> None:
        if self._popen and self._popen.poll() is None:
            self.kill(signal.SIGTERM)

    def metric(self, name: str) -> float:
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split(" # ")[0].split()[-1]) for line in lines if line.startswith(name))


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
