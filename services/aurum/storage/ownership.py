"""One process at a time writes to a folder: the others wait for it to end.

A pod that is deleted by force goes on for a while beside the one that takes its place, on the same volume.
"""

import fcntl
import logging
import time
from pathlib import Path

logger = logging.getLogger(__name__)

WAIT = 60.0  # seconds
_POLL = 0.1  # seconds


class FolderInUseError(OSError):
    """Another process writes to the folder."""


class Ownership:
    """The right to write to a folder, until `close` or the end of the process."""

    def __init__(self, folder: Path, wait: float = WAIT) -> None:
        """Waits for so many seconds at most. Blocks. Raises FolderInUseError, or another OSError."""
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
        """Lets the next process have it."""
        self._file.close()

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
