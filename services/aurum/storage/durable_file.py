"""Atomic file writes: a file is written completely or not at all, even after a kill or on a full disk."""

import os
from pathlib import Path


def write_file(path: Path, content: bytes, *, mode: int = 0o666, older: Path | None = None, sync: bool = True) -> None:
    """Writes a file in place of an older one. A reader sees either the old or the new file.

    Args:
        path: The file.
        content: Its new content.
        mode: The permissions, reduced by the umask.
        older: The path to which the previous file is moved, if given.
        sync: Whether to sync before returning. Otherwise the new file may be empty after a power cut.

    Raises:
        OSError: If the write fails. The old file is then still there, at `path` or at `older`.
    """
    partial = path.with_name(f".{path.name}.new")
    try:
        partial.unlink(missing_ok=True)  # left by a killed write, possibly with another mode
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        if older is not None and path.exists():
            os.replace(path, older)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)  # frees the space on a full disk
        raise
    if sync:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes new, renamed and removed files of a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
