"""Whole files that are there completely or not at all, whatever is killed and however full the disk is."""

import os
from pathlib import Path


def write_file(path: Path, content: bytes, *, mode: int = 0o666, older: Path | None = None, sync: bool = True) -> None:
    """Writes a file, in place of an older one; a reader sees the old one or the new one. Raises OSError, and then the
    old one is still there.

    mode: who may read it, less what the umask takes. older: where what the file held until now goes. sync: whether it
    is on the disk when this returns; else a power cut may leave the new one empty.
    """
    half = path.with_name(f".{path.name}.new")
    try:
        half.unlink(missing_ok=True)  # of a write that was killed, which may have another mode
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        if older is not None and path.exists():
            os.replace(path, older)
        os.replace(half, path)
    except OSError:
        half.unlink(missing_ok=True)  # so that it takes no room on a disk that is full
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
