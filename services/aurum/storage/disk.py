"""How full the disk is, and which errors say that it is."""

import errno
import os
import sqlite3
from pathlib import Path


def free_bytes(folder: Path) -> int:
    """Bytes that this process may still write there."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def is_full(error: Exception) -> bool:
    """Whether an error of the system or of SQLite says that there is no room."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last where a process may write no more
    return isinstance(error, sqlite3.OperationalError) and "full" in str(error)
