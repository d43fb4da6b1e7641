"""An append-only log of records in files.

An append is synced before it returns; old files are trimmed from the start.

A folder holds the files, each named by the id of its first record. Each record has a little-endian header: magic u32,
CRC-32 of everything that follows u32, length of the payload u32, zero u32, id u64, time of writing i64 (µs since the
epoch).

Ids increase. They are consecutive within a file, so no id is 2^32 or more above the file's first. An unfinished
record at the end of the last file was never acknowledged, and is cut off when the log is opened. A damaged record
elsewhere is skipped, counted and logged. The magic of a file's first record states the format version of the file. A
version that changes the format must begin a new file.
"""

import contextlib
import logging
import os
import re
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from aurum.storage.checksums import PartChecksums
from aurum.storage.durable_file import sync_folder

logger = logging.getLogger(__name__)

_HEADER = struct.Struct("<IIIIQq")
_CHECKED = struct.Struct("<IIQq")  # the part of the header that the checksum covers
_MAGIC = 0x01474C41  # "ALG" and 1 for the version
_MAGIC_BYTES = _MAGIC.to_bytes(4, "little")
_ANY_VERSION = _MAGIC_BYTES[:3]
_NEWER_VERSIONS = range(_MAGIC_BYTES[3] + 1, 32)  # possible future versions; a greater number means damage
READ_BYTES = 8_000_000  # bytes of the log that its readers read at a time
_MAX_ID_DISTANCE = 2**32 - 1  # of an id from the first id of its file
_MAX_RESUME_OFFSETS = 8  # remembered positions of readers, so that they continue without searching
_FILE_NAME = re.compile(r"[0-9]{20}\.log")
OVERHEAD = _HEADER.size  # bytes of a record besides its payload


class NewerLogError(OSError):
    """A file was written by a newer version of this software. The log is left unchanged."""


class Record(NamedTuple):
    """One record of the log. `at_us` is the time of writing in µs since the epoch."""

    id: int
    at_us: int
    payload: bytes


@dataclass(slots=True)
class _File:
    """A file of the log.

    Attributes:
        path: Its path.
        first: The id of its first record.
        size: Its durable bytes.
        last: The id of its last record; 0 if it has none.
    """

    path: Path
    first: int
    size: int = 0
    last: int = 0


class SegmentLog:
    """An append-only log. One thread may append and trim while another one reads."""

    def __init__(self, folder: Path, file_bytes: int = 32_000_000) -> None:
        """Opens the log in a folder, or creates it.

        Args:
            folder: The folder of the log files.
            file_bytes: The size at which the next file is begun.

        Raises:
            NewerLogError: If a newer version wrote a file.
            OSError: If the log cannot be read or repaired.
        """
        self.folder = folder
        self._file_bytes = file_bytes
        self._lock = threading.Lock()  # protects the list of files and their sizes
        self._descriptor: int | None = None  # of the last file, while it is open for appending
        folder.mkdir(parents=True, exist_ok=True)
        self._files = _list_files(folder)
        for file in self._files:
            _check_version(file)
        self.next_id = 1
        if self._files:
            newest = self._files[-1]
            self._recover(newest)
            self.next_id = max(newest.first, newest.last + 1)
            for before, after in zip(self._files, self._files[1:], strict=False):
                before.last = after.first - 1
        self._resume_offsets: OrderedDict[int, int] = OrderedDict()  # id → offset of its end in the file, to read on

    def close(self) -> None:
        """Closes the file that is open for appending. The log may be used again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def first_id(self) -> int:
        """The smallest id that may still be in the log."""
        with self._lock:
            return self._files[0].first if self._files else self.next_id

    @property
    def bytes_on_disk(self) -> int:
        """The size of all files."""
        with self._lock:
            return sum(file.size for file in self._files)

    def append_records(self, payloads: Sequence[bytes], at_us: int) -> range:
        """Writes and syncs records, and returns their ids. Raises OSError; then none of the records is kept."""
        ids = range(self.next_id, self.next_id + len(payloads))
        pieces: list[bytes] = []
        for id_, payload in zip(ids, payloads, strict=True):
            checked = _CHECKED.pack(len(payload), 0, id_, at_us)
            checksum = zlib.crc32(payload, zlib.crc32(checked))
            pieces.append(_MAGIC_BYTES + checksum.to_bytes(4, "little") + checked)
            pieces.append(payload)
        try:
            file, descriptor = self._open_for_append()
            written = _write_all(descriptor, pieces)
            os.fdatasync(descriptor)
        except OSError:
            self._discard_append(ids)
            raise
        with self._lock:
            file.size += written
            file.last = ids.stop - 1
            self.next_id = ids.stop
        return ids

    def read(self, after: int, max_bytes: int, max_records: int = 2**31) -> list[Record]:
        """Returns the records after the id `after`, in order.

        Returns at least one record if there is any, and stops when `max_bytes` of payload or `max_records` records are
        reached. Continuing from where an earlier call ended is cheap.

        Args:
            after: The id that precedes the first record.
            max_bytes: The payload bytes after which reading stops.
            max_records: The largest number of records.

        Raises:
            OSError: If a file cannot be read.
        """
        records: list[Record] = []
        bytes_left = max_bytes
        end = 0
        with self._lock:
            files = [_File(file.path, file.first, file.size, file.last) for file in self._files if file.last > after]
        for file in files:
            offset = self._resume_offsets.pop(after, 0) if after >= file.first else 0
            with contextlib.suppress(FileNotFoundError):  # trimmed in the meantime
                for record, end in _read_records(file, offset):  # noqa: B007
                    if record.id <= after:
                        continue
                    records.append(record)
                    after = record.id
                    bytes_left -= len(record.payload)
                    if bytes_left <= 0 or len(records) >= max_records:
                        break
            if records and (bytes_left <= 0 or len(records) >= max_records or file is files[-1]):
                self._resume_offsets[after] = end
                if len(self._resume_offsets) > _MAX_RESUME_OFFSETS:
                    self._resume_offsets.popitem(last=False)
                break
        return records

    def trim(self, through: int) -> None:
        """Removes the files whose records all have ids up to `through`. Raises OSError."""
        newest = self._files[-1] if self._files else None
        if newest and 0 < newest.last <= through and newest.size >= self._file_bytes // 4:
            self._begin_file()  # so that the full file can be removed; the name of the new one preserves the next id
        while len(self._files) > 1 and self._files[0].last <= through:
            self._files[0].path.unlink(missing_ok=True)
            with self._lock:
                self._files.pop(0)

    def can_trim(self, through: int) -> bool:
        """Returns whether `trim` would remove a file."""
        with self._lock:
            if not self._files or not 0 < self._files[0].last <= through:
                return False
            return len(self._files) > 1 or self._files[0].size >= self._file_bytes // 4

    def oldest_file(self) -> range | None:
        """Returns the ids of the oldest file, or None if it is the file that is being written."""
        with self._lock:
            return range(self._files[0].first, self._files[0].last + 1) if len(self._files) > 1 else None

    def _open_for_append(self) -> tuple[_File, int]:
        """Returns the file to append to, and its descriptor."""
        newest = self._files[-1] if self._files else None
        if newest is None or newest.size >= self._file_bytes or not self._accepts_next_id(newest):
            newest = self._begin_file()
        if self._descriptor is None:
            self._descriptor = os.open(newest.path, os.O_WRONLY | os.O_APPEND)
        return newest, self._descriptor

    def _accepts_next_id(self, file: _File) -> bool:
        """Returns whether the next id may be appended to a file."""
        follows = (file.last or file.first - 1) + 1 == self.next_id
        return follows and self.next_id <= file.first + _MAX_ID_DISTANCE

    def _begin_file(self) -> _File:
        self.close()
        file = _File(self.folder / f"{self.next_id:020}.log", self.next_id)
        self._descriptor = os.open(file.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o640)
        sync_folder(self.folder)
        with self._lock:
            self._files.append(file)
        return file

    def _discard_append(self, ids: range) -> None:
        """Cuts off the remnants of a failed append, and closes the descriptor."""
        self.close()
        try:
            if self._files:
                os.truncate(self._files[-1].path, self._files[-1].size)
        except OSError:
            self.next_id = ids.stop  # so that remnants of these records are not mistaken for later ones

    def _recover(self, file: _File) -> None:
        """Finds the end of the last file, and cuts off an unfinished record."""
        end = 0
        for record, offset in _read_records(file, 0):
            file.last, end = record.id, offset
        if end < file.size:
            logger.warning("%s: cutting off %d bytes of an unfinished write", file.path.name, file.size - end)
            os.truncate(file.path, end)
            file.size = end


def scan(folder: Path, after: int) -> Iterator[Record]:
    """Yields all records of a log after the id `after`. The log may be written to meanwhile.

    Raises:
        FileNotFoundError: If a file is trimmed during the scan.
    """
    for file in _list_files(folder):
        for record, _ in _read_records(file, 0):
            if record.id > after:
                yield record


@dataclass(frozen=True, slots=True)
class DamagedRange:
    """A range of bytes in a file that is not a valid record.

    Attributes:
        path: The file.
        offset: The start of the range in bytes.
        bytes: The length of the range.
        at_end: Whether the range is at the end of the file, as a kill during a write leaves it.
    """

    path: Path
    offset: int
    bytes: int
    at_end: bool


def find_damage(folder: Path) -> tuple[int, list[DamagedRange]]:
    """Verifies every record. Returns the number of valid records, and the damaged ranges."""
    count, damage = 0, []
    for file in _list_files(folder):
        end = 0
        for record, offset in _read_records(file, 0):
            start = offset - OVERHEAD - len(record.payload)
            if start > end:
                damage.append(DamagedRange(file.path, end, start - end, at_end=False))
            count, end = count + 1, offset
        if end < file.size:
            damage.append(DamagedRange(file.path, end, file.size - end, at_end=True))
    return count, damage


def _list_files(folder: Path) -> list[_File]:
    """Returns the files of a log in order. Files with other names are ignored."""
    paths = sorted(path for path in folder.glob("*.log") if _FILE_NAME.fullmatch(path.name))
    return [_File(path, int(path.stem), path.stat().st_size) for path in paths]


def _check_version(file: _File) -> None:
    """Raises NewerLogError if a newer version wrote the file, or another OSError that says what to do."""
    try:
        with file.path.open("rb") as content:
            magic = content.read(len(_MAGIC_BYTES))
    except OSError as error:
        raise type(error)(
            f"{file.path} cannot be read: {error.strerror}; check that this user may read and write it and its folder"
        ) from error
    if len(magic) < len(_MAGIC_BYTES) or magic[:3] != _ANY_VERSION or magic[3] not in _NEWER_VERSIONS:
        return
    if next(_read_records(file, 0), None) is None:  # else only the first record is damaged
        raise NewerLogError(
            f"{file.path} was written by a newer version (format {magic[3]}; this version supports {_MAGIC_BYTES[3]}); "
            f"the log is unchanged: start the newer version, or set another folder"
        )


def _read_records(file: _File, offset: int) -> Iterator[tuple[Record, int]]:
    """Yields the valid records from an offset on, each with the offset of its end. Damaged ones are skipped."""
    last = 0
    max_id = file.first + _MAX_ID_DISTANCE  # a greater id cannot be one of this log
    search: _RecordSearch | None = None
    with file.path.open("rb") as content:
        content.seek(offset)
        while offset + OVERHEAD <= file.size:
            header = content.read(OVERHEAD)
            if len(header) < OVERHEAD:
                return
            magic, checksum, length, _, id_, at_us = _HEADER.unpack(header)
            end = offset + OVERHEAD + length
            if magic == _MAGIC and end <= file.size and last < id_ <= max_id:
                payload = content.read(length)
                if zlib.crc32(payload, zlib.crc32(header[8:])) == checksum:
                    offset, last = end, id_
                    yield Record(id_, at_us, payload), offset
                    continue
            if search is None:
                search = _RecordSearch(content, offset, file.size)
            next_offset = search.next_valid(offset + 1, range(last + 1, max_id + 1))
            if next_offset is None:
                return
            logger.error("%s: skipping %d damaged bytes at offset %d", file.path, next_offset - offset, offset)
            offset = next_offset
            content.seek(offset)


class _RecordSearch:
    """Searches the rest of a file for valid records in time proportional to its size, whatever it contains."""

    def __init__(self, content: BinaryIO, offset: int, size: int) -> None:
        content.seek(offset)
        self._start = offset
        self._rest = content.read(size - offset)
        self._checksums = PartChecksums(self._rest)

    def next_valid(self, offset: int, ids: range) -> int | None:
        """Returns the offset of the next valid record at or after `offset` with one of these ids, or None."""
        at = self._rest.find(_MAGIC_BYTES, offset - self._start)
        while 0 <= at <= len(self._rest) - OVERHEAD:
            _, checksum, length, _, id_, _ = _HEADER.unpack_from(self._rest, at)
            end = at + OVERHEAD + length
            if id_ in ids and end <= len(self._rest) and self._checksums.crc32(at + 8, end) == checksum:
                return self._start + at
            at = self._rest.find(_MAGIC_BYTES, at + 1)
        return None


def _write_all(descriptor: int, pieces: list[bytes]) -> int:
    """Writes all pieces, several per system call. Returns the number of bytes."""
    total = 0
    for start in range(0, len(pieces), _MAX_PIECES):
        part = pieces[start : start + _MAX_PIECES]
        expected = sum(map(len, part))
        written = os.writev(descriptor, part)
        if written < expected:  # the disk is nearly full, or a signal interrupted the call
            rest = b"".join(part)[written:]
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        total += expected
    return total


_MAX_PIECES = 512  # per system call; Linux allows 1,024
