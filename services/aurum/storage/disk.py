"""Free disk space, and the errors that mean that the disk is full."""

import errno
import os
import sqlite3
from pathlib import Path


def free_bytes(folder: Path) -> int:
    """Returns the bytes that this process may still write to the folder's file system."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def is_full(error: Exception) -> bool:
    """Returns whether an error of the system or of SQLite means that the disk is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # EFBIG: file size limit of the process
    return isinstance(error, sqlite3.OperationalError) and "full" in str(error)
