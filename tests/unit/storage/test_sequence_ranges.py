"""The ledger of sequences, free disk space, detection of full-disk errors, and ownership of folders."""

import errno
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.storage import disk, sequence_ranges
from aurum.storage.folder_lock import FolderInUseError, FolderLock

BASE = 1_000_000  # sequences of a source that has sent for a while


def ranges_of(numbers: set[int]) -> list[sequence_ranges.Range]:
    """Runs of consecutive numbers."""
    found: list[sequence_ranges.Range] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=15), st.sampled_from([0, BASE]))
@settings(max_examples=50, deadline=None)
def test_recorded_ranges_match_reference_set(added: list[tuple[int, int]], base: int) -> None:
    ranges: list[sequence_ranges.Range] = []
    numbers: set[int] = set()
    for start, more in added:
        first = base + start
        sequence_ranges.record(ranges, first, first + more)
        numbers |= set(range(first, first + more + 1))
        assert ranges == ranges_of(numbers)
    for number in range(base - 1, base + 40):
        assert sequence_ranges.contains(ranges, number) == (number in numbers)


def test_single_sequences_are_recorded_as_ranges() -> None:
    ranges: list[sequence_ranges.Range] = []
    for number in (BASE, BASE + 2, BASE + 4, BASE + 2):
        sequence_ranges.record(ranges, number)
    assert ranges == [(BASE, BASE), (BASE + 2, BASE + 2), (BASE + 4, BASE + 4)]
    sequence_ranges.record(ranges, BASE + 3)
    assert ranges == [(BASE, BASE), (BASE + 2, BASE + 4)]


def test_empty_ledger_contains_nothing() -> None:
    assert not sequence_ranges.contains([], 0)
    assert not sequence_ranges.contains([], BASE)


def test_free_bytes_match_disk_usage(tmp_path: Path) -> None:
    assert disk.free_bytes(tmp_path) == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EIO, "the disk is full of errors"), False),
        (OSError("full"), False),
        (sqlite3.OperationalError("database or disk is full"), True),
        (sqlite3.OperationalError("database is locked"), False),
        (sqlite3.IntegrityError("full"), False),
        (ValueError("full"), False),
    ],
)
def test_full_disk_is_recognised(error: Exception, full: bool) -> None:
    assert disk.is_full(error) is full


def test_ownership_creates_missing_folders(tmp_path: Path) -> None:
    folder = tmp_path / "one" / "two"
    FolderLock(folder).close()
    FolderLock(folder).close()
    assert [path.name for path in folder.iterdir()] == ["in-use.lock"]


def test_folder_in_use_error_reports_path_and_wait(tmp_path: Path) -> None:
    owner = FolderLock(tmp_path)
    for _ in range(2):
        with pytest.raises(FolderInUseError) as caught:
            FolderLock(tmp_path, wait=0)
        assert str(caught.value) == f"{tmp_path} is still in use by another process after 0 s"
    owner.close()
    FolderLock(tmp_path, wait=0).close()


def test_waiting_for_ownership_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    owner = FolderLock(tmp_path)
    threading.Timer(0.12, owner.close).start()  # so that it looks more than once
    FolderLock(tmp_path, wait=10).close()
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path} is in use by another process; waiting for it to end"
    ]
