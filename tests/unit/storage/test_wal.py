"""The write-ahead log: refused writes, reported problems, and recovery."""

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from aurum.readings.batch import now_us
from aurum.runtime.errors import AurumError, ResourceExhaustedError, UnavailableError
from aurum.storage.wal import WriteAheadLog, write_error

FREE = 1_200_000  # bytes of the disk of these tests


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The disk of these tests, of which some is kept for root, and whose writes can fail."""
    state = SimpleNamespace(f_bavail=FREE // 1000, f_bfree=10**9, f_frsize=1000, f_bsize=4096, failure=None)
    synced: Callable[[int], None] = os.fdatasync

    def sync(descriptor: int) -> None:
        if state.failure:
            raise state.failure
        synced(descriptor)

    monkeypatch.setattr(os, "statvfs", lambda folder: os.stat(folder) and state)
    monkeypatch.setattr(os, "fdatasync", sync)
    return state


def refused(log: WriteAheadLog) -> AurumError:
    before = log.bytes_on_disk, log.next_id
    with pytest.raises(AurumError) as caught:
        log.write([b"refused"])
    assert (log.bytes_on_disk, log.next_id) == before
    return caught.value


def errors(kind: str) -> float:
    return REGISTRY.get_sample_value("errors_total", {"type": kind}) or 0.0


@pytest.mark.usefixtures("disk")
def test_guarded_record_has_write_time(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path, 1000, FREE, "THE_SETTING", "the spool")
    assert log.problem is None
    before = now_us()
    assert log.write([b"one", b"two"]) == range(1, 3)
    assert log.write([b"three"]) == range(3, 4)
    found = log.read(0, 1000)
    assert [(record.id, record.payload) for record in found] == [(1, b"one"), (2, b"two"), (3, b"three")]
    assert all(before <= record.at_us <= now_us() for record in found)
    assert log.problem is None
    log.close()


@pytest.mark.usefixtures("disk")
def test_wal_rotates_files_at_size_limit(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path / "log", 100, 0, "THE_SETTING", "the spool")
    for _ in range(3):
        log.write([b"x" * 100])
    log.close()
    assert len(list((tmp_path / "log").glob("*.log"))) == 3


@pytest.mark.usefixtures("disk")
def test_write_is_refused_below_minimum_free_bytes(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path, 1000, FREE + 1, "THE_SETTING", "the spool")
    before = errors("OSError")
    error = refused(log)
    assert isinstance(error, ResourceExhaustedError)
    sentence = (
        "cannot be written: the disk is full: 1,200,000 bytes are free, and 1,200,001 must stay free (THE_SETTING)"
    )
    assert error.message == f"the spool {sentence}"
    assert (error.reason, error.retry_after) == ("DISK_FULL", 1.0)
    assert log.problem == sentence
    assert errors("OSError") == before + 1
    log.close()


def test_disk_failure_is_unavailable_until_recovery(
    tmp_path: Path, disk: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log = WriteAheadLog(tmp_path, 1000, 0, "THE_SETTING", "the spool")
    log.write([b"before"])
    disk.failure = OSError(errno.EIO, "Input/output error")
    for _ in range(3):
        error = refused(log)
        assert isinstance(error, UnavailableError)
        assert error.message == "the spool cannot be written: Input/output error"
        assert error.retry_after == 1.0
        assert error.reason == "UNAVAILABLE"
        assert log.problem == "cannot be written: Input/output error"
    disk.failure = None
    assert log.write([b"after"]) == range(2, 3)
    assert log.problem is None
    log.write([b"later"])
    assert [record.getMessage() for record in caplog.records if "writ" in record.getMessage()] == [
        f"{tmp_path} cannot be written: Input/output error; writes are refused until this is fixed",
        f"{tmp_path} is writable again",
    ]
    log.close()


def test_error_without_errno_is_reported_verbatim(tmp_path: Path, disk: SimpleNamespace) -> None:
    log = WriteAheadLog(tmp_path, 1000, 0, "THE_SETTING", "the spool")
    disk.failure = OSError("it broke")
    assert refused(log).message == "the spool cannot be written: it broke"
    log.close()


def test_enospc_is_reported_as_full_disk(tmp_path: Path, disk: SimpleNamespace) -> None:
    log = WriteAheadLog(tmp_path, 1000, 0, "THE_SETTING", "the spool")
    disk.failure = OSError(errno.ENOSPC, "No space left on device")
    error = refused(log)
    assert isinstance(error, ResourceExhaustedError)
    assert error.message == "the spool cannot be written: the disk is full: No space left on device"
    log.close()


def test_disk_check_reports_and_clears_full_disk(tmp_path: Path, disk: SimpleNamespace) -> None:
    log = WriteAheadLog(tmp_path, 1000, FREE, "THE_SETTING", "the spool")
    assert log.check_space() == FREE
    assert log.problem is None
    disk.f_bavail -= 1
    assert log.check_space() == FREE - 1000
    assert log.problem == (
        "cannot be written: the disk is full: 1,199,000 bytes are free, and 1,200,000 must stay free (THE_SETTING)"
    )
    disk.f_bavail += 1
    assert log.check_space() == FREE
    assert log.problem is None
    log.close()


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (OSError(errno.ENOSPC, "full"), ResourceExhaustedError, "DISK_FULL"),
        (OSError(errno.EIO, "broken"), UnavailableError, "UNAVAILABLE"),
    ],
)
def test_refusal_depends_on_the_error(error: OSError, kind: type[AurumError], reason: str) -> None:
    found = write_error(error, "the log", "says so")
    assert (type(found), found.message, found.reason, found.retry_after) == (kind, "the log says so", reason, 1.0)
