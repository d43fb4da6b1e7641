"""Exclusive use of a folder by one process; other processes wait until it ends.

A pod that is deleted by force may keep running for a while next to its replacement, on the same volume.
"""

import fcntl
import logging
import time
from pathlib import Path

logger = logging.getLogger(__name__)

WAIT_SECONDS = 60.0  # seconds
_POLL_SECONDS = 0.1  # seconds


class FolderInUseError(OSError):
    """Another process holds the lock of the folder."""


class FolderLock:
    """The exclusive right to write to a folder, until `close` or the end of the process."""

    def __init__(self, folder: Path, wait: float = WAIT_SECONDS) -> None:
        """Locks the folder. Blocks for up to `wait` seconds while another process holds the lock.

        Raises:
            FolderInUseError: If the other process still holds the lock after `wait` seconds.
            OSError: If the lock file cannot be used.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "in-use.lock").open("ab")
        deadline = time.monotonic() + wait
        logged = False
        while not self._try_lock():
            if time.monotonic() >= deadline:
                self._file.close()
                raise FolderInUseError(f"{folder} is still in use by another process after {wait:g} s")
            if not logged:
                logger.warning("%s is in use by another process; waiting for it to end", folder)
                logged = True
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Releases the lock."""
        self._file.close()

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
