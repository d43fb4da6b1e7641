"""`aurum up`: runs the processes of a Procfile on this machine, and restarts each one that ends.

honcho only parses the Procfile, since its own runner ends everything when one process ends. Each process logs to its
own bounded file below the state directory.
"""

import asyncio
import contextlib
import ctypes
import io
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from honcho.environ import parse_procfile

from aurum.commands.doctor import examine
from aurum.platform_settings import PlatformSettings
from aurum_sim.machine_types import MACHINE_TYPES

_POLICIES = "policies.yaml"  # the policies beside the Procfile, used unless AURUM_POLICY_FILE is set
_READY_WITHIN = 60.0  # seconds
_STOP_WITHIN = 11.0  # seconds; services end within 10
_BACKOFF, _MAX_BACKOFF = 0.3, 10.0  # seconds before a process is started again
_SETTLED = 30.0  # seconds after which a start counts as a success
_LOG_BYTES = 10_000_000  # of one log file; one older file is kept
_SPEED = "--speed-up"  # the option of the simulators
_KEPT_LINES = 20
_PR_SET_PDEATHSIG = 1


class UpFailedError(Exception):
    """The platform could not be started. The message says why and what to do."""


@dataclass(slots=True)
class _Log:
    """A bounded log file. Lines that are not JSON objects are wrapped in one."""

    path: Path
    name: str
    file: io.FileIO | None = None

    def write(self, line: bytes) -> None:
        if not line.strip():
            return
        if not (line.startswith(b'{"') and line.endswith(b"}\n")):
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            text = line.decode("utf-8", "replace").rstrip("\n")
            record = {"timestamp": now, "severity": "ERROR", "logger": "stderr", "message": text, "service": self.name}
            line = json.dumps(record).encode() + b"\n"
        if self.file is not None and self.file.tell() > _LOG_BYTES:
            self.file.close()
            self.file = None
            os.replace(self.path, self.path.with_suffix(".log.1"))
        if self.file is None:
            self.file = self.path.open("ab", buffering=0)
        self.file.write(line)


class Supervisor:
    """Starts the processes of a Procfile and restarts those that end."""

    def __init__(self, settings: PlatformSettings, procfile: Path) -> None:
        """Reads the Procfile. Raises UpFailedError if it cannot be read."""
        self._settings = settings
        self._logs = settings.state_dir / "logs"
        try:
            self._commands: dict[str, str] = dict(parse_procfile(procfile.read_text(encoding="utf-8")).processes)
        except OSError as error:
            raise UpFailedError(f"{procfile} cannot be read: {error.strerror}; run this in its folder") from error
        self._environment = dict(os.environ)
        beside = procfile.absolute().with_name(_POLICIES)
        if settings.policy_file is None and beside.exists():
            self._environment["AURUM_POLICY_FILE"] = str(beside)
        if not settings.prediction_train_missing:
            self._environment["AURUM_PREDICTION_TRAIN_MISSING"] = ",".join(MACHINE_TYPES)
        speed = _simulation_speed(self._commands.values())
        if speed and not settings.console_simulation_speed:
            self._environment["AURUM_CONSOLE_SIMULATION_SPEED"] = speed
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._last_errors: dict[str, list[str]] = {}
        self._stop = asyncio.Event()
        self._failure: str | None = None

    async def run(self) -> None:
        """Runs until SIGINT or SIGTERM. Raises UpFailedError if the platform cannot be started."""
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        self._check_ports()
        self._logs.mkdir(parents=True, exist_ok=True)
        keepers = [asyncio.create_task(self._keep_running(name, command)) for name, command in self._commands.items()]
        if self._settings.learn_every and "prediction" in self._commands:
            keepers.append(asyncio.create_task(self._learn_now_and_then()))
        try:
            if await self._wait_until_ready():
                url = f"http://{self._settings.api_host}:{self._settings.api_port}/"
                _print_status(
                    f"AurumAI runs at {url} (ready in {time.monotonic() - started:.0f} s; logs in {self._logs}/)"
                )
            await self._stop.wait()
        finally:
            self._stop.set()
            await self._stop_processes()
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
        if self._failure:
            raise UpFailedError(self._failure)
        _print_status("AurumAI has stopped")

    def _check_ports(self) -> None:
        for setting, port in self._ports().items():
            with contextlib.closing(socket.socket()) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    raise UpFailedError(
                        f"port {port} ({setting}) is in use by another program; is AurumAI running already? "
                        f"Stop it, or set another port"
                    ) from None

    def _ports(self) -> dict[str, int]:
        """Returns the ports that the processes will listen on, by the setting that changes each."""
        settings = self._settings
        of_service = {
            "api": ("AURUM_API_PORT", settings.api_port),
            "ingestion": ("AURUM_INGESTION_PORT", settings.ingestion_port),
            "prediction": ("AURUM_PREDICTION_PORT", settings.prediction_port),
            "edge": ("AURUM_EDGE_PORT", settings.edge_port),
            "edge-sim": ("AURUM_EDGE_SIM_PORT", int(os.environ.get("AURUM_EDGE_SIM_PORT", "50054"))),
        }
        ports = dict(of_service[name] for name in self._commands if name in of_service)
        for name in self._commands:
            _, _, port = settings.admin_addresses.get(name, "").rpartition(":")
            ports[f"admin server of {name}, AURUM_ADMIN_TARGETS"] = int(port or settings.admin_port_of(name))
        return ports

    async def _keep_running(self, name: str, command: str) -> None:
        """Starts a process, and restarts it with backoff when it ends. Stops everything if it cannot start."""
        log = _Log(self._logs / f"{name}.log", name)
        backoff = _BACKOFF
        while not self._stop.is_set():
            started = time.monotonic()
            program, *arguments = command.split()
            executable = [*_aurum_command(*arguments)] if program == "aurum" else [program, *arguments]
            process = await asyncio.create_subprocess_exec(
                *executable,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C reaches only the supervisor, which ends the services
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
                limit=1_000_000,
                env=self._environment,
            )
            self._processes[name] = process
            await self._copy_output(process, log, name)
            code = await process.wait()
            if self._stop.is_set():
                return
            lived = time.monotonic() - started
            ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            if code == 2 or (code == 1 and lived < _SETTLED and backoff > _BACKOFF):
                errors = self._last_errors.get(name) or ["see its log"]
                self._failure = f"{name} cannot start: {errors[-1]}"
                self._stop.set()
                return
            backoff = _BACKOFF if lived > _SETTLED else min(_MAX_BACKOFF, 2 * backoff)
            _print_status(f"{name} {ended}; restarting it")
            await asyncio.sleep(backoff)

    async def _learn_now_and_then(self) -> None:
        """Runs `aurum learn` periodically, with low priority. What it says goes to its own log."""
        log = _Log(self._logs / "learn.log", "learn")
        while True:
            await asyncio.sleep(self._settings.learn_every)
            process = await asyncio.create_subprocess_exec(
                *_aurum_command("learn", "--ingestion", self._settings.ingestion_target),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_begin_low if sys.platform == "linux" else None,
                limit=1_000_000,
                env=self._environment,
            )
            self._processes["learn"] = process
            await self._copy_output(process, log, "learn")
            if await process.wait() and not self._stop.is_set():
                reason = (self._last_errors.get("learn") or ["see its log"])[-1]
                _print_status(
                    f"aurum learn failed: {reason}; the present models keep serving, and it is tried again in "
                    f"{self._settings.learn_every:.0f} s"
                )

    async def _copy_output(self, process: asyncio.subprocess.Process, log: _Log, name: str) -> None:
        if process.stdout is None:
            return
        errors = self._last_errors[name] = []
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # the line is longer than the limit
                continue
            if not line:
                return
            if line.startswith(b"aurum: "):
                errors.append(line.decode("utf-8", "replace").removeprefix("aurum: ").strip())
                del errors[:-_KEPT_LINES]
            log.write(line)

    async def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + _READY_WITHIN
        waiting: list[str] = []
        while not self._stop.is_set() and time.monotonic() < deadline:
            findings = await asyncio.to_thread(examine, self._settings)
            waiting = [
                f"{each.name} ({each.missing})"
                for each in findings
                if each.state != "ready" and each.name in self._commands
            ]
            if not waiting:
                return True
            await asyncio.sleep(0.2)
        if not self._stop.is_set():
            _print_status(
                f"Not ready after {_READY_WITHIN:.0f} s: {', '.join(waiting)}. `make doctor` shows the details."
            )
        return False

    async def _stop_processes(self) -> None:
        running = [process for process in self._processes.values() if process.returncode is None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        waits = [asyncio.create_task(process.wait()) for process in running]
        if waits:
            await asyncio.wait(waits, timeout=_STOP_WITHIN)
        for process in running:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _simulation_speed(commands: Iterable[str]) -> str:
    """Returns the speed of the first simulator among commands that states one; empty without one."""
    for command in commands:
        words = command.split()
        if words[:2] in (["aurum", "iot-sim"], ["aurum", "edge-sim"]) and _SPEED in words[:-1]:
            return words[words.index(_SPEED) + 1]
    return ""


def _aurum_command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "aurum.cli", *arguments)


def _die_with_parent() -> None:
    """Runs between fork and exec, and makes the kernel end the process when a killed supervisor dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _begin_low() -> None:
    """Runs between fork and exec: dies with the supervisor, and leaves the processor to the services."""
    _die_with_parent()
    os.nice(19)


def _print_status(sentence: str) -> None:
    print(sentence, flush=True)
