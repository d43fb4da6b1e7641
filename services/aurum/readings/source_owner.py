"""To whom a source belongs: nobody else may use its id, or they would take each other's sequences."""

from aurum.runtime.errors import PermissionDeniedError

SOURCE_TAKEN = "SOURCE_TAKEN"  # why a batch is refused whose source belongs to another caller


def owner_after(known: str, batch_owner: str, source_id: str) -> str:
    """The owner of a source once a batch is taken. A source that nobody owns yet, as one of before there were owners,
    goes to the first caller that is known.

    Raises PermissionDeniedError if it belongs to another; the message does not say to whom.
    """
    if known and batch_owner != known:
        raise PermissionDeniedError(
            f"source {source_id!r} belongs to another caller; use a source_id of your own",
            reason=SOURCE_TAKEN,
            metadata={"source_id": source_id},
        )
    return batch_owner
