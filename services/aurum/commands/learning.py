"""`aurum learn`: trains again, compares and promotes the models of all machine types of a store."""

from collections.abc import Sequence
from pathlib import Path

from aurum.commands.histories import from_store
from aurum.commands.progress import progress_bar
from aurum.prediction.learning.learn import LearningOptions, learn
from aurum.prediction.learning.rule import PromotionRule
from aurum.prediction.settings import PredictionSettings
from aurum.prediction.training.train import TrainingOptions
from aurum.runtime.audit import AuditLog
from aurum.storage.folder_lock import FolderLock


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
    lock = FolderLock(root / ".learning", wait=0)
    audit = AuditLog(audit_file)
    try:
        source = f"store: {', '.join(map(str, files))}"
        for machine_type, runs in sorted(from_store(files, only_type, False).items()):
            with progress_bar(f"Learning {machine_type}") as update:
                said = learn(root, machine_type, runs, source, options, audit, update)
            for sentence in said:
                print(f"{machine_type}: {sentence}")
    finally:
        audit.close()
        lock.close()
