"""Ownership of sources.

Only the owner may use a source, because callers would otherwise use up each other's sequences.
"""

from aurum.runtime.errors import PermissionDeniedError

SOURCE_TAKEN = "SOURCE_TAKEN"  # reason for refusing a batch whose source belongs to another caller


def owner_after(current_owner: str, batch_owner: str, source_id: str) -> str:
    """Returns the owner of a source after a batch.

    A source without an owner, for example from a version without owners, goes to the first known caller.

    Args:
        current_owner: The owner before the batch; empty if there is none.
        batch_owner: The caller that sends the batch; empty if unknown.
        source_id: The source, for the error.

    Raises:
        PermissionDeniedError: If the source belongs to another caller. The message does not name that caller.
    """
    if current_owner and batch_owner != current_owner:
        raise PermissionDeniedError(
            f"source {source_id!r} belongs to another caller; use another source_id",
            reason=SOURCE_TAKEN,
            metadata={"source_id": source_id},
        )
    return batch_owner
