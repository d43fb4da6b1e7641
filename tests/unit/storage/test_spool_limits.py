"""Limits of a spool: bytes, file sizes, age and duplicates, and the metrics that report them."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from aurum.edge.spool import Spool, SpoolOptions
from aurum.edge.spool_clock import Uptime
from aurum.readings.batch import Batch
from aurum.readings.transport.ingest_stream import Written
from aurum.runtime.errors import InvalidArgumentError, ResourceExhaustedError, UnavailableError
from aurum.storage.segment_log import OVERHEAD
from tests.support.spool import batch_with_data

KB = 1000


class StoppedError(Exception):
    """The loop has gone round once."""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def raw(sequence: int, size: int = 50, source: str = "src", *, noise: bool = False) -> Batch:
    """A batch of 3 readings whose message has so many bytes, which can be compressed unless they are noise."""
    return batch_with_data(source, sequence, os.urandom(size) if noise else bytes(size))


async def put(spool: Spool, *batches: Batch) -> list[tuple[int, int]]:
    writing = [await spool.put(each, "", wait=False) for each in batches]
    return [(written.accepted, written.duplicate) for written in await asyncio.gather(*writing)]


async def opened(folder: Path, clock: Clock | None = None, **options: Any) -> Spool:
    spool = Spool(SpoolOptions(folder, **options), clock or Clock())
    await spool.start()
    return spool


async def once(running: Any, seconds: float) -> None:
    """Runs a loop of the spool until it would sleep for the first time."""

    async def stop(asked: float) -> None:
        assert asked == seconds
        raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", stop)
        with pytest.raises(StoppedError):
            await running


def gauge(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"edge_spool_{name}", labels) or 0.0


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The system's uptime, in seconds, which is also what the clock on the wall shows."""
    clock = Clock()
    clock.now = 1_700_000_000.0
    monkeypatch.setattr(time, "time_ns", lambda: round(clock.now * 1e6) * 1000)
    uptime = Uptime("boot", lambda: round(clock.now * 1e6))
    monkeypatch.setattr("aurum.edge.spool_clock.system_uptime", lambda: uptime)
    return clock


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Spool]:
    spool = await opened(tmp_path / "spool", max_bytes=1000)
    yield spool
    await spool.close()


async def test_batch_larger_than_the_spool_is_invalid(small: Spool) -> None:
    assert await put(small, raw(1, 1000 - OVERHEAD)) == [(3, 0)]
    with pytest.raises(InvalidArgumentError) as caught:
        await small.put(raw(2, 1001 - OVERHEAD), "", wait=True)
    assert caught.value.message == "batch: has 1001 bytes; the spool holds at most 1000"
    assert [(each.field, each.description) for each in caught.value.violations] == [
        ("batch", "has 1001 bytes; the spool holds at most 1000")
    ]


async def test_full_spool_refuses_only_above_byte_limit(small: Spool) -> None:
    await put(small, raw(1, 100))
    left = 1000 - small.bytes_on_disk
    before = gauge("refused_total")
    with pytest.raises(ResourceExhaustedError) as caught:
        await small.put(raw(2, left - OVERHEAD + 1), "", wait=False)
    assert caught.value.message == (f"the gateway's spool is full ({1000 - left} of 1000 bytes); send again later")
    assert (caught.value.reason, caught.value.retry_after) == ("SPOOL_FULL", 1.0)
    assert gauge("refused_total") == before + 1
    assert await put(small, raw(2, left - OVERHEAD)) == [(3, 0)]
    assert gauge("refused_total") == before + 1


async def test_spool_bytes_are_reserved_until_written(small: Spool) -> None:
    first = await small.put(raw(1, 400), "", wait=False)
    second = await small.put(raw(2, 400), "", wait=False)
    with pytest.raises(ResourceExhaustedError, match="spool is full"):
        await small.put(raw(3, 400), "", wait=False)
    assert list(await asyncio.gather(first, second)) == [Written(3, 0), Written(3, 0)]
    for sequence in (3, 4, 5):  # on the disk they are small
        assert await put(small, raw(sequence, 600)) == [(3, 0)]


async def test_closed_spool_releases_reserved_bytes(tmp_path: Path) -> None:
    spool = await opened(tmp_path / "spool", max_bytes=1000)
    await spool.close()
    for _ in range(3):
        with pytest.raises(UnavailableError, match="the spool-log queue is closing"):
            await spool.put(raw(1, 600), "", wait=False)


async def test_spool_rejects_batches_before_start(tmp_path: Path) -> None:
    spool = Spool(SpoolOptions(tmp_path / "spool"))
    assert spool.problem() == "is not started"
    with pytest.raises(UnavailableError, match=r"^the spool is not started$"):
        await spool.put(raw(1), "", wait=True)
    await spool.start()
    assert spool.problem() is None
    await spool.close()


async def test_full_disk_error_names_spool_setting(tmp_path: Path) -> None:
    spool = await opened(tmp_path / "spool", max_bytes=1000, min_free_bytes=2**60)
    for _ in range(3):  # what was refused takes no room
        with pytest.raises(ResourceExhaustedError, match="AURUM_EDGE_SPOOL_MIN_FREE_BYTES") as caught:
            await put(spool, raw(1, 600))
        assert caught.value.reason == "DISK_FULL"
    assert "(AURUM_EDGE_SPOOL_MIN_FREE_BYTES)" in (spool.problem() or "")
    assert spool.batches == 0
    await spool.close()


async def test_batch_is_accepted_on_resend_after_write_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    spool = await opened(tmp_path / "spool")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(UnavailableError, match="Input/output error"):
            await put(spool, raw(1))
    assert spool.problem() is not None
    assert await put(spool, raw(1)) == [(3, 0)]
    assert spool.problem() is None
    await spool.close()


@pytest.mark.parametrize(("max_bytes", "records"), [(1000_000, 977), (8 * 547 * 128 + 7, 547), (200_000, 512)])
async def test_spool_file_size_is_an_eighth_of_its_limit(tmp_path: Path, max_bytes: int, records: int) -> None:
    spool = await opened(tmp_path / "spool", max_bytes=max_bytes, drop_oldest=True)
    data = 128 - OVERHEAD - 1 - 2  # with which a record has 128 bytes
    await put(spool, *(raw(sequence, data) for sequence in range(1, records)))
    await put(spool, raw(records, data))
    assert len(list(spool.folder.glob("*.log"))) == 1
    assert spool.bytes_on_disk == 128 * records
    await put(spool, raw(records + 1, data))
    assert [int(path.stem) for path in sorted(spool.folder.glob("*.log"))] == [1, records + 1]
    await spool.close()


async def test_full_spool_drops_its_oldest_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = await opened(tmp_path / "spool", max_bytes=200 * KB, drop_oldest=True)
    before = gauge("dropped_total", reason="full")
    for sequence in range(1, 7):
        await put(spool, raw(sequence, 30 * KB, noise=True))  # three of which fill a file
    assert spool.batches == 6
    assert gauge("dropped_total", reason="full") == before
    found = await spool.live.batches_after(0, 1)
    await spool.live.acknowledge([found[0].id])
    await put(spool, raw(7, 30 * KB, noise=True))
    assert spool.batches == 4
    assert gauge("dropped_total", reason="full") == before + 2
    assert "the spool is full: dropped its 2 oldest batches" in caplog.text
    assert [each.id for each in await spool.live.batches_after(0, 9)] == [4, 5, 6, 7]
    await spool.close()


async def test_file_being_written_is_not_dropped(tmp_path: Path) -> None:
    spool = await opened(tmp_path / "spool", max_bytes=60 * KB, drop_oldest=True)
    await put(spool, raw(1, 40 * KB, noise=True))
    with pytest.raises(ResourceExhaustedError, match="spool is full"):
        await put(spool, raw(2, 40 * KB))
    assert spool.batches == 1
    await spool.close()


async def test_duplicate_batches_are_detected_per_source(tmp_path: Path) -> None:
    spool = await opened(tmp_path / "spool")
    first = [raw(1), raw(2), raw(1), raw(1, source="other"), raw(3), raw(2)]
    assert await put(spool, *first) == [(3, 0), (3, 0), (0, 3), (3, 0), (3, 0), (0, 3)]
    assert await put(spool, raw(3), raw(4), raw(2, source="other")) == [(0, 3), (3, 0), (3, 0)]
    assert await put(spool, raw(4)) == [(0, 3)]
    assert spool.batches == spool.live.batches == 6
    assert [each.id for each in await spool.live.batches_after(0, 100)] == [1, 2, 3, 4, 5, 6]
    await spool.close()


async def test_duplicate_detection_keeps_up_to_1000_gaps(tmp_path: Path) -> None:
    spool = await opened(tmp_path / "spool")
    await put(spool, *(raw(2 * number) for number in range(1, 1001)))
    assert await put(spool, raw(2)) == [(0, 3)]
    await put(spool, raw(2002))  # and the older half is forgotten
    assert await put(spool, raw(1002)) == [(0, 3)]
    assert await put(spool, raw(1000)) == [(3, 0)]
    await spool.close()


async def test_batches_older_than_max_age_are_dropped(
    tmp_path: Path, wall: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    spool = await opened(tmp_path / "spool", max_age=10.0)
    before = gauge("dropped_total", reason="expired")
    await put(spool, raw(1), raw(2))
    wall.now += 6
    await put(spool, raw(3))
    wall.now += 4
    await once(spool.run_expiry(), 60.0)
    assert spool.batches == 3
    wall.now += 0.000002
    await once(spool.run_expiry(), 60.0)
    assert (spool.batches, spool.live.batches) == (1, 1)
    assert gauge("dropped_total", reason="expired") == before + 2
    assert [each.getMessage() for each in caplog.records] == ["dropped 2 batches that were older than 10 s"]
    assert [each.id for each in await spool.live.batches_after(0, 9)] == [3]
    wall.now += 3600
    await once(spool.run_expiry(), 60.0)
    await once(spool.run_expiry(), 60.0)
    assert spool.batches == 0
    await spool.close()


async def test_all_expired_batches_are_dropped_in_one_pass(tmp_path: Path, wall: Clock) -> None:
    spool = await opened(tmp_path / "spool", max_age=10.0)
    await put(spool, *(raw(sequence) for sequence in range(1, 1002)))
    wall.now += 11
    await once(spool.run_expiry(), 60.0)
    assert spool.batches == 0
    await spool.close()


async def test_time_until_full_follows_growth(tmp_path: Path) -> None:
    clock = Clock()
    spool = await opened(tmp_path / "spool", clock, max_bytes=100 * KB)
    inf = float("inf")
    assert spool.seconds_until_full() == inf
    await put(spool, raw(1, 10 * KB, noise=True))
    size = spool.bytes_on_disk
    await once(spool.run_maintenance(), 1.0)
    assert spool.seconds_until_full() == inf, "no time has passed"
    clock.now += 8
    await once(spool.run_maintenance(), 1.0)
    assert spool.seconds_until_full() == pytest.approx((100 * KB - size) / (size / 8))
    clock.now += 8
    await once(spool.run_maintenance(), 1.0)
    assert spool.seconds_until_full() == pytest.approx((100 * KB - size) / (size / 16))
    assert gauge("seconds_until_full") == spool.seconds_until_full()
    clock.now += 1e6
    await once(spool.run_maintenance(), 1.0)
    assert spool.seconds_until_full() == pytest.approx((100 * KB - size) / (size / (1e6 + 16)))
    await spool.live.acknowledge([1])
    await once(spool.run_maintenance(), 1.0)
    assert spool.seconds_until_full() == inf
    assert gauge("seconds_until_full") == inf
    await spool.close()


async def test_time_until_full_is_estimated_from_two_samples(tmp_path: Path) -> None:
    clock = Clock()
    spool = await opened(tmp_path / "spool", clock, max_bytes=500)
    await put(spool, raw(1, 100), raw(2, 100))
    clock.now += 2
    await once(spool.run_maintenance(), 1.0)
    size = spool.bytes_on_disk
    assert spool.seconds_until_full() == pytest.approx((500 - size) / (size / 2))
    await put(spool, raw(3, 100))
    clock.now += 2
    await once(spool.run_maintenance(), 1.0)
    assert spool.seconds_until_full() == pytest.approx((500 - spool.bytes_on_disk) / (spool.bytes_on_disk / 4))
    await spool.close()


async def test_time_until_full_uses_growth_of_last_minute(tmp_path: Path) -> None:
    clock = Clock()
    spool = await opened(tmp_path / "spool", clock)
    clock.now += 1
    await put(spool, raw(1, 100))
    for _ in range(60):
        clock.now += 1
        await once(spool.run_maintenance(), 1.0)
    assert spool.seconds_until_full() < float("inf")
    await once(spool.run_maintenance(), 1.0)
    assert spool.seconds_until_full() == float("inf")
    await spool.close()


async def test_overfull_spool_has_zero_seconds_until_full(tmp_path: Path) -> None:
    spool = await opened(tmp_path / "spool")
    await put(spool, raw(1, 5 * KB, noise=True))
    await spool.close()
    clock = Clock()
    spool = await opened(tmp_path / "spool", clock, max_bytes=5100)
    spool_size = spool.bytes_on_disk
    assert spool_size < 5100
    clock.now += 1
    await put(spool, raw(2, 5100 - spool_size - OVERHEAD, noise=True))  # a little more on the disk than it has
    await once(spool.run_maintenance(), 1.0)
    assert spool.bytes_on_disk > 5100
    assert spool.seconds_until_full() == 0.0
    await spool.close()


async def test_gauges_report_waiting_batches(tmp_path: Path, wall: Clock) -> None:
    clock = Clock()
    spool = await opened(tmp_path / "spool", clock)
    accepted, forwarded = gauge("accepted_total"), gauge("forwarded_total")
    await once(spool.run_maintenance(), 1.0)
    assert (gauge("oldest_age_seconds"), gauge("live_lag_seconds"), gauge("batches")) == (0.0, 0.0, 0.0)
    await put(spool, raw(1, 100))
    clock.now += 0.5
    wall.now += 500
    await put(spool, raw(2, 100), raw(3, 100), raw(4, 100))
    clock.now += 0.25
    wall.now += 250
    await once(spool.run_maintenance(), 1.0)
    assert gauge("oldest_age_seconds") == pytest.approx(750.0, rel=1e-9)
    assert gauge("live_lag_seconds") == 0.75
    assert gauge("batches") == 4
    assert gauge("accepted_total") == accepted + 4
    await spool.live.acknowledge([1])
    await spool.live.acknowledge([1, 2])
    await once(spool.run_maintenance(), 1.0)
    assert gauge("oldest_age_seconds") == pytest.approx(250.0, rel=1e-9)
    assert gauge("live_lag_seconds") == 0.25
    assert gauge("batches") == 2
    assert gauge("forwarded_total") == forwarded + 2
    assert gauge("disk_bytes") == spool.bytes_on_disk
    assert gauge("bytes") == spool.bytes_on_disk // 2
    wall.now -= 900
    await once(spool.run_maintenance(), 1.0)
    assert gauge("oldest_age_seconds") == 0.0, "the clock was set back"
    await spool.live.acknowledge([4, 3])
    await once(spool.run_maintenance(), 1.0)
    assert (gauge("oldest_age_seconds"), gauge("live_lag_seconds"), gauge("batches")) == (0.0, 0.0, 0.0)
    await spool.close()
