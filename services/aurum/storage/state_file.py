"""Small state files that survive power cuts and flipped bits: with a checksum, and the previous version beside them."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from aurum.storage.durable_file import write_file

logger = logging.getLogger(__name__)


def write_state(path: Path, content: Any) -> None:
    """Replaces a state file. Its previous content is kept as an older generation. Not synced. Raises OSError."""
    text = json.dumps(content, separators=(",", ":"))
    stored = json.dumps({"sha256": _digest(text), "content": text})
    write_file(path, stored.encode(), older=_older(path), sync=False)


def read_state(path: Path) -> Any | None:
    """Returns the last written content, or the previous one if the file is damaged. None if neither can be read."""
    for each in (path, _older(path)):
        if not each.exists():
            continue
        try:
            return _content(each)
        except OSError as error:
            logger.error("%s cannot be read, so an older state is used: %s", each, error.strerror or error)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            logger.error("%s is damaged, so an older state is used: %s", each, error)
    return None


def _content(path: Path) -> Any:
    stored = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(stored, list):
        return stored  # written by an earlier version, without a checksum
    text = stored["content"]
    if _digest(text) != stored["sha256"]:
        raise ValueError("its checksum is wrong")
    return json.loads(text)


def _older(path: Path) -> Path:
    return path.with_suffix(".old")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
