"""Ownership of sources.

Only the owner may use a source, because callers would otherwise use up each other's sequences.
"""

from aurum.runtime.errors import PermissionDeniedError

SOURCE_TAKEN = "SOURCE_TAKEN"  # reason for refusing a batch whose source belongs to another caller


def owner_after(known: str, batch_owner: str, source_id: str) -> str:
    """Returns the owner of a source after a batch.

    A source without an owner, for example from a version without owners, goes to the first known caller.

    Raises:
        PermissionDeniedError: If the source belongs to another caller. The message does not name that caller.
    """
    if known and batch_owner != known:
        raise PermissionDeniedError(
            f"source {source_id!r} belongs to another caller; use a source_id of your own",
            reason=SOURCE_TAKEN,
            metadata={"source_id": source_id},
        )
    return batch_owner
