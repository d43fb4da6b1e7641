"""A segment log that keeps some of the disk free, and explains why it cannot be written."""

import errno
import logging
from collections.abc import Sequence
from pathlib import Path

from aurum.readings.batch import now_us
from aurum.runtime import metrics
from aurum.runtime.errors import AurumError, ResourceExhaustedError, UnavailableError
from aurum.storage.disk import free_bytes, is_full
from aurum.storage.segment_log import SegmentLog

logger = logging.getLogger(__name__)

DISK_FULL = "DISK_FULL"


class WriteAheadLog(SegmentLog):
    """A segment log with a reserve of free disk space.

    Args:
        folder: The folder of the log files.
        file_bytes: The size at which the next file is begun.
        min_free_bytes: The free bytes of the disk below which writes are refused.
        setting: The name of the setting for it, for errors.
        what: What the log belongs to, for errors.
    """

    def __init__(self, folder: Path, file_bytes: int, min_free_bytes: int, setting: str, what: str) -> None:
        super().__init__(folder, file_bytes)
        self._min_free_bytes = min_free_bytes
        self._setting = setting
        self._what = what
        self.problem: str | None = None

    def write(self, payloads: Sequence[bytes], at_us: int | None = None) -> range:
        """Appends and syncs records, and returns their ids. `at_us` is the current time by default.

        Raises:
            ResourceExhaustedError: If the disk is full.
            UnavailableError: If the write fails otherwise.
        """
        try:
            self._check_room()
            ids = self.append(payloads, now_us() if at_us is None else at_us)
        except OSError as error:
            sentence = _sentence(error)
            if self.problem is None:
                logger.error("%s %s", self.folder, sentence)
            self.problem = sentence
            metrics.track_error(type(error).__name__)
            raise refusal(error, self._what, sentence) from error
        if self.problem is not None:
            logger.info("%s can be written again", self.folder)
            self.problem = None
        return ids

    def look(self) -> int:
        """Checks the free space, and clears the problem if there is enough. Returns the free bytes."""
        try:
            free = self._check_room()
        except OSError as error:
            self.problem = _sentence(error)
            return free_bytes(self.folder)
        self.problem = None  # the next write shows whether it still fails
        return free

    def _check_room(self) -> int:
        free = free_bytes(self.folder)
        if free < self._min_free_bytes:
            raise OSError(
                errno.ENOSPC,
                f"{free:,} bytes are free, {self._min_free_bytes:,} must stay so ({self._setting})",
            )
        return free


def _sentence(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"cannot be written: the disk is full: {reason}" if is_full(error) else f"cannot be written: {reason}"


def refusal(error: Exception, what: str, sentence: str) -> AurumError:
    """Returns the error for the sender after a failed write. `what` could not be written, such as "the store"."""
    if is_full(error):
        return ResourceExhaustedError(f"{what} {sentence}", reason=DISK_FULL, retry_after=1.0)
    return UnavailableError(f"{what} {sentence}", retry_after=1.0)
