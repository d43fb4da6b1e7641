"""Fixtures for tests that run real services: free ports, a state folder of their own, processes that are ended."""

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.cassandra.cluster import Cluster, what_is_missing

_NEED_CASSANDRA = ("test_loss.py", "test_store_contract.py", "test_a_store_is_migrated_while_it_is_written")
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PORTS = range(11_000, 30_000)  # below those that connections get, which would take one before it is listened on
_share = _PORTS[_WORKER::_WORKERS]
_first = random.randrange(len(_share))
_ports = itertools.cycle([*_share[_first:], *_share[:_first]])
_cassandras: list[Cluster] = []


def scope(nodeid: str) -> str:
    """Tests of one scope run one after the other: those of a file, or of Cassandra, for which there is room once."""
    file, _, name = nodeid.partition("::")
    return "cassandra" if file.endswith(_NEED_CASSANDRA) or name in _NEED_CASSANDRA else file


class ByScope(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByScope:
    return ByScope(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of Cassandra come together. Where several workers run tests, what takes longest comes first."""
    for item in items:
        if "cassandra" in getattr(item, "fixturenames", ()) and scope(item.nodeid) != "cassandra":
            raise pytest.UsageError(f"{item.nodeid} needs Cassandra: name it in _NEED_CASSANDRA of {__file__}")
    items.sort(key=lambda item: (scope(item.nodeid) != "cassandra", _WORKERS > 1 and "unit" in item.path.parts))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Cassandra ends with the last of its tests: three nodes cost the others time, even when nobody asks them."""
    if scope(item.nodeid) == "cassandra" and (nextitem is None or scope(nextitem.nodeid) != "cassandra"):
        while _cassandras:
            _cassandras.pop().stop()


def free_port() -> int:
    """A port that nothing listens on, that was not given out lately, and that no other worker gives out."""
    for port in _ports:
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a cycle has no end")


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Polls until the condition is true; fails the test with `what` otherwise."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.05)
    pytest.fail(f"not within {seconds} s: {what}")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def http(method: str, url: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 20) -> Answer:
    """One HTTP request; error statuses are answers too. body: bytes, or what is sent as JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=dict(headers or {}))  # noqa: S310
    if body is not None and "content-type" not in {name.lower() for name in request.headers}:
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            return Answer(response.status, dict(response.headers), response.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, dict(error.headers), error.read())


@dataclass
class Process:
    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    popen: subprocess.Popen[bytes]

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def kill(self, number: int = signal.SIGKILL) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(15)


@dataclass
class Platform:
    """Services as processes, on ports and in a folder of their own."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)

    def port(self, name: str) -> int:
        if name not in self.ports:
            self.ports[name] = free_port()
        return self.ports[name]

    def admin(self, service: str, path: str) -> Answer:
        return http("GET", f"http://127.0.0.1:{self.port(f'{service} admin')}{path}")

    def metric(self, service: str, series: str) -> float:
        """The sum of a service's series whose name and labels begin so."""
        lines = self.admin(service, "/metrics").body.decode().splitlines()
        return sum(float(line.split(" # ")[0].rsplit(" ", 1)[1]) for line in lines if line.startswith(series))

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port('api')}"

    def environment(self, service: str) -> dict[str, str]:
        services = ("api", "ingestion", "prediction", "edge", "iot-sim", "edge-sim")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AURUM_", "OTEL_"))}
        return {
            **clean,
            "AURUM_STATE_DIR": str(self.folder),
            "AURUM_API_PORT": str(self.port("api")),
            "AURUM_INGESTION_PORT": str(self.port("ingestion")),
            "AURUM_INGESTION_TARGET": f"127.0.0.1:{self.port('ingestion')}",
            "AURUM_PREDICTION_PORT": str(self.port("prediction")),
            "AURUM_PREDICTION_TARGET": f"127.0.0.1:{self.port('prediction')}",
            "AURUM_EDGE_PORT": str(self.port("edge")),
            "AURUM_EDGE_TARGET": f"127.0.0.1:{self.port('edge')}",
            "AURUM_EDGE_SIM_PORT": str(self.port("edge-sim gateway")),
            "AURUM_ADMIN_PORT": str(self.port(f"{service} admin")),
            "AURUM_ADMIN_TARGETS": ",".join(f"{name}=127.0.0.1:{self.port(f'{name} admin')}" for name in services),
            **self.extra,
        }

    def start(self, service: str, *arguments: str, ready: bool = True, module: str = "aurum.cli") -> Process:
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{service}.log"
        environment = self.environment(service)
        with log.open("ab") as output:
            popen = subprocess.Popen(
                [sys.executable, "-m", module, service, *arguments],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        process = self.processes[service] = Process(service, arguments, environment, log, popen)
        if ready:
            wait_for(lambda: self.is_ready(service), 30, f"{service} is ready, see {log}")
        return process

    def is_ready(self, service: str) -> bool:
        process = self.processes[service]
        if process.popen.poll() is not None:
            pytest.fail(f"{service} ended: {process.lines()[-5:]}")
        try:
            return self.admin(service, "/readyz").status == 200
        except OSError:
            return False

    def restart(self, service: str) -> Process:
        return self.start(service, *self.processes[service].arguments)

    def stop(self) -> None:
        for process in self.processes.values():
            if process.popen.poll() is None:
                process.popen.terminate()
        for process in self.processes.values():
            try:
                process.popen.wait(12)
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait(5)


@contextlib.contextmanager
def watching(folder: Path, rules: str) -> Iterator[Platform]:
    """Ingestion and API without predictions, with alarm rules of their own."""
    (folder / "rules.yaml").write_text(rules)
    running = Platform(
        folder, extra={"AURUM_ALARM_RULES": str(folder / "rules.yaml"), "AURUM_FEATURE_PREDICTIVE": "false"}
    )
    running.start("ingestion")
    running.start("api")
    yield running
    running.stop()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """An empty platform; a test starts the services that it needs."""
    running = Platform(tmp_path)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model of a pump, trained once."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "aurum.cli",
            "train",
            "--machine-type",
            "pump",
            "--machines",
            "12",
            "--out",
            str(folder),
        ],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Platform]:
    """Ingestion, prediction and API, shared by tests that only ask and add."""
    running = Platform(tmp_path_factory.mktemp("serving"), extra={"AURUM_MODEL_DIR": str(models)})
    for service in ("ingestion", "prediction", "api"):
        running.start(service)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def cassandra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three real Cassandra nodes, until the last test that may want them."""
    if missing := what_is_missing():
        pytest.skip(missing)
    cluster = Cluster(tmp_path_factory.mktemp("cassandra"))
    _cassandras.append(cluster)
    try:
        cluster.start(3)
        yield cluster
    finally:
        cluster.stop()
