"""Lanes of a spool: order and pacing, refused batches, and recovery after a restart."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from aurum.edge.spool import Lane, Spool, SpoolOptions
from aurum.readings.batch import Batch
from aurum.readings.batch_decoding import parse_request
from aurum.readings.transport.refusals import Refused
from aurum.storage.segment_log import scan
from aurum.storage.state_file import read_state
from aurum.v1 import columns_pb2
from tests.support.spool import batch_with_data


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def raw(sequence: int, data: bytes | None = None) -> Batch:
    return batch_with_data("src", sequence, f"batch {sequence}".encode() if data is None else data)


async def put(spool: Spool, *batches: Batch) -> None:
    await asyncio.gather(*[await spool.put(each, "trace", wait=False) for each in batches])


async def opened(folder: Path, clock: Clock | None = None, **options: Any) -> Spool:
    spool = Spool(SpoolOptions(folder, **options), clock or Clock())
    await spool.start()
    return spool


async def ids(lane: Lane, last: int = 0, most: int = 100) -> list[int]:
    return [each.id for each in await asyncio.wait_for(lane.batches_after(last, most), 3)]


def dropped(reason: str) -> float:
    return REGISTRY.get_sample_value("edge_spool_dropped_total", {"reason": reason}) or 0.0


async def test_lanes_return_following_batches_up_to_limit(tmp_path: Path) -> None:
    clock = Clock()
    spool = await opened(tmp_path / "spool", clock)
    await put(spool, *map(raw, range(1, 7)))
    clock.now += 3
    assert await ids(spool.live) == []
    await put(spool, *map(raw, range(7, 13)))
    for lane, first, last in ((spool.live, 7, 12), (spool.backlog, 1, 6)):
        assert lane.batches == 6
        assert await ids(lane) == list(range(first, last + 1))
        assert await ids(lane, 0, 2) == [first, first + 1]
        assert await ids(lane, first, 1) == [first + 1]
        assert await ids(lane, last - 1) == [last]
        assert await ids(lane, last) == []
        await lane.acknowledge([first + 1, first + 2])
        assert await ids(lane) == [first, *range(first + 3, last + 1)]
        await lane.acknowledge([first])
        assert lane.batches == 3
        assert await ids(lane, 0, 1) == [first + 3]
    assert spool.batches == 6
    await spool.close()


@pytest.mark.parametrize(("age", "live"), [(1.9, True), (2.0, True), (2.125, False)])
async def test_batch_is_live_for_two_seconds(tmp_path: Path, age: float, live: bool) -> None:
    clock = Clock()
    spool = await opened(tmp_path / "spool", clock)
    await put(spool, raw(1))
    clock.now += age
    await put(spool, raw(2))
    assert await ids(spool.live) == ([1, 2] if live else [])
    assert (spool.live.batches, spool.backlog.batches) == ((2, 0) if live else (0, 2))
    assert await ids(spool.backlog) == ([] if live else [1, 2])
    await spool.close()


async def test_backlog_pauses_when_live_lane_lags_half_a_second(tmp_path: Path) -> None:
    clock = Clock()
    spool = await opened(tmp_path / "spool", clock)
    await put(spool, raw(1))
    clock.now += 3
    assert await ids(spool.live) == []
    await put(spool, raw(2))
    clock.now += 0.25
    await put(spool, raw(3))
    clock.now += 0.25
    assert await ids(spool.backlog) == [1], "not before half a second is over"
    clock.now += 0.125
    asking = asyncio.create_task(ids(spool.backlog))
    await asyncio.sleep(0.005)
    assert not asking.done()
    await spool.live.acknowledge([2])
    assert await asking == [1]
    await spool.close()


async def test_backlog_is_sent_at_configured_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    spool = await opened(tmp_path / "spool", clock, drain_bytes=100.0)
    await put(spool, raw(1, bytes(200)), raw(2, bytes(150)))
    clock.now += 3
    await ids(spool.live)
    sizes = [
        len(columns_pb2.BatchRequest(batch=bytes(size), traceparent="trace").SerializeToString()) for size in (200, 150)
    ]
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert await ids(spool.backlog) == [1, 2]
    assert slept == [pytest.approx((sum(sizes) - 100) / 100)]
    assert await ids(spool.backlog, 1) == [2]
    assert slept[1:] == [pytest.approx(sizes[1] / 100)]
    await spool.close()


async def test_single_lane_preserves_arrival_order(tmp_path: Path) -> None:
    clock = Clock()
    spool = await opened(tmp_path / "spool", clock, live_first=False)
    await put(spool, raw(1), raw(2))
    await spool.close()
    spool = await opened(tmp_path / "spool", clock, live_first=False)
    await put(spool, raw(3))
    clock.now += 60
    assert await ids(spool.live) == [1, 2, 3]
    assert (spool.live.batches, spool.backlog.batches) == (3, 0)
    assert await ids(spool.backlog) == []
    await spool.close()


@pytest.mark.parametrize(("ranges", "left_behind"), [(999, True), (1000, False)])
async def test_live_lane_overtaking_stops_at_1000_ranges(tmp_path: Path, ranges: int, left_behind: bool) -> None:
    folder, clock = tmp_path / "spool", Clock()
    folder.mkdir()
    (folder / "acked.json").write_text(json.dumps([[2 * number, 2 * number] for number in range(ranges)]))
    spool = await opened(folder, clock)
    await put(spool, raw(1))
    assert await ids(spool.live) == [2 * ranges - 1]
    clock.now += 3
    assert await ids(spool.live) == ([] if left_behind else [2 * ranges - 1])
    assert spool.live.batches == (0 if left_behind else 1)
    await spool.close()


async def test_lane_waits_for_arrival_or_timeout(tmp_path: Path) -> None:
    clock = Clock()
    spool = await opened(tmp_path / "spool", clock)
    await asyncio.wait_for(spool.live.wait_for_more(0.001), 3)
    await put(spool, raw(1))
    await asyncio.wait_for(spool.live.wait_for_more(60), 3)
    clock.now += 3
    await ids(spool.live)
    await asyncio.wait_for(spool.backlog.wait_for_more(60), 3)
    await spool.close()


@pytest.mark.parametrize("length", [255, 256])
async def test_batch_of_256_bytes_is_compressed_on_disk(tmp_path: Path, length: int) -> None:
    spool = await opened(tmp_path / "spool")
    message = columns_pb2.BatchRequest(batch=bytes(length - 10), traceparent="trace").SerializeToString()
    assert len(message) == length
    await put(spool, raw(1, bytes(length - 10)))
    (found,) = await spool.live.batches_after(0, 1)
    assert found.data == message
    parsed = parse_request(found.data)
    assert (parsed.batch, parsed.traceparent) == (bytes(length - 10), "trace")
    (record,) = scan(tmp_path / "spool", 0)
    if length < 256:
        assert record.payload == b"\0" + message
    else:
        assert record.payload[:5] == b"\1\x28\xb5\x2f\xfd"
        assert len(record.payload) < 100
    await spool.close()


@pytest.mark.parametrize(("lost", "left"), [(1, [2, 3, 4]), (2, [1, 3, 4]), (4, [1, 2, 3])])
async def test_damaged_batch_is_counted_and_skipped(tmp_path: Path, lost: int, left: list[int]) -> None:
    spool = await opened(tmp_path / "spool")
    await put(spool, *map(raw, range(1, 5)))
    (path,) = (tmp_path / "spool").glob("*.log")
    path.write_bytes(path.read_bytes().replace(f"batch {lost}".encode(), b"damaged"))
    before = dropped("damaged")
    assert await ids(spool.live) == left
    assert await ids(spool.live, left[-1]) == []
    assert dropped("damaged") == before + 1
    assert spool.batches == 3
    await spool.live.acknowledge(left)
    assert spool.batches == 0
    await spool.close()


async def test_acknowledgements_survive_restart(tmp_path: Path) -> None:
    spool = await opened(tmp_path / "spool")
    await put(spool, *map(raw, range(1, 7)))
    await spool.live.acknowledge([1, 2, 4])
    await spool.close()
    path = tmp_path / "spool" / "acked.json"
    assert read_state(path) == [[0, 2], [4, 4]]
    assert not list(path.parent.glob(".*.new"))
    spool = await opened(tmp_path / "spool")
    assert (spool.batches, spool.backlog.batches, spool.live.batches) == (3, 3, 0)
    await put(spool, raw(7))
    assert await ids(spool.live) == [7]
    assert await ids(spool.backlog) == [3, 5, 6]
    await spool.close()


@pytest.mark.parametrize("content", ["", "{", "5", "[5]", "[[1]]", '[["a", 1]]', "[[null, 1]]", "null", None])
async def test_unreadable_acknowledgements_cause_full_resend(tmp_path: Path, content: str | None) -> None:
    spool = await opened(tmp_path / "spool")
    await put(spool, *map(raw, range(1, 4)))
    await spool.live.acknowledge([1, 2])
    await spool.close()
    path = tmp_path / "spool" / "acked.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    spool = await opened(tmp_path / "spool")
    assert spool.batches == 3
    assert await ids(spool.backlog) == [1, 2, 3]
    await spool.close()
    assert read_state(path) == [[0, 0]]


@pytest.mark.parametrize(("acked", "next_id"), [([[0, 5]], 6), ([[0, 1], [3, 4]], 5), ([[3, 4], [0, 1], [8, 9]], 10)])
async def test_acknowledged_ids_are_not_reused(tmp_path: Path, acked: list[list[int]], next_id: int) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "acked.json").write_text(json.dumps(acked))
    spool = await opened(folder)
    await put(spool, raw(1))
    assert [each.id for each in await spool.live.batches_after(0, 1)] == [next_id]
    await spool.close()


async def test_spool_resumes_after_restart_with_all_acknowledged(tmp_path: Path) -> None:
    spool = await opened(tmp_path / "spool")
    await put(spool, raw(1))
    await spool.live.acknowledge([1])
    await spool.close()
    spool = await opened(tmp_path / "spool")
    assert spool.batches == 0
    await put(spool, raw(2))
    assert await ids(spool.live) == [2]
    assert spool.batches == 1
    await spool.close()


async def test_trimmed_batches_count_as_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = await opened(folder, max_bytes=70_000)
    await put(spool, *(raw(number, bytes([number]) * 200) for number in range(1, 4)))
    await spool.close()
    (path,) = folder.glob("*.log")
    records = list(scan(folder, 0))
    first = path.stat().st_size // 3
    (folder / f"{3:020}.log").write_bytes(path.read_bytes()[2 * first :])
    path.unlink()
    (folder / "acked.json").unlink()
    spool = await opened(folder)
    assert spool.batches == 1
    assert await ids(spool.backlog) == [records[2].id]
    await spool.close()
    assert read_state(folder / "acked.json") == [[0, 2]]


async def test_failure_to_save_acknowledgements_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = await opened(tmp_path / "spool")
    (tmp_path / "spool" / ".acked.json.new").mkdir()  # in the way of the new file
    await put(spool, raw(1))
    await spool.live.acknowledge([1])
    await spool.close()
    assert "the acknowledged ids could not be saved" in caplog.text


async def test_batch_refused_in_the_middle_is_in_no_lane(tmp_path: Path) -> None:
    """A lane counts what waits in it, also when a batch is refused that others of the live lane came before."""
    clock = Clock()
    spool = await opened(tmp_path, clock)
    await put(spool, raw(1))
    clock.now += 3.0
    await spool.live.batches_after(0, 5)  # the first is late now
    await put(spool, raw(2), raw(3), raw(4))
    assert (spool.live.batches, spool.backlog.batches) == (3, 1)
    await spool.live.set_aside(Refused(3, "INVALID_ARGUMENT", "it is wrong"))
    assert (spool.live.batches, spool.backlog.batches) == (2, 1)
    await spool.live.acknowledge([4])
    assert (spool.live.batches, spool.backlog.batches) == (1, 1)
    await spool.live.acknowledge([2])
    assert (spool.live.batches, spool.backlog.batches) == (0, 1)
    await spool.close()


async def test_records_that_unpack_to_very_much_are_read_in_parts(tmp_path: Path) -> None:
    """A record may have a thousandth of the bytes of its batches, so what is sent at once is counted unpacked."""
    spool = await opened(tmp_path / "spool")
    for sequence in range(1, 7):
        await put(spool, raw(sequence, bytes(3_000_000)))
    first = await ids(spool.live)
    assert first == [1, 2, 3]
    assert [batch.id for batch in await spool.live.batches_after(3, 64)] == [4, 5, 6]
    await spool.close()
