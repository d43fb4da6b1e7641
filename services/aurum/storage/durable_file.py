"""Whole files that are there completely or not at all, whatever is killed."""

import os
from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Writes a file, in place of an older one; it is on the disk when this returns. Raises OSError."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes new, renamed and removed files of a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
