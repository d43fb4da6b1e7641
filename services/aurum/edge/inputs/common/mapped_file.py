"""Files of a fixed size in memory, which survive the end of the process."""

import mmap
import os
from pathlib import Path


def open_mapped_file(path: Path, size: int) -> mmap.mmap:
    """Opens a file as memory, and creates it, filled with zeros, if it does not exist.

    Args:
        path: The file. Its folder is created, too.
        size: Its bytes.

    Raises:
        OSError: If it cannot be created, for example because the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(file, 0, size)  # reports a full disk now, instead of a signal later
        return mmap.mmap(file, size)
    finally:
        os.close(file)
