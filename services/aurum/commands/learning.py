"""`aurum learn`: trains again, compares and promotes the models of all machine types of a store."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from aurum.commands.histories import RecordsOf, from_store
from aurum.commands.progress import progress_bar
from aurum.commands.served_histories import ServedHistories, TooManyReadingsError, served_histories
from aurum.maintenance.records import Record
from aurum.maintenance.renewal_signs import renewal_signs
from aurum.prediction.learning.learn import LearningOptions, learn
from aurum.prediction.learning.rule import PromotionRule
from aurum.prediction.settings import PredictionSettings
from aurum.prediction.training.train import TrainingOptions
from aurum.readings.history import Run
from aurum.runtime.audit import AuditLog
from aurum.runtime.time_units import DAY_US
from aurum.storage.folder_lock import FolderLock
from aurum.v1 import ingestion_pb2

_MOST_SUGGESTIONS = 10  # of new lives, for each machine type


def learning_options(settings: PredictionSettings, training: TrainingOptions) -> LearningOptions:
    """Returns the options that the settings state."""
    return LearningOptions(
        settings.learn_failures,
        settings.learn_drift,
        settings.learn_agreement,
        PromotionRule(settings.learn_compared_failures, settings.learn_confidence),
        training,
    )


def learn_from_stores(
    files: Sequence[Path], only_type: str | None, root: Path, options: LearningOptions, audit_file: Path | None
) -> None:
    """Learns from stores, and prints what was done and why. Only one process learns at a time.

    Args:
        files: The stores.
        only_type: The machine type; None for all.
        root: The folder of the models.
        options: When to train and what to promote.
        audit_file: The file of the audit log, if there is one.

    Raises:
        HistoryError: The stores have no such machine.
        FolderInUseError: Another process learns.
        CorruptModelError, LearningStateError: A model or the state of a type cannot be read.
    """
    with _learning(root, audit_file) as audit:
        source = f"store: {', '.join(map(str, files))}"
        told: dict[str, list[Record]] = {}
        for machine_type, runs in sorted(from_store(files, only_type, False, told=told).items()):
            _learn_type(root, machine_type, runs, told, source, options, audit)


def learn_from_ingestion(
    target: str, only_type: str | None, root: Path, options: LearningOptions, settings: PredictionSettings
) -> None:
    """Learns from the readings of a running ingestion service, type by type. Prints what was done and why.

    Args:
        target: host:port of ingestion.
        only_type: The machine type; None for all.
        root: The folder of the models.
        options: When to train and what to promote.
        settings: The settings, with the bounds of what is read.

    Raises:
        HistoryError: There is no such machine, or its type has too many readings.
        AurumError: Ingestion did not answer.
        FolderInUseError, CorruptModelError, LearningStateError: As in `learn_from_stores`.
    """

    async def run(audit: AuditLog) -> None:
        async with served_histories(target, settings) as served:
            for machine_type, machines in sorted((await served.machines(only_type)).items()):
                runs, told = await _latest_runs(served, machines, settings)
                source = f"ingestion at {target}, {len(machines)} machines"
                await asyncio.to_thread(_learn_type, root, machine_type, runs, told, source, options, audit)

    with _learning(root, settings.audit_file) as audit:
        asyncio.run(run(audit))


async def _latest_runs(
    served: ServedHistories, machines: Sequence[ingestion_pb2.Machine], settings: PredictionSettings
) -> tuple[list[Run], RecordsOf]:
    """Returns the lives of machines in the latest days, as many days as fit into memory, and their records."""
    now_us, days = int(time.time() * 1e6), settings.learn_days
    first_us = min(machine.first_seen_us for machine in machines)
    days = max(1, min(days, -(-(now_us - first_us) // DAY_US)))
    while True:
        try:
            return await served.runs(machines, settings.learn_readings, now_us - days * DAY_US)
        except TooManyReadingsError:
            if days == 1:
                raise
            days //= 2
            print(
                f"{machines[0].machine_type}: not all readings fit into memory (AURUM_LEARN_READINGS); learning from "
                f"the last {days} days"
            )


@contextlib.contextmanager
def _learning(root: Path, audit_file: Path | None) -> Iterator[AuditLog]:
    """Opens the audit log, and keeps other processes from learning meanwhile."""
    lock = FolderLock(root / ".learning", wait=0)
    try:
        audit = AuditLog(audit_file)
        try:
            yield audit
        finally:
            audit.close()
    finally:
        lock.close()


def _learn_type(
    root: Path,
    machine_type: str,
    runs: Sequence[Run],
    told: RecordsOf,
    source: str,
    options: LearningOptions,
    audit: AuditLog,
) -> None:
    with progress_bar(f"Learning {machine_type}") as update:
        said = learn(root, machine_type, runs, source, options, audit, update)
    for sentence in (*said, *_suggestions(runs, told)):
        print(f"{machine_type}: {sentence}")


def _suggestions(runs: Sequence[Run], told: RecordsOf) -> list[str]:
    """Returns the stops after which machines read as new and no record tells why. Nothing is learned from them."""
    found = [
        f"{run.machine} may have begun a new life after its {sign.describe()}; record an overhaul or a replacement "
        f"then, or an inspection if it was none"
        for run in runs
        for sign in renewal_signs(run, told.get(run.machine, ()))
    ]
    more = len(found) - _MOST_SUGGESTIONS
    return [*found[:_MOST_SUGGESTIONS], *([f"and {more} more suggestions of this kind"] if more > 0 else [])]
