"""Trains the models that are missing when the service starts, one after the other and with low priority.

Each model is trained by a process of its own, `aurum train`, which leaves the processor to the services. The service
takes a model into service when its files are there, as it does with every new champion.
"""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import get_args

from aurum.prediction import metrics
from aurum.prediction.model.model import CorruptModelError
from aurum.prediction.model.model_files import has_current_model
from aurum.prediction.serving.first_models import ModelTraining, TrainingState

logger = logging.getLogger(__name__)

_STATES: tuple[TrainingState, ...] = get_args(TrainingState)
_MAX_OUTPUT = 10_000  # bytes of what a process says at its end


class BackgroundTraining:
    """Trains the missing models of some machine types on simulated histories.

    Args:
        root: The folder of the models.
        machine_types: The types. Those with a model are done already.
        threads: Folds that are trained at a time.
    """

    def __init__(self, root: Path, machine_types: tuple[str, ...], threads: int) -> None:
        self._root = root
        self._threads = threads
        self.trainings = [ModelTraining(machine_type) for machine_type in machine_types]
        for training in self.trainings:
            if _has_model(root, training.machine_type):
                training.state = "done"
        self._count()

    async def run(self) -> None:
        """Trains until every model was tried. If cancelled, it ends the process that trains."""
        with ThreadPoolExecutor(1, thread_name_prefix="first-models") as thread:
            for training in self.trainings:
                if training.state == "waiting":
                    self._set(training, "running")
                    training.problem = await self._train(training.machine_type, thread)
                    self._set(training, "failed" if training.problem else "done")
                    if training.problem:
                        logger.error("no model of %s was trained: %s", training.machine_type, training.problem)

    async def _train(self, machine_type: str, thread: Executor) -> str:
        """Trains the model of a type. Returns why it failed and what happens next; empty if it did not."""
        run = _Process(
            ("train", "--machine-type", machine_type, "--threads", str(self._threads), "--out", str(self._root))
        )
        try:
            code, said = await asyncio.get_running_loop().run_in_executor(thread, run.finish)
        finally:
            run.end()
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}; it is trained at the next start"
        if code:
            return f"{said or f'its process ended with exit code {code}'}; it is trained again at the next start"
        if not _has_model(self._root, machine_type):
            return f"{said}; the rule for machines without a model keeps answering"
        return ""

    def _set(self, training: ModelTraining, state: TrainingState) -> None:
        training.state = state
        self._count()

    def _count(self) -> None:
        for state in _STATES:
            count = sum(training.state == state for training in self.trainings)
            metrics.prediction_first_models.labels(state).set(count)


def default_threads() -> int:
    """Returns how many folds are trained at a time: half of the processors, at most two."""
    return max(1, min(2, (os.cpu_count() or 1) // 2))


def _has_model(root: Path, machine_type: str) -> bool:
    try:
        return has_current_model(root, machine_type)
    except CorruptModelError:
        return False  # the registry reports the damage; a new model replaces it


class _Process:
    """A process `aurum ARGUMENTS` with low priority. The thread that starts it lives longer, or the kernel ends it."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._lock = threading.Lock()
        self._popen: subprocess.Popen[bytes] | None = None
        self._ended = False

    def finish(self) -> tuple[int, str]:
        """Runs the process to its end. Returns its exit code and the last line that it said."""
        module = "aurum.prediction.learning.low_priority"
        with self._lock:
            if self._ended:
                return -signal.SIGTERM, ""
            # Not by asyncio: uvloop forks, and the fork handlers of gRPC crash beside its threads
            self._popen = popen = subprocess.Popen(  # noqa: S603 - the arguments are ours
                [sys.executable, "-m", module, str(os.getpid()), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C reaches only the service, which ends it
            )
        kept = b""
        with popen:
            while popen.stdout is not None and (part := popen.stdout.read1(_MAX_OUTPUT)):  # type: ignore[attr-defined]
                kept = (kept + part)[-_MAX_OUTPUT:]
        lines = kept.decode("utf-8", "replace").strip().splitlines()
        return popen.returncode, lines[-1].removeprefix("aurum: ").strip() if lines else ""

    def end(self) -> None:
        """Ends the process if it still runs, or keeps it from starting."""
        with self._lock:
            self._ended = True
            if self._popen is not None and self._popen.poll() is None:
                self._popen.kill()  # a model that is written becomes visible by one rename
