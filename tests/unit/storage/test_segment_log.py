"""The segment log: records survive interrupted writes, and damaged records are skipped and reported."""

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.storage import segment_log
from aurum.storage.folder_lock import FolderInUseError, FolderLock
from aurum.storage.segment_log import OVERHEAD, SegmentLog

payloads = st.lists(st.lists(st.binary(max_size=200), min_size=1, max_size=4), min_size=1, max_size=12)


def read_all(log: SegmentLog, after: int = 0) -> list[tuple[int, bytes]]:
    return [(record.id, record.payload) for record in log.read(after, 2**30)]


@given(payloads, st.integers(100, 2000), st.data())
@settings(deadline=None)  # each append is synced
def test_appended_records_are_read_and_trimmed_in_order(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[bytes]], file_bytes: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = SegmentLog(folder, file_bytes)
    expected: dict[int, bytes] = {}
    trimmed = 0
    for group in groups:
        expected.update(zip(log.append_records(group, 1), group, strict=True))
        if data.draw(st.booleans()):  # started anew in between
            log.close()
            log = SegmentLog(folder, file_bytes)
        if data.draw(st.booleans()):
            trimmed = data.draw(st.integers(trimmed, max(expected)))
            log.trim(trimmed)
        after = data.draw(st.integers(trimmed, max(expected)))
        assert read_all(log, after) == [(id_, each) for id_, each in sorted(expected.items()) if id_ > after]
        one_by_one = []
        while found := log.read(after, 1):
            one_by_one += found
            after = found[-1].id
        assert len({record.id for record in one_by_one}) == len(one_by_one)
    assert list(expected) == list(range(1, len(expected) + 1))
    log.close()


@given(st.lists(st.binary(min_size=1, max_size=100), min_size=1, max_size=8), st.data())
@settings(deadline=None)  # each append is synced
def test_interrupted_write_keeps_whole_records(
    tmp_path_factory: pytest.TempPathFactory, written: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = SegmentLog(folder)
    log.append_records(written, 1)
    log.close()
    (file,) = folder.iterdir()
    content = file.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    left = content[:cut] + data.draw(st.binary(max_size=50)).replace(b"AL", b"--")
    if cut == 3:
        left = left[:3] + b"\0" + left[4:]  # else the noise may be the mark of a newer version
    file.write_bytes(left)
    whole, end = 0, 0
    for payload in written:
        end += OVERHEAD + len(payload)
        whole += left[:end] == content[:end]  # also where the noise happens to be what was cut
    log = SegmentLog(folder)
    found = read_all(log)
    assert found[:whole] == list(enumerate(written[:whole], start=1))
    assert len(found) == whole
    ids = log.append_records([b"next"], 1)
    assert read_all(log, ids.start - 1) == [(ids.start, b"next")]
    log.close()


def test_damage_loses_only_the_damaged_record(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, 500)
    for number in range(20):
        log.append_records([bytes([number]) * 100], 1)
    log.close()
    first = min(tmp_path.iterdir())
    content = bytearray(first.read_bytes())
    content[OVERHEAD + 150] ^= 1  # in the second record
    first.write_bytes(content)
    log = SegmentLog(tmp_path, 500)
    assert [id_ for id_, _ in read_all(log)] == [1, *range(3, 21)]
    log.close()
    whole, damage = segment_log.find_damage(tmp_path)
    assert whole == 19
    assert [(each.path, each.offset, each.at_end) for each in damage] == [(first, OVERHEAD + 100, False)]


def test_failed_write_leaves_no_partial_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = SegmentLog(tmp_path)
    log.append_records([b"one"], 1)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", full)
        with pytest.raises(OSError, match="No space"):
            log.append_records([b"two", b"three"], 1)
    assert read_all(log) == [(1, b"one")]
    assert log.append_records([b"four"], 1) == range(2, 3)
    log.close()
    assert read_all(SegmentLog(tmp_path)) == [(1, b"one"), (2, b"four")]


def test_ids_continue_after_full_trim(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, 100)
    log.append_records([b"x" * 200], 1)
    log.trim(1)
    log.close()
    assert SegmentLog(tmp_path, 100).append_records([b"y"], 1) == range(2, 3)


def test_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    with pytest.raises(FolderInUseError, match="still in use by another process after"):
        FolderLock(tmp_path, wait=0.2)
    threading.Timer(0.3, first.close).start()
    FolderLock(tmp_path, wait=10).close()
