"""The header Idempotency-Key, with which a repeated request takes effect only once."""

import hashlib
from typing import Annotated

from fastapi import Depends, Header, Request

from aurum.api.context import Caller
from aurum.runtime.errors import InvalidArgumentError

_KeyHeader = Annotated[str | None, Header(alias="Idempotency-Key", max_length=150, pattern=r"^[A-Za-z0-9._:\-]+$")]
_KEY_LENGTH = 32


async def _scoped_key(request: Request, caller: Caller, header: _KeyHeader = None) -> str | None:
    if header is None:
        return None
    scope = (caller.kind, caller.user_id, *sorted(caller.sites), request.method, request.scope["route"].path, header)
    return hashlib.sha256("\0".join(scope).encode()).hexdigest()[:_KEY_LENGTH]


# A digest of the header, the caller and the route, since different callers may use the same keys
IdempotencyKey = Annotated[str | None, Depends(_scoped_key)]


def key_reused() -> InvalidArgumentError:
    """Returns the error for a key that was used before with a different body."""
    error = InvalidArgumentError.for_field(
        "Idempotency-Key", "was already used for a request with a different body; use a new key for each request"
    )
    error.reason = "IDEMPOTENCY_KEY_REUSED"
    return error
