"""Trains the models that are missing when the service starts, one after the other and with low priority.

Each model is trained by a process of its own, `aurum train`, which leaves the processor to the services. The service
takes a model into service when its files are there, as it does with every new champion.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path
from typing import get_args

from aurum.prediction import metrics
from aurum.prediction.model.model import CorruptModelError
from aurum.prediction.model.model_files import has_current_model
from aurum.prediction.serving.first_models import ModelTraining, TrainingState

logger = logging.getLogger(__name__)

_STATES: tuple[TrainingState, ...] = get_args(TrainingState)
_LEAST_PRIORITY = 19
_STOP_WITHIN = 5.0  # seconds
_MAX_OUTPUT = 10_000  # bytes of what a process says at its end
_PR_SET_PDEATHSIG = 1


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
        for training in self.trainings:
            if training.state == "waiting":
                self._set(training, "running")
                problem = await self._train(training.machine_type)
                training.problem = problem
                self._set(training, "failed" if problem else "done")
                if problem:
                    logger.error("no model of %s was trained: %s", training.machine_type, problem)

    async def _train(self, machine_type: str) -> str:
        """Trains the model of a type. Returns why it failed and what happens next; empty if it did not."""
        arguments = ("train", "--machine-type", machine_type, "--threads", str(self._threads), "--out", str(self._root))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "aurum.cli",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C reaches only the service, which ends it
            preexec_fn=_begin_low if sys.platform == "linux" else None,
        )
        try:
            said = await _last_output(process)
            code = await process.wait()
        finally:
            await _end(process)
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


async def _last_output(process: asyncio.subprocess.Process) -> str:
    """Reads what a process says until it closes its output. Returns the last line."""
    kept = b""
    while process.stdout is not None and (part := await process.stdout.read(_MAX_OUTPUT)):
        kept = (kept + part)[-_MAX_OUTPUT:]
    lines = kept.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("aurum: ").strip() if lines else ""


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends a process that still runs."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_WITHIN)
    except TimeoutError:
        process.kill()
        await process.wait()


def _begin_low() -> None:
    """Runs between fork and exec: the process ends with the service, and leaves the processor to the services."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.nice(_LEAST_PRIORITY)
