"""Processes of the platform, forked from one that has imported everything they need.

Importing a service takes a second or two of CPU, and tests start hundreds of them. A fork server (`multiprocessing`)
imports once for each worker; a process then costs what the service itself does. It has its own environment, output,
signals and exit code, as one that a shell starts. Processes whose imports matter (a changed PYTHONPATH, coverage) are
started by the interpreter.
"""

import gc
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.support import loop_turns

_PRELOADED = [
    "tests.support.processes",
    "aurum.cli",
    "aurum.api.service",
    "aurum.commands.training",
    "aurum.edge.gateway",
    "aurum.edge.inputs.files.input",
    "aurum.edge.inputs.modbus.input",
    "aurum.edge.inputs.mqtt.input",
    "aurum.edge.inputs.opcua.input",
    "aurum.edge.inputs.sparkplug.input",
    "aurum.ingestion.service",
    "aurum.prediction.service",
    "aurum_sim.peers",
    "asyncua.server",
    "sklearn.ensemble",
    "sklearn.isotonic",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.lifespan.on",
]
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(_PRELOADED)


class Handle(Protocol):
    """What tests use of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


def start(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    output: Path,
    errors: Path | None = None,
    module: str = "aurum.cli",
) -> Handle:
    """Starts `aurum ARGUMENTS`, or the main function of another module; what it prints is appended to the files."""
    if "PYTHONPATH" in environment or "COVERAGE_PROCESS_START" in os.environ or "COVERAGE_PROCESS_CONFIG" in os.environ:
        with output.open("ab") as out, (errors or output).open("ab") as err:
            command = [sys.executable, "-m", module, *arguments]
            return subprocess.Popen(command, env=dict(environment), stdout=out, stderr=err)
    return _Forked(module, arguments, environment, output, errors or output)


def run(
    *arguments: str, environment: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs `aurum ARGUMENTS` to its end. Raises subprocess.TimeoutExpired after so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "stdout"), Path(folder, "stderr")
        process = start(arguments, dict(os.environ) if environment is None else environment, output, errors)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(["aurum", *arguments], status, output.read_text(), errors.read_text())


class _Forked:
    def __init__(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], output: Path, errors: Path
    ) -> None:
        self._arguments = list(arguments)
        self._process = _forks.Process(
            target=_main, args=(module, self._arguments, dict(environment), str(output), str(errors))
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(["aurum", *self._arguments], timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, sig: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _main(module: str, arguments: list[str], environment: dict[str, str], output: str, errors: str) -> None:
    """What the forked process does."""
    gc.freeze()  # what the fork server has imported: the service collects only what it makes itself
    os.environ.clear()
    os.environ.update(environment)
    for path, number in ((output, 1), (errors, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = [module, *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    loop_turns.install()
    importlib.import_module(module).main()
