"""A segment log that keeps a reserve of free disk space and reports why writes fail."""

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
        setting: The name of the setting of `min_free_bytes`, for errors.
        owner: The component that the log belongs to, such as "the store", for errors.
    """

    def __init__(self, folder: Path, file_bytes: int, min_free_bytes: int, setting: str, owner: str) -> None:
        super().__init__(folder, file_bytes)
        self._min_free_bytes = min_free_bytes
        self._setting = setting
        self._owner = owner
        self.problem: str | None = None

    def write(self, payloads: Sequence[bytes], at_us: int | None = None) -> range:
        """Appends and syncs records, and returns their ids. `at_us` is the current time by default.

        Raises:
            ResourceExhaustedError: If the disk is full.
            UnavailableError: If the write fails otherwise.
        """
        try:
            self._require_free_space()
            ids = self.append_records(payloads, now_us() if at_us is None else at_us)
        except OSError as error:
            description = _describe(error)
            if self.problem is None:
                logger.error("%s %s; writes are refused until this is fixed", self.folder, description)
            self.problem = description
            metrics.track_error(type(error).__name__)
            raise write_error(error, self._owner, description) from error
        if self.problem is not None:
            logger.info("%s is writable again", self.folder)
            self.problem = None
        return ids

    def check_space(self) -> int:
        """Checks the free space, and clears the problem if there is enough. Returns the free bytes."""
        try:
            free = self._require_free_space()
        except OSError as error:
            self.problem = _describe(error)
            return free_bytes(self.folder)
        self.problem = None  # the next write shows whether it still fails
        return free

    def _require_free_space(self) -> int:
        free = free_bytes(self.folder)
        if free < self._min_free_bytes:
            raise OSError(
                errno.ENOSPC,
                f"{free:,} bytes are free, and {self._min_free_bytes:,} must stay free ({self._setting})",
            )
        return free


def _describe(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"cannot be written: the disk is full: {reason}" if is_full(error) else f"cannot be written: {reason}"


def write_error(error: Exception, owner: str, description: str) -> AurumError:
    """Returns the error for the sender of a failed write.

    Args:
        error: The error of the write.
        owner: The component that could not be written, such as "the store".
        description: The end of a sentence that starts with `owner`.
    """
    if is_full(error):
        return ResourceExhaustedError(f"{owner} {description}", reason=DISK_FULL, retry_after=1.0)
    return UnavailableError(f"{owner} {description}", retry_after=1.0)
