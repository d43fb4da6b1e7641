"""The name of the gateway that sends an Ingest stream: in the metadata of the call, and for the work on its batches."""

import contextvars
import re
from collections.abc import Iterable

from aurum.runtime.errors import InvalidArgumentError

GATEWAY_METADATA = "aurum-gateway"
GATEWAY_NAME = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}"

sending_gateway: contextvars.ContextVar[str] = contextvars.ContextVar("aurum_sending_gateway", default="")
"""The gateway whose stream the present task serves; empty if a device or a service sends it."""


def gateway_in(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Returns the gateway that the metadata of a call names; empty if it names none.

    Raises:
        InvalidArgumentError: The name is invalid.
    """
    name = next((value for key, value in metadata or () if key == GATEWAY_METADATA), "")
    if not name:
        return ""
    if not isinstance(name, str) or not re.fullmatch(GATEWAY_NAME, name):
        raise InvalidArgumentError.for_field(
            f"metadata {GATEWAY_METADATA}",
            "must be 1 to 64 letters, digits and . _ : -, with a letter or digit first; set AURUM_EDGE_NAME",
        )
    return name
