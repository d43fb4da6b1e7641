"""Exclusive use of a folder by one process; others wait until it ends.

A pod that is deleted by force may keep running for a while beside its replacement, on the same volume.
"""

import fcntl
import logging
import time
from pathlib import Path

logger = logging.getLogger(__name__)

WAIT = 60.0  # seconds
_POLL = 0.1  # seconds


class FolderInUseError(OSError):
    """Another process uses the folder."""


class FolderLock:
    """The exclusive right to write to a folder, until `close` or the end of the process."""

    def __init__(self, folder: Path, wait: float = WAIT) -> None:
        """Takes the folder. Blocks for up to `wait` seconds while another process has it.

        Raises:
            FolderInUseError: If the other process has not ended in time.
            OSError: If the lock file cannot be used.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "in-use.lock").open("ab")
        deadline = time.monotonic() + wait
        told = False
        while not self._locked():
            if time.monotonic() >= deadline:
                self._file.close()
                raise FolderInUseError(f"{folder} is in use by another process, which has not ended within {wait:g} s")
            if not told:
                logger.warning("%s is in use by another process; waiting for it to end", folder)
                told = True
            time.sleep(_POLL)

    def close(self) -> None:
        """Releases the folder for the next process."""
        self._file.close()

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
