"""What a request costs a service: memory above idle, the longest turn of the event loop, CPU time."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.loop_turns import FILE, LoopTurns
from tests.support.platform import Platform
from tests.support.waiting import wait_for

MB = 1_000_000
_RESET_PEAK = "5"  # for /proc/PID/clear_refs


@dataclass(frozen=True)
class Cost:
    """Costs of what was measured.

    Attributes:
        memory: Bytes of resident memory at the peak, above those before.
        pause: Seconds of CPU time of the longest turn of the event loop.
        cpu: Seconds of CPU time of the whole process.
    """

    memory: int
    pause: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.memory / MB:6.1f} MB {self.pause * 1000:6.0f} ms {self.cpu:6.2f} s"


class Meter:
    """Measures a service of a platform that `measured` has prepared."""

    def __init__(self, platform: Platform, service: str) -> None:
        self._platform, self._service = platform, service
        self._process = psutil.Process(platform.processes[service].popen.pid)
        self._turns = LoopTurns(_file(platform.folder, service))
        self._idle, self._cpu = 0, 0.0

    def begin(self) -> None:
        """Has the process return its free memory, and measures from now on."""
        before = self._turns.trimmed
        self._process.send_signal(signal.SIGUSR1)
        wait_for(lambda: self._turns.trimmed > before, 20, "the service has returned its free memory")
        Path(f"/proc/{self._process.pid}/clear_refs").write_text(_RESET_PEAK)
        self._idle, self._cpu = self._process.memory_info().rss, self._cpu_seconds()
        self._turns.forget()

    def end(self) -> Cost:
        self._platform.admin(self._service, "/livez")  # after which the last turn that counts has ended
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
        assert self._turns.turns, "the turns of the event loop are not measured"
        return Cost(peak - self._idle, self._turns.longest, self._cpu_seconds() - self._cpu)

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


def start_measured(platform: Platform, service: str) -> None:
    """Starts a service so that a meter can measure it."""
    # Only the turns of asyncio's own loop can be measured; the callbacks that make them long are the same on uvloop
    measured = {FILE: str(_file(platform.folder, service)), "AURUM_EVENT_LOOP": "asyncio"}
    platform.extra |= measured
    platform.start(service)
    for name in measured:
        del platform.extra[name]


def is_measurable() -> bool:
    """Whether services can be measured here: on Linux, and without the tracing of `make coverage`."""
    traced = any(name.startswith("COVERAGE_PROCESS_") for name in os.environ)
    return Path("/proc/self/clear_refs").exists() and not traced


def _file(folder: Path, service: str) -> Path:
    return folder / f"{service}.turns"
