"""Shows the beginning of payloads in the log, without what looks like a secret."""

import re
from typing import Final

from aurum.edge.inputs.common.printable import printable

_MAX_SHOWN = 80  # characters
_MAX_READ = 1000  # bytes that are searched for secrets
HIDDEN: Final = "***"
_WORDS = r"pass|pwd|secret|token|credential|api_?key|auth|private|session|cookie"
_SECRET_WORD = re.compile(_WORDS, re.IGNORECASE)
_SECRET_FIELD = re.compile(
    rf"""([\w.\-]*(?:{_WORDS})[\w.\-]*["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"?|\[[^\]]*\]?|[^,;}}\s]+)""",
    re.IGNORECASE,
)


def excerpt(payload: bytes) -> str:
    """Returns the beginning of a payload as printable text. The values of fields with names of secrets are hidden."""
    text = _SECRET_FIELD.sub(rf"\1{HIDDEN}", payload[:_MAX_READ].decode("utf-8", "replace"))
    shown = printable(text, _MAX_SHOWN)
    return shown if len(text) <= _MAX_SHOWN else f"{shown}…"


def names_secret(name: str) -> bool:
    """Returns whether a name is that of a secret, such as a password."""
    return _SECRET_WORD.search(name) is not None
