"""Records the outcome of each attempt to call another service for `aurum policy simulate`.

Outcomes are JSON lines in files of bounded size.
"""

import contextlib
import io
import logging
import os
import queue
import threading
import time
from pathlib import Path

from aurum.resilience.outcomes import Outcome
from aurum.runtime import metrics

logger = logging.getLogger(__name__)

_WAITING = 10_000  # queued outcomes; further ones are dropped and counted
_FLUSH = 0.5  # seconds


class OutcomeRecorder:
    """Writes outcomes on its own thread. A file larger than max_bytes is renamed to .1, replacing the previous one."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Opens the file and starts the thread. Raises OSError if the file cannot be written."""
        self._path = path
        self._max_bytes = max_bytes
        self._queue: queue.Queue[Outcome | None] = queue.Queue(_WAITING)
        self._ended = False  # set when the file could not be written
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: io.BufferedWriter = path.open("ab")
        self._thread = threading.Thread(target=self._write, name="outcome-recorder", daemon=True)
        self._thread.start()

    def record(self, target: str, seconds: float, code: str, attempt: int) -> None:
        """Queues the outcome of an attempt that has just ended, without blocking. Dropped outcomes are counted."""
        if self._ended:
            metrics.outcomes_dropped_total.inc()
            return
        try:
            self._queue.put_nowait(Outcome(time.time() - seconds, target, seconds, code, attempt))
        except queue.Full:
            metrics.outcomes_dropped_total.inc()

    def close(self) -> None:
        """Writes the queued outcomes and stops the thread."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=1.0)
        self._thread.join(2.0)

    def _write(self) -> None:
        lines: list[bytes] = []
        try:
            while True:
                outcome = self._queue.get()
                lines = []
                while outcome is not None:
                    lines.append(outcome.line().encode())
                    if self._queue.empty():
                        break
                    outcome = self._queue.get_nowait()
                self._file.write(b"".join(lines))
                self._file.flush()
                lines = []
                if outcome is None:
                    return
                if self._file.tell() > self._max_bytes:
                    self._file.close()
                    os.replace(self._path, self._path.with_suffix(".jsonl.1"))
                    self._file = self._path.open("ab")
                time.sleep(_FLUSH)
        except OSError as error:
            self._ended = True
            metrics.outcomes_dropped_total.inc(len(lines))
            with contextlib.suppress(queue.Empty):
                while self._queue.get_nowait() is not None:
                    metrics.outcomes_dropped_total.inc()
            logger.error("outcomes are no longer recorded: %s cannot be written: %s", self._path, error.strerror)
        finally:
            with contextlib.suppress(OSError):  # closing writes the buffer, which may fail again
                self._file.close()
