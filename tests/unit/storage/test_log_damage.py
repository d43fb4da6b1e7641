"""Damage to a segment log: skipping, truncation, reporting, and recovery from failed writes."""

import errno
import io
import logging
import os
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.storage import checksums, segment_log
from aurum.storage.segment_log import OVERHEAD, DamagedRange, NewerLogError, SegmentLog, find_damage, scan

MAGIC = b"\x41\x4c\x47\x01"
FILE = 400


def record(id_: int, payload: bytes) -> bytes:
    """A record as its documentation describes it."""
    checked = struct.pack("<IIQq", len(payload), 0, id_, 1) + payload
    return MAGIC + struct.pack("<I", zlib.crc32(checked)) + checked


def log_of(folder: Path, *content: bytes) -> Path:
    """Writes the only file of a log."""
    path = folder / f"{1:020}.log"
    path.write_bytes(b"".join(content))
    return path


def read(folder: Path, file_bytes: int = FILE) -> list[int]:
    log = SegmentLog(folder, file_bytes)
    found = [each.id for each in log.read(0, 2**30)]
    log.close()
    return found


A, B, C = record(1, b"a" * 20), record(2, b"b" * 30), record(3, b"c" * 40)


def test_intact_log_has_no_damage(tmp_path: Path) -> None:
    assert find_damage(tmp_path) == (0, [])
    log_of(tmp_path, A, B)
    (tmp_path / f"{3:020}.log").write_bytes(C)
    (tmp_path / f"{4:020}.log").touch()
    (tmp_path / "notes.txt").write_text("no log")
    assert find_damage(tmp_path) == (3, [])


@pytest.mark.parametrize("length", [1, 2, 3, OVERHEAD - 1, OVERHEAD, OVERHEAD + 1, 100])
def test_damage_between_records_is_skipped_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    noise = b"#" * length
    path = log_of(tmp_path, A, noise, B, C)
    assert find_damage(tmp_path) == (3, [DamagedRange(path, len(A), length, at_end=False)])
    caplog.clear()
    assert [each.id for each in scan(tmp_path, 0)] == [1, 2, 3]
    assert [each.getMessage() for each in caplog.records] == [
        f"{path}: skipping {length} damaged bytes at offset {len(A)}"
    ]
    assert read(tmp_path) == [1, 2, 3]


def test_damage_at_the_start_of_a_file_is_skipped(tmp_path: Path) -> None:
    path = log_of(tmp_path, b"#", A, B)
    assert find_damage(tmp_path) == (2, [DamagedRange(path, 0, 1, at_end=False)])
    assert read(tmp_path) == [1, 2]


@pytest.mark.parametrize("left", [1, OVERHEAD - 1, OVERHEAD, OVERHEAD + 1, len(C) - 1])
def test_unfinished_write_is_truncated_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture, left: int) -> None:
    path = log_of(tmp_path, A, B, C[:left])
    whole = len(A) + len(B)
    assert find_damage(tmp_path) == (2, [DamagedRange(path, whole, left, at_end=True)])
    log = SegmentLog(tmp_path)
    assert caplog.records[-1].getMessage() == f"{path.name}: cutting off {left} bytes of an unfinished write"
    assert path.read_bytes() == A + B
    assert (log.bytes_on_disk, log.next_id) == (whole, 3)
    assert log.append_records([b"c" * 40], 1) == range(3, 4)
    log.close()
    assert path.read_bytes() == A + B + C
    assert find_damage(tmp_path) == (3, [])


def test_intact_log_is_opened_without_log_messages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log_of(tmp_path, A, B, C)
    assert read(tmp_path) == [1, 2, 3]
    assert caplog.records == []


def test_all_damage_in_all_files_is_reported(tmp_path: Path) -> None:
    first = log_of(tmp_path, A, b"###", B, b"##", C, b"#####")
    second = tmp_path / f"{4:020}.log"
    second.write_bytes(b"#" + record(4, b"d") + record(5, b"e")[:-1])
    assert find_damage(tmp_path) == (
        4,
        [
            DamagedRange(first, len(A), 3, at_end=False),
            DamagedRange(first, len(A) + 3 + len(B), 2, at_end=False),
            DamagedRange(first, len(A + B + C) + 5, 5, at_end=True),
            DamagedRange(second, 0, 1, at_end=False),
            DamagedRange(second, 2 + OVERHEAD, OVERHEAD, at_end=True),
        ],
    )
    assert read(tmp_path) == [1, 2, 3, 4]
    assert second.stat().st_size == 2 + OVERHEAD
    assert first.stat().st_size == len(A + B + C) + 10, "only the last file is cut off"


@pytest.mark.parametrize("place", range(0, OVERHEAD + 20, 3))
def test_changed_byte_invalidates_only_its_record(tmp_path: Path, place: int) -> None:
    changed = bytearray(record(2, b"b" * 20))
    changed[place] ^= 0x40
    log_of(tmp_path, A, bytes(changed), C)
    assert read(tmp_path) == [1, 3]


@pytest.mark.parametrize(
    "noise",
    [
        MAGIC,
        MAGIC * 20,
        MAGIC + MAGIC[:3],
        B[:OVERHEAD],  # a header without its payload
        B[:-1],
        b"x" + B[:-1] + b"!",
        MAGIC + b"\xff" * 40,  # longer than the file
        A,  # a record that comes again
        record(0, b"id 0"),
    ],
)
def test_bytes_resembling_a_record_are_skipped(tmp_path: Path, noise: bytes) -> None:
    log_of(tmp_path, A, noise, C)
    whole, damage = find_damage(tmp_path)
    assert whole == 2
    assert read(tmp_path) == [1, 3]
    assert [(each.offset, each.bytes, each.at_end) for each in damage] == [(len(A), len(noise), False)]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"".join([MAGIC + struct.pack("<IIIQq", 7, 2**15, 0, 2, 1)] * 2000), id="unwhole records"),
        pytest.param(b"".join([b"#" + A] * 2000), id="records that come again"),
    ],
)
def test_search_for_records_takes_work_in_proportion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """Bytes that are read and checked, which a search from each place anew makes a thousand times as many."""
    path = log_of(tmp_path, A, b"#", content, C)
    work = 0

    class Counted(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal work
            found = super().read(-1 if size is None else size)
            work += len(found)
            return found

    def crc32(data: bytes, value: int = 0) -> int:
        nonlocal work
        work += len(data)
        return zlib.crc32(data, value)

    for module in (segment_log, checksums):
        monkeypatch.setattr(module, "zlib", SimpleNamespace(crc32=crc32))
    monkeypatch.setattr(Path, "open", lambda path, mode: Counted(path, "r"))
    whole, _ = find_damage(tmp_path)
    assert whole == 2
    assert work < 300 * path.stat().st_size


@given(st.binary(min_size=1, max_size=20_000), st.lists(st.tuples(st.integers(0), st.integers(0)), max_size=20))
def test_checksum_of_a_part_is_that_of_its_bytes(content: bytes, parts: list[tuple[int, int]]) -> None:
    found = checksums.PartChecksums(content * 3)
    size = len(content) * 3 + 1
    for one, other in [(0, size - 1), *parts]:
        start, end = sorted((one % size, other % size))
        assert found.crc32(start, end) == zlib.crc32((content * 3)[start:end])


def test_log_of_a_newer_version_is_refused_and_untouched(tmp_path: Path) -> None:
    newer = b"ALG\x02" + A[4:] + b"of another format"
    log_of(tmp_path, A)
    path = tmp_path / f"{2:020}.log"
    path.write_bytes(newer)
    with pytest.raises(
        NewerLogError, match=rf"{path} was written by a newer version \(format 2; this version supports 1\)"
    ):
        SegmentLog(tmp_path)
    assert path.read_bytes() == newer


def test_first_record_with_a_damaged_version_is_skipped(tmp_path: Path) -> None:
    log_of(tmp_path, MAGIC[:3] + b"\x03" + A[4:], B, C)
    assert read(tmp_path) == [2, 3]


def test_id_beyond_what_a_file_can_hold_is_damage(tmp_path: Path) -> None:
    log_of(tmp_path, A, record(2**64 - 1, b"x"), C)
    assert read(tmp_path) == [1, 3]


def test_other_files_in_the_folder_of_a_log_are_left_alone(tmp_path: Path) -> None:
    log_of(tmp_path, A)
    (tmp_path / "notes.log").write_text("of somebody")
    assert read(tmp_path) == [1]
    assert find_damage(tmp_path) == (1, [])
    assert (tmp_path / "notes.log").read_text() == "of somebody"


def test_payload_may_contain_record_bytes(tmp_path: Path) -> None:
    log_of(tmp_path, record(1, A), record(2, MAGIC * 9), C)
    assert find_damage(tmp_path) == (3, [])
    assert read(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("first", [b"", b"yy"])
def test_last_file_without_records_is_emptied(tmp_path: Path, first: bytes) -> None:
    path = log_of(tmp_path, first, b"x" * 200)
    log = SegmentLog(tmp_path, FILE)
    assert path.stat().st_size == log.bytes_on_disk == 0
    assert (log.next_id, log.first_id) == (1, 1)
    assert not log.can_trim(5)
    log.trim(5)
    assert log.append_records([b"x"], 1) == range(1, 2)
    log.close()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@given(st.lists(st.binary(max_size=30), min_size=2, max_size=6), st.data())
@settings(max_examples=40, deadline=None)
def test_other_records_survive_overwritten_bytes(
    tmp_path_factory: pytest.TempPathFactory, written: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("log")
    records = [record(id_, payload) for id_, payload in enumerate(written, start=1)]
    content = bytearray(b"".join(records))
    start = data.draw(st.integers(0, len(content) - 1))
    end = min(len(content), start + data.draw(st.integers(1, 40)))
    content[start:end] = bytes(byte ^ 0xFF for byte in content[start:end])
    log_of(folder, bytes(content))
    expected, offset = [], 0
    for id_, each in enumerate(records, start=1):
        if end <= offset or start >= offset + len(each):
            expected.append(id_)
        offset += len(each)
    whole, damage = find_damage(folder)
    assert whole == len(expected)
    assert sum(each.bytes for each in damage) == len(content) - sum(len(records[id_ - 1]) for id_ in expected)
    assert read(folder) == expected


def failing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """System calls that fail."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for name in names:
        monkeypatch.setattr(os, name, fail)


@pytest.mark.parametrize("before", [0, 1, 4, 5])
def test_failed_append_is_truncated_immediately(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    log = SegmentLog(tmp_path, FILE)
    for _ in range(before):
        log.append_records([b"x" * (100 - OVERHEAD)], 1)
    with monkeypatch.context() as patched:
        failing(patched, "fdatasync")
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                log.append_records([b"lost", b"too"], 1)
            assert log.bytes_on_disk == sum(each.stat().st_size for each in tmp_path.iterdir()) == 100 * before
            assert log.next_id == before + 1
    assert log.append_records([b"y"], 1) == range(before + 1, before + 2)
    log.close()
    assert find_damage(tmp_path) == (before + 1, [])
    assert read(tmp_path) == list(range(1, before + 2))


def test_ids_of_write_that_cannot_be_undone_are_not_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = SegmentLog(tmp_path)
    log.append_records([b"one"], 1)
    with monkeypatch.context() as patched:
        failing(patched, "fdatasync", "truncate")
        with pytest.raises(OSError, match="Input/output error"):
            log.append_records([b"two", b"three"], 1)
    assert log.next_id == 4
    assert [each.payload for each in log.read(0, 1000)] == [b"one"]
    assert log.append_records([b"four"], 1) == range(4, 5)
    assert [(each.id, each.payload) for each in log.read(0, 1000)] == [(1, b"one"), (4, b"four")]
    log.close()


def test_failed_folder_sync_fails_the_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = SegmentLog(tmp_path)
    with monkeypatch.context() as patched:
        failing(patched, "fsync")
        with pytest.raises(OSError, match="Input/output error"):
            log.append_records([b"one"], 1)
    assert log.append_records([b"one"], 1) == range(1, 2)
    log.close()
    assert read(tmp_path) == [1]


def test_damage_in_an_open_log_is_logged_as_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = log_of(tmp_path, A, B, C)
    log = SegmentLog(tmp_path)
    path.write_bytes(A + b"#" * len(B) + C)
    assert [each.id for each in log.read(0, 1000)] == [1, 3]
    assert [each.levelno for each in caplog.records] == [logging.ERROR]
    path.write_bytes(A + B[: OVERHEAD - 1])  # shorter than it was
    assert [each.id for each in log.read(0, 1000)] == [1]
    log.close()


def test_records_beyond_the_durable_end_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = log_of(tmp_path, A, B)
    log = SegmentLog(tmp_path)
    path.write_bytes(A + B + record(3, b"") + record(4, b""))  # as while they are written, and not yet synced
    assert [each.id for each in log.read(0, 1000)] == [1, 2]
    assert [each.id for each in log.read(1, 1000)] == [2]
    assert log.read(2, 1000) == []
    assert caplog.records == []
    log.close()
