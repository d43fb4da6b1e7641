"""The console's files. They are read and compressed once at start and served from memory."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CONSOLE = Path(__file__).parent / "console"
_MIN_COMPRESSED = 300  # bytes of a file
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".json": "application/json"}


@dataclass(frozen=True, slots=True)
class ConsoleFile:
    """A file, with its gzip form if that is worthwhile."""

    content: bytes
    compressed: bytes | None
    media_type: str
    etag: str


def load_console(folder: Path = CONSOLE) -> Mapping[str, ConsoleFile]:
    """Reads all files of the console.

    Args:
        folder: The folder with the files.

    Returns:
        The files by their path within the folder, such as vendor/uPlot.css.
    """
    return {
        path.relative_to(folder).as_posix(): _load(path) for path in sorted(folder.rglob("*")) if path.suffix in _TYPES
    }


def _load(path: Path) -> ConsoleFile:
    content = path.read_bytes()
    compressed = gzip.compress(content, 9, mtime=0) if len(content) >= _MIN_COMPRESSED else None
    media_type = _TYPES[path.suffix]
    return ConsoleFile(content, compressed, media_type, f'"{hashlib.sha256(content).hexdigest()[:24]}"')
