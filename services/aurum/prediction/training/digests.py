"""Digests of histories, by which a model card states what a model was trained on."""

import hashlib
from collections.abc import Sequence

from aurum.readings.history import Run


def digest_of_run(run: Run) -> str:
    """Returns a digest of a run that does not depend on the order of the columns."""
    digest = hashlib.sha256(run.machine_id.encode())
    digest.update(run.timestamps.astype("<i8").tobytes())
    for name in sorted(run.columns):
        digest.update(name.encode())
        digest.update(run.columns[name].astype("<f8").tobytes())
    return digest.hexdigest()


def digest_of(digests_of_runs: Sequence[str]) -> str:
    """Returns the digest of histories by those of their runs, see `digest_of_run`."""
    return hashlib.sha256("".join(digests_of_runs).encode()).hexdigest()
