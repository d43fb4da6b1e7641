"""Dead letters: batches that ingestion refuses permanently, kept with the reason for an operator.

A dead letter is one file. Its first line is JSON with the description and the checksum of the rest; the rest is the
IngestRequest as it was sent. A file is complete or absent, even after a kill.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aurum.edge import metrics
from aurum.readings.batch_decoding import decode, parse_request
from aurum.readings.transport.refusals import Refused
from aurum.runtime.errors import AurumError
from aurum.runtime.metrics import bounded
from aurum.storage.durable_file import write_file

logger = logging.getLogger(__name__)

_SUFFIX = ".letter"
_MAX_HEADER_BYTES = 65_536


class DeadLetterError(Exception):
    """A dead letter cannot be read. The message names its file."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A batch that ingestion refused permanently.

    Attributes:
        name: The name of the dead letter.
        refused_at: When it was refused, in ISO 8601.
        reason: The machine-readable reason of the refusal.
        message: The description of the refusal.
        source_id: The source of the batch; empty if unknown.
        sequence: The sequence of the batch; 0 if unknown.
        readings: The number of readings; 0 if unknown.
        request: The serialized IngestRequest.
    """

    name: str
    refused_at: str
    reason: str
    message: str
    source_id: str
    sequence: int
    readings: int
    request: bytes


def dead_letter_folder(spool: Path) -> Path:
    """Returns the folder of a spool's dead letters."""
    return spool / "dead-letters"


class DeadLetters:
    """The dead letters of one gateway. All methods block.

    Args:
        folder: The folder of the files.
        max_bytes: The total size above which the oldest are deleted.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._folder_changed_at = -1  # modification time of the folder
        self.refresh()

    def put(self, refused: Refused, request: bytes) -> None:
        """Stores a dead letter.

        Args:
            refused: The refusal.
            request: The serialized IngestRequest.

        Raises:
            OSError: If it cannot be written. Nothing is then stored.
        """
        now = datetime.now(UTC)
        header = {
            "refused_at": now.isoformat(timespec="milliseconds"),
            "reason": refused.reason,
            "message": refused.message,
            **_describe_request(request),
            "sha256": hashlib.sha256(request).hexdigest(),
        }
        self._folder.mkdir(exist_ok=True)
        target = self._folder / f"{now:%Y%m%dT%H%M%S%f}-{refused.id:012}{_SUFFIX}"
        write_file(target, json.dumps(header).encode() + b"\n" + request)
        metrics.edge_dead_letters_total.labels(bounded("dead_letter_reason", refused.reason)).inc()
        self.refresh()

    def import_refused_batches(self, refused: Path) -> None:
        """Imports the refused batches of an earlier version, which stored a batch and its reason as two files."""
        for path in sorted(refused.glob("*.batch")):
            reason = path.with_suffix(".txt")
            message = reason.read_text(errors="replace").strip() if reason.exists() else ""
            number = int(path.stem) if path.stem.isdigit() else 0
            self.put(Refused(number, "INVALID_ARGUMENT", message), path.read_bytes())
            path.unlink()
            reason.unlink(missing_ok=True)

    def refresh(self) -> None:
        """Updates the gauges, and deletes the oldest letters beyond `max_bytes`. At least one letter is kept."""
        changed_at = self._folder.stat().st_mtime_ns if self._folder.exists() else 0
        if changed_at == self._folder_changed_at:
            return
        sizes = {path: path.stat().st_size for path in _files(self._folder)}
        total = sum(sizes.values())
        for path in sorted(sizes):
            if total <= self._max_bytes or len(sizes) == 1:
                break
            path.unlink(missing_ok=True)
            total -= sizes.pop(path)
            metrics.edge_spool_dropped_total.labels("dead_letters_full").inc()
            logger.error(
                "dead letter %s is deleted, because they exceed %d bytes (AURUM_EDGE_DEAD_LETTER_MAX_BYTES)",
                path.name,
                self._max_bytes,
            )
        self._folder_changed_at = self._folder.stat().st_mtime_ns if self._folder.exists() else 0
        metrics.edge_dead_letters_waiting.set(len(sizes))
        metrics.edge_dead_letter_bytes.set(total)


def names(folder: Path) -> list[str]:
    """Returns the names of the dead letters in a folder, oldest first."""
    return sorted(path.stem for path in _files(folder))


def read(folder: Path, name: str) -> DeadLetter:
    """Reads a dead letter. Raises DeadLetterError."""
    path = folder / f"{name}{_SUFFIX}"
    try:
        head, _, request = path.read_bytes().partition(b"\n")
        header = json.loads(head[:_MAX_HEADER_BYTES])
        if hashlib.sha256(request).hexdigest() != header.pop("sha256"):
            raise DeadLetterError(f"{path} is damaged: the checksum does not match")
        fields = {name: header[name] for name in DeadLetter.__slots__ if name in header}
        return DeadLetter(name=name, request=request, **fields)
    except OSError as error:
        raise DeadLetterError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DeadLetterError(f"{path} is not a dead letter: {error}") from error


def delete(folder: Path, name: str) -> None:
    """Deletes a dead letter. Raises DeadLetterError if there is none with this name, or OSError."""
    path = folder / f"{name}{_SUFFIX}"
    if path.parent != folder or not path.exists():
        raise DeadLetterError(f"there is no dead letter {name!r} in {folder}")
    path.unlink()


def _files(folder: Path) -> Iterator[Path]:
    return folder.glob(f"*{_SUFFIX}")


def _describe_request(request: bytes) -> dict[str, str | int]:
    """Returns the source, sequence and number of readings of a request, as far as they can be read."""
    try:
        batch = decode(parse_request(request).batch, now=2**62)
    except AurumError as error:
        sequence = error.metadata.get("sequence", "")
        return {
            "source_id": error.metadata.get("source_id", ""),
            "sequence": int(sequence) if sequence.isdigit() else 0,
            "readings": 0,
        }
    return {"source_id": batch.source_id, "sequence": batch.sequence, "readings": batch.readings}
