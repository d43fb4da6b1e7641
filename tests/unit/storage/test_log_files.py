"""Files of a segment log: layout, rotation, trimming, and reading in parts."""

import os
import stat
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.storage.segment_log import OVERHEAD, Record, SegmentLog, scan

FILE = 400  # bytes at which the next file is begun
PAYLOAD = 100 - OVERHEAD  # so that a record has 100 bytes


def record(id_: int, at_us: int, payload: bytes) -> bytes:
    """A record as its documentation describes it."""
    checked = struct.pack("<IIQq", len(payload), 0, id_, at_us) + payload
    return struct.pack("<II", 0x01474C41, zlib.crc32(checked)) + checked


def filled(folder: Path, records: int, file_bytes: int = FILE) -> SegmentLog:
    """A log of records with 100 bytes each, appended one by one."""
    log = SegmentLog(folder, file_bytes)
    for number in range(1, records + 1):
        assert log.append_records([bytes([number]) * PAYLOAD], number * 10) == range(number, number + 1)
    return log


def firsts(folder: Path) -> list[int]:
    """The first ids of the files, by their names."""
    return [int(path.stem) for path in sorted(folder.glob("*.log"))]


def ids(log: SegmentLog, after: int, max_bytes: int = 2**30, **max_records: int) -> list[int]:
    return [each.id for each in log.read(after, max_bytes, **max_records)]


def test_log_file_layout_is_as_documented(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path / "one" / "two")
    mask = os.umask(0)
    os.umask(mask)
    assert log.append_records([b"first", b""], 12_345) == range(1, 3)
    assert log.append_records([b"third"], -5) == range(3, 4)
    (path,) = (tmp_path / "one" / "two").iterdir()
    assert path.name == "00000000000000000001.log"
    assert path.read_bytes() == record(1, 12_345, b"first") + record(2, 12_345, b"") + record(3, -5, b"third")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 & ~mask
    expected = [Record(1, 12_345, b"first"), Record(2, 12_345, b""), Record(3, -5, b"third")]
    assert log.read(0, 1000) == expected
    assert list(scan(log.folder, 0)) == expected
    log.close()


@pytest.mark.parametrize("pieces", [255, 256, 257, 513])
def test_many_records_are_appended_at_once(tmp_path: Path, pieces: int) -> None:
    log = SegmentLog(tmp_path)
    payloads = [str(number).encode() for number in range(1, pieces + 1)]
    assert log.append_records(payloads, 7) == range(1, pieces + 1)
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == b"".join(record(id_, 7, each) for id_, each in enumerate(payloads, start=1))
    assert log.bytes_on_disk == path.stat().st_size
    log.close()


def test_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(descriptor: int, pieces: list[bytes]) -> int:
        return os.write(descriptor, b"".join(pieces)[:50])

    write = os.write
    log = SegmentLog(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", some)
        patched.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:60]))
        log.append_records([b"a" * 100, b"b" * 100], 1)
    log.append_records([b"c"], 1)
    (path,) = tmp_path.iterdir()
    expected = record(1, 1, b"a" * 100) + record(2, 1, b"b" * 100) + record(3, 1, b"c")
    assert path.read_bytes() == expected
    assert log.bytes_on_disk == len(expected)
    log.close()


def test_log_rotates_when_file_size_is_reached(tmp_path: Path) -> None:
    log = filled(tmp_path, 9)
    assert firsts(tmp_path) == [1, 5, 9]
    assert [path.stat().st_size for path in sorted(tmp_path.iterdir())] == [400, 400, 100]
    assert log.bytes_on_disk == 900
    assert (log.first_id, log.next_id) == (1, 10)
    assert log.oldest_file() == range(1, 5)
    log.close()


def test_log_does_not_rotate_below_file_size(tmp_path: Path) -> None:
    log = filled(tmp_path, 5, FILE + 1)
    assert firsts(tmp_path) == [1]
    assert log.append_records([b""], 1) == range(6, 7)
    assert firsts(tmp_path) == [1, 6]
    log.close()


def test_new_log_is_empty(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, FILE)
    assert (log.first_id, log.next_id, log.bytes_on_disk) == (1, 1, 0)
    assert log.oldest_file() is None
    assert not log.can_trim(10)
    log.trim(10)
    assert log.read(0, 100) == []
    log.close()
    log.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("records", [1, 2, 4, 5, 8, 11])
def test_reopened_log_preserves_its_state(tmp_path: Path, records: int) -> None:
    log = filled(tmp_path, records)
    before = (log.first_id, log.next_id, log.bytes_on_disk, log.oldest_file(), log.read(0, 2**20))
    log.close()
    log = SegmentLog(tmp_path, FILE)
    assert (log.first_id, log.next_id, log.bytes_on_disk, log.oldest_file(), log.read(0, 2**20)) == before
    assert [log.can_trim(through) for through in range(records + 1)] == [
        through >= 4 or through >= records for through in range(records + 1)
    ]
    assert log.append_records([b"x"], 1) == range(records + 1, records + 2)
    log.close()
    names = firsts(tmp_path)
    assert names == list(range(1, records + 2, 4))


def test_closed_log_resumes_on_append(tmp_path: Path) -> None:
    log = filled(tmp_path, 2)
    log.close()
    assert log.append_records([b"x"], 1) == range(3, 4)
    log.close()
    assert firsts(tmp_path) == [1]
    assert ids(log, 0) == [1, 2, 3]


@pytest.mark.parametrize(
    ("max_bytes", "expected"),
    [(0, 1), (1, 1), (PAYLOAD, 1), (PAYLOAD + 1, 2), (2 * PAYLOAD, 2), (4 * PAYLOAD, 4), (4 * PAYLOAD + 1, 5)],
)
@pytest.mark.parametrize("after", [0, 1, 3, 4])
def test_read_stops_at_byte_limit(tmp_path: Path, max_bytes: int, expected: int, after: int) -> None:
    log = filled(tmp_path, 10)
    assert ids(log, after, max_bytes) == list(range(after + 1, after + 1 + expected))
    log.close()


@pytest.mark.parametrize("most", [1, 2, 4, 5, 10, 11])
def test_read_returns_at_most_requested_records(tmp_path: Path, most: int) -> None:
    log = filled(tmp_path, 10)
    found: list[int] = []
    while more := ids(log, len(found), max_records=most):
        assert len(more) == min(most, 10 - len(found))
        found += more
    assert found == list(range(1, 11))
    log.close()


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9), st.booleans()), max_size=30))
@settings(max_examples=40, deadline=None)
def test_readers_in_any_order_return_all_records(
    tmp_path_factory: pytest.TempPathFactory, reads: list[tuple[int, int, bool]]
) -> None:
    log = filled(tmp_path_factory.mktemp("log"), 9)
    written = 9
    for after, most, more in reads:
        if more:
            log.append_records([b"more"], 1)
            written += 1
        assert ids(log, after, max_records=most) == list(range(after + 1, written + 1))[:most]
    log.close()


def test_reader_resumes_at_its_position_after_trim(tmp_path: Path) -> None:
    log = filled(tmp_path, 10)
    assert ids(log, 0, max_records=6) == [1, 2, 3, 4, 5, 6]
    log.trim(4)
    assert ids(log, 6) == [7, 8, 9, 10]
    assert ids(log, 0) == [5, 6, 7, 8, 9, 10]
    log.close()


def test_missing_log_file_is_skipped(tmp_path: Path) -> None:
    log = filled(tmp_path, 9)
    (tmp_path / f"{1:020}.log").unlink()
    assert ids(log, 0) == [5, 6, 7, 8, 9]
    assert log.bytes_on_disk == 900
    log.trim(4)  # which finds it gone
    assert (log.first_id, log.bytes_on_disk) == (5, 500)
    log.close()


@pytest.mark.parametrize(
    ("through", "left"), [(0, [1, 5, 9]), (3, [1, 5, 9]), (4, [5, 9]), (7, [5, 9]), (8, [9]), (9, [10]), (99, [10])]
)
def test_trim_removes_fully_consumed_files(tmp_path: Path, through: int, left: list[int]) -> None:
    log = filled(tmp_path, 9)
    assert log.can_trim(through) is (left != [1, 5, 9])
    log.trim(through)
    assert firsts(tmp_path) == left
    assert log.first_id == left[0]
    assert ids(log, 0) == list(range(left[0], 10))
    assert log.bytes_on_disk == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert log.append_records([b"x"], 1) == range(10, 11)
    log.close()
    assert SegmentLog(tmp_path, FILE).next_id == 11


@pytest.mark.parametrize(
    ("file_bytes", "goes"), [(3, True), (399, True), (400, True), (403, True), (404, False), (499, False)]
)
def test_single_file_is_trimmed_from_quarter_size(tmp_path: Path, file_bytes: int, goes: bool) -> None:
    log = filled(tmp_path, 1, file_bytes)
    assert log.can_trim(1) is goes
    assert not log.can_trim(0)
    log.trim(0)
    assert firsts(tmp_path) == [1]
    log.trim(1)
    assert firsts(tmp_path) == ([2] if goes else [1])
    assert log.next_id == 2
    assert log.can_trim(1) is False
    log.trim(1)
    assert firsts(tmp_path) == ([2] if goes else [1])
    log.close()


def test_oldest_file_exists_only_with_two_files(tmp_path: Path) -> None:
    log = filled(tmp_path, 4)
    assert log.oldest_file() is None
    log.append_records([b"x"], 1)
    assert log.oldest_file() == range(1, 5)
    log.trim(4)
    assert log.oldest_file() is None
    log.close()


@pytest.mark.parametrize("after", [0, 1, 3, 4, 5, 8, 9, 20])
def test_scan_returns_records_after_id(tmp_path: Path, after: int) -> None:
    log = filled(tmp_path, 9)
    (tmp_path / "notes.txt").write_text("no log")
    assert [each.id for each in scan(tmp_path, after)] == list(range(after + 1, 10))
    assert list(scan(tmp_path, after)) == log.read(after, 2**30)
    log.close()


def test_next_id_may_be_set_ahead(tmp_path: Path) -> None:
    log = filled(tmp_path, 2)
    log.next_id = 8
    assert log.append_records([b"x"], 1) == range(8, 9)
    assert firsts(tmp_path) == [1, 8]
    assert ids(log, 0) == [1, 2, 8]
    log.close()
    assert ids(SegmentLog(tmp_path, FILE), 0) == [1, 2, 8]


def test_resumed_reader_does_not_reread_file_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = filled(tmp_path, 20, 10_000)
    for last in range(1, 10):  # nine readers, eight of which go on where they were
        assert ids(log, 0, max_records=last) == list(range(1, last + 1))
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"#" * 100 + path.read_bytes()[100:])
    for last in range(2, 10):
        assert ids(log, last) == list(range(last + 1, 21))
        assert caplog.records == []
    assert ids(log, 1) == list(range(2, 21))
    assert [each.getMessage() for each in caplog.records] == [f"{path}: skipping 100 damaged bytes at offset 0"]
    log.close()


def test_reader_resumes_after_first_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = filled(tmp_path, 3)
    assert ids(log, 0, max_records=1) == [1]
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"#" * 100 + path.read_bytes()[100:])
    assert ids(log, 1) == [2, 3]
    assert caplog.records == []
    log.close()
