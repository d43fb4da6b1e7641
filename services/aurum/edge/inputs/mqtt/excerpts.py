"""Shows the beginning of payloads in the log, without what looks like a secret."""

import re

_MAX_SHOWN = 80  # characters
_MAX_READ = 1000  # bytes that are searched for secrets
_SECRET_NAME = r"pass|pwd|secret|token|credential|api_?key|auth|private|session|cookie"
_SECRET_WORD = re.compile(_SECRET_NAME, re.IGNORECASE)
_SECRET_FIELD = re.compile(
    rf"""([\w.\-]*(?:{_SECRET_NAME})[\w.\-]*["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"?|\[[^\]]*\]?|[^,;}}\s]+)""",
    re.IGNORECASE,
)
_HIDDEN = "***"


def excerpt(payload: bytes) -> str:
    """Returns the beginning of a payload as printable text. The values of fields with names of secrets are hidden."""
    text = _SECRET_FIELD.sub(rf"\1{_HIDDEN}", payload[:_MAX_READ].decode("utf-8", "replace"))
    return _printable(text)


def shown_value(path: str, value: object) -> str:
    """Returns the beginning of a value, quoted if it is text. The value is hidden if its path names a secret."""
    if _SECRET_WORD.search(path):
        return _HIDDEN
    return _printable(repr(value) if isinstance(value, str) else str(value))


def _printable(text: str) -> str:
    cut = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
    return "".join(letter if letter.isprintable() else "\N{MIDDLE DOT}" for letter in cut)
