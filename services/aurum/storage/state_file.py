"""Small state files with a checksum and the previous version as a backup, so that they survive power cuts."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from aurum.storage.durable_file import write_file

logger = logging.getLogger(__name__)


def write_state(path: Path, content: Any) -> None:
    """Replaces a state file, and keeps the previous version. Does not sync.

    Args:
        path: The file.
        content: A value that JSON can represent.

    Raises:
        OSError: If the file cannot be written.
    """
    text = json.dumps(content, separators=(",", ":"))
    stored = json.dumps({"sha256": _digest(text), "content": text})
    write_file(path, stored.encode(), older=_previous(path), sync=False)


def read_state(path: Path) -> Any | None:
    """Returns the last written content, or the previous one if the file is damaged. None if neither can be read."""
    for candidate in (path, _previous(path)):
        if not candidate.exists():
            continue
        try:
            return _read_content(candidate)
        except OSError as error:
            logger.error("%s cannot be read: %s; falling back to an older state", candidate, error.strerror or error)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            logger.error("%s is damaged: %s; falling back to an older state", candidate, error)
    return None


def _read_content(path: Path) -> Any:
    stored = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(stored, list):
        return stored  # written by an earlier version, without a checksum
    text = stored["content"]
    if _digest(text) != stored["sha256"]:
        raise ValueError("the checksum does not match")
    return json.loads(text)


def _previous(path: Path) -> Path:
    return path.with_suffix(".old")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
