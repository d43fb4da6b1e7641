"""Services as processes: on ports and in a state folder of their own, and ended with the test."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.http import Answer, http
from tests.support.ports import free_port
from tests.support.processes import Handle
from tests.support.waiting import wait_for


@dataclass
class Process:
    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    popen: Handle

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
        popen = processes.start([service, *arguments], environment, log, module=module)
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
def watching(folder: Path, rules: str, extra: dict[str, str] | None = None) -> Iterator[Platform]:
    """Ingestion, prediction without models, and API without predictions, with alarm rules and settings of their own."""
    (folder / "rules.yaml").write_text(rules)
    running = Platform(
        folder,
        extra={"AURUM_ALARM_RULES": str(folder / "rules.yaml"), "AURUM_FEATURE_PREDICTIVE": "false", **(extra or {})},
    )
    for service in ("ingestion", "prediction", "api"):
        running.start(service)
    yield running
    running.stop()
