"""kubectl and helm on the cluster of the current kube-context, and what tests want of them."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
TESTS = ROOT / "tests" / "cluster"
CHARTS = ROOT / "charts"
EXAMPLES = ROOT / "k8s" / "examples"
PODS = Path(__file__).parent / "pods"
SERVICES = ("api", "ingestion", "prediction", "edge", "iot-sim", "edge-sim", "operator")
KEEP = os.environ.get("AURUM_CLUSTER_KEEP") == "1"  # a release, for a later run
REPOSITORY = os.environ.get("AURUM_IMAGE_REPOSITORY", "localhost/aurumai")
TAG = os.environ.get("AURUM_IMAGE_TAG", "dev")
_RESTRICTED_POD = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def missing() -> str:
    """What a test on a cluster lacks here; empty if nothing."""
    for tool in ("kubectl", "helm"):
        if shutil.which(tool) is None:
            return f"{tool} is not on the PATH"
    reached = run("kubectl", "version", "--request-timeout=5s", check=False)
    return "" if reached.returncode == 0 else "no cluster answers at the current kube-context"


def run(*command: str, check: bool = True, given: str | None = None, timeout: float = 300) -> Any:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done


@dataclass
class Namespace:
    """A namespace, and the address of what runs in it."""

    name: str

    def kubectl(self, *arguments: str, check: bool = True, given: str | None = None, timeout: float = 300) -> str:
        done = run("kubectl", "--namespace", self.name, *arguments, check=check, given=given, timeout=timeout)
        return str(done.stdout)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def pods(self, component: str = "") -> list[dict[str, Any]]:
        """The pods of a component, or of all, that do not end."""
        selector = f"app.kubernetes.io/component={component}" if component else "app.kubernetes.io/part-of=aurumai"
        found = self.get("pods", f"--selector={selector},app.kubernetes.io/component!=test")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def restarted(self) -> str:
        """Each container that was started again: why, and its last words."""
        found = []
        for pod in self.pods():
            name = pod["metadata"]["name"]
            for status in pod["status"]["containerStatuses"] + pod["status"].get("initContainerStatuses", []):
                if status["restartCount"]:
                    log = self.kubectl("logs", name, f"--container={status['name']}", "--previous", check=False)
                    last = "\n".join(line[:2000] for line in log.splitlines()[-20:])
                    found.append(f"{name} {status['name']}: {status['lastState']}\n{last}")
        return "\n".join(found)

    def helm(self, *arguments: str, check: bool = True, timeout: float = 300) -> Any:
        return run("helm", "--namespace", self.name, *arguments, check=check, timeout=timeout)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "--filename=-", given="\n---\n".join(map(json.dumps, objects)))

    @contextlib.contextmanager
    def forwarded(self, target: str, port: int) -> Iterator[str]:
        """http://127.0.0.1:… for a port of a service or pod."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            local = probe.getsockname()[1]
        process = subprocess.Popen(
            ["kubectl", "--namespace", self.name, "port-forward", target, f"{local}:{port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in range(100):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", local)) == 0:
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{local}"
        finally:
            process.terminate()
            process.wait(10)

    def start_script(self, name: str, script: str, image: str = "api", **environment: object) -> None:
        """Runs a script of this folder in a pod, with what an image has."""
        self.kubectl("delete", "pod", name, "--ignore-not-found", "--grace-period=0", "--force")
        container = {
            "name": "script",
            "image": f"{REPOSITORY}/{image}:{TAG}",
            "imagePullPolicy": "IfNotPresent",
            "command": ["python", "-c", (PODS / script).read_text()],
            "env": [{"name": key, "value": str(value)} for key, value in environment.items()],
            "securityContext": _RESTRICTED,
            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _RESTRICTED_POD,
            "containers": [container],
        }
        self.apply(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"script": name}}, "spec": spec}
        )
        wait_for(lambda: self._phase(name) != "Pending", 60, f"pod {name} runs")

    def finish_script(self, name: str, seconds: float) -> Any:
        """The JSON object that is the last line of a script's log, when it has ended."""
        wait_for(lambda: self._phase(name) in ("Succeeded", "Failed"), seconds, f"pod {name} ends")
        log = self.kubectl("logs", name)
        assert self._phase(name) == "Succeeded", log[-3000:]
        self.kubectl("delete", "pod", name, "--wait=false")
        return json.loads(log.strip().splitlines()[-1])

    def _phase(self, name: str) -> str:
        return str(self.get("pod", name)["status"]["phase"])


def install_definitions() -> None:
    """The definitions of the policies, whoever has installed them before."""
    chart = ("aurumai-crds", str(CHARTS / "aurumai-crds"), "--namespace", "default")
    run("helm", "upgrade", "--install", *chart, "--take-ownership")


def wait_for(condition: Any, seconds: float, what: str) -> Any:
    """Asks again and again until the condition holds; what it then gave. Errors of connections count as no."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            if last := condition():
                return last
        except (OSError, KeyError, IndexError, json.JSONDecodeError) as error:
            last = error
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s: {what} (last: {last!r})")


def http(method: str, url: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def query(prometheus: str, expression: str) -> list[tuple[dict[str, str], float]]:
    """The series that an expression has now: labels and value."""
    _, answer = http("GET", f"{prometheus}/api/v1/query?query={urllib.parse.quote(expression)}")
    return [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]
