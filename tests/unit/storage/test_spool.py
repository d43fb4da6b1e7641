"""The gateway's spool: accepted batches are delivered to the uplink, also after a restart, within its limits."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.edge.dead_letters import dead_letter_folder, names, read
from aurum.edge.spool import Spool, SpoolOptions
from aurum.edge.token_bucket import TokenBucket
from aurum.runtime.errors import PermissionDeniedError, ResourceExhaustedError
from aurum.storage.segment_log import SegmentLog
from tests.support.spool import drain, make_batch, put_batches, sequences_of


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def spool(tmp_path: Path, clock: Clock) -> AsyncIterator[Spool]:
    opened = Spool(SpoolOptions(tmp_path / "spool"), clock)
    await opened.start()
    yield opened
    await opened.close()


async def test_new_batches_use_the_live_lane(spool: Spool) -> None:
    assert await put_batches(spool, make_batch(1), make_batch(2), make_batch(1)) == [(3, 0), (3, 0), (0, 3)]
    assert (spool.live.batches, spool.backlog.batches) == (2, 0)
    assert await drain(spool.live) == [1, 2]
    assert (spool.batches, spool.live.batches) == (0, 0)


async def test_source_of_another_caller_is_refused(spool: Spool) -> None:
    """A batch of a source that another caller uses is refused, and is neither kept nor called a duplicate."""
    assert await put_batches(spool, make_batch(1).with_owner("certificate/a")) == [(3, 0)]
    for sequence in (1, 2):
        with pytest.raises(PermissionDeniedError, match="belongs to another caller"):
            await put_batches(spool, make_batch(sequence).with_owner("certificate/b"))
    assert await put_batches(
        spool, make_batch(1).with_owner("certificate/a"), make_batch(2).with_owner("certificate/a")
    ) == [
        (0, 3),
        (3, 0),
    ]
    assert await drain(spool.live) == [1, 2]


async def test_new_batches_overtake_backlog_after_outage(spool: Spool, clock: Clock) -> None:
    await put_batches(spool, *(make_batch(sequence) for sequence in range(1, 11)))
    clock.now += 60  # an outage
    assert await spool.live.batches_after(0, 100) == []
    assert (spool.live.batches, spool.backlog.batches) == (0, 10)
    await put_batches(spool, make_batch(11), make_batch(12))
    assert sequences_of(await spool.live.batches_after(0, 100)) == [11, 12]
    await spool.live.acknowledge([11, 12])
    assert await drain(spool.backlog) == list(range(1, 11))
    assert spool.batches == 0


async def test_backlog_waits_while_live_lane_is_behind(spool: Spool, clock: Clock) -> None:
    await put_batches(spool, make_batch(1))
    clock.now += 60
    assert await spool.live.batches_after(0, 1) == []
    await put_batches(spool, make_batch(2))
    clock.now += 1.0  # the live lane is behind
    asking = asyncio.create_task(spool.backlog.batches_after(0, 1))
    await asyncio.sleep(0.2)
    assert not asking.done()
    await spool.live.acknowledge([2])
    assert sequences_of(await asyncio.wait_for(asking, 5)) == [1]


async def test_batches_keep_arrival_order_if_configured(tmp_path: Path, clock: Clock) -> None:
    spool = Spool(SpoolOptions(tmp_path / "spool", live_first=False), clock)
    await spool.start()
    await put_batches(spool, *(make_batch(sequence) for sequence in range(1, 6)))
    clock.now += 3600
    await put_batches(spool, make_batch(6))
    assert await drain(spool.live) == [1, 2, 3, 4, 5, 6]
    await spool.close()


@given(st.randoms(use_true_random=False), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_restarted_spool_delivers_every_batch(
    tmp_path_factory: pytest.TempPathFactory, chance: random.Random, count: int
) -> None:
    async def check() -> None:
        folder = tmp_path_factory.mktemp("spool")
        clock = Clock()
        arrived: list[int] = []
        spool = Spool(SpoolOptions(folder), clock)
        await spool.start()
        for sequence in range(1, count + 1):
            await put_batches(spool, make_batch(sequence))
            clock.now += chance.choice([0.0, 0.1, 5.0])
            if chance.random() < 0.5:
                lane = chance.choice([spool.live, spool.backlog])
                if lane is spool.live or not spool.live.batches:  # else it would give way
                    found = await lane.batches_after(0, chance.randint(1, 5))
                    done = found[: chance.randint(0, len(found))]
                    arrived += sequences_of(done)
                    await lane.acknowledge([waiting.id for waiting in done])
            if chance.random() < 0.2:
                await spool.close()
                if chance.random() < 0.5:  # as after a power cut
                    (folder / "acked.json").write_text("")
                spool = Spool(SpoolOptions(folder), clock)
                await spool.start()
        clock.now += 60
        await spool.live.batches_after(0, 1)
        arrived += await drain(spool.backlog)
        arrived += await drain(spool.live)
        assert set(arrived) == set(range(1, count + 1))
        assert spool.batches == 0
        await spool.close()

    asyncio.run(check())


async def test_full_spool_blocks_or_drops_oldest_batches(tmp_path: Path) -> None:
    holding = Spool(SpoolOptions(tmp_path / "hold", max_bytes=1_000_000))
    await holding.start()

    async def fill() -> None:
        for sequence in range(1, 100):
            await (await holding.put(make_batch(sequence, 5000), "", wait=False))

    with pytest.raises(ResourceExhaustedError, match="spool is full"):
        await fill()
    kept = holding.batches
    assert holding.bytes_on_disk <= 1_000_000
    waiting = asyncio.create_task(put_batches(holding, make_batch(1000, 5000)))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    assert len(await drain(holding.live)) >= kept  # the one that waits may come in between
    assert await asyncio.wait_for(waiting, 10) == [(5000, 0)]
    await holding.close()

    dropping = Spool(SpoolOptions(tmp_path / "drop", max_bytes=1_000_000, drop_oldest=True))
    await dropping.start()
    for sequence in range(1, 101):
        await (await dropping.put(make_batch(sequence, 5000), "", wait=False))
    assert dropping.bytes_on_disk <= 1_000_000
    left = await drain(dropping.live)
    assert left == list(range(101 - len(left), 101))
    assert 5 < len(left) < 40
    await dropping.close()


async def test_spool_estimates_time_until_full(tmp_path: Path, clock: Clock) -> None:
    spool = Spool(SpoolOptions(tmp_path / "spool", max_bytes=10_000_000), clock)
    await spool.start()
    observing = asyncio.create_task(spool.run_maintenance())
    assert spool.seconds_until_full() == float("inf")
    for sequence in range(1, 21):
        await put_batches(spool, make_batch(sequence, 5000))
    clock.now += 10
    await asyncio.sleep(1.5)
    rate = spool.bytes_on_disk / 10
    assert spool.seconds_until_full() == pytest.approx((10_000_000 - spool.bytes_on_disk) / rate, rel=0.1)
    observing.cancel()
    await spool.close()


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), max_size=30))
def test_token_bucket_never_exceeds_rate_and_burst(takes: list[tuple[float, int]]) -> None:
    """At no time has more been taken than the burst and the rate's worth of the time that passed."""

    async def check() -> None:
        clock = Clock()
        bucket = TokenBucket(10.0, 20.0, clock)
        start = clock.now
        taken = 0.0

        async def sleep(seconds: float) -> None:
            clock.now += seconds

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "sleep", sleep)
            for pause, tokens in takes:
                clock.now += pause
                await bucket.take(tokens)
                taken += tokens
                assert taken <= 20.0 + 10.0 * (clock.now - start) + 1e-6

    asyncio.run(check())


@pytest.mark.parametrize(
    "payload", [b"", b"\2of a newer version", b"\1no frame", b"\1\x28\xb5\x2f\xfd\xa0" + b"\xff" * 8]
)
async def test_record_that_cannot_be_unpacked_is_set_apart(tmp_path: Path, payload: bytes) -> None:
    """Which is whole, as its checksum says, so it is kept; what waits behind it is sent."""
    folder = tmp_path / "spool"
    log = SegmentLog(folder)
    log.append_records([payload], 1)
    log.close()
    spool = Spool(SpoolOptions(folder))
    await spool.start()
    await put_batches(spool, make_batch(5))
    assert await drain(spool.backlog) == []
    assert await drain(spool.live) == [5]
    await spool.close()
    (name,) = names(dead_letter_folder(folder))
    letter = read(dead_letter_folder(folder), name)
    assert (letter.reason, letter.request) == ("UNREADABLE", payload)


async def test_ids_that_are_far_apart_hold_nothing_up(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    log = SegmentLog(folder)
    log.append_records([b"\0first"], 1)
    log.next_id = 2**40
    log.append_records([b"\0second"], 1)
    log.close()
    spool = Spool(SpoolOptions(folder))
    await spool.start()
    found = await spool.backlog.batches_after(0, 5)
    assert [(waiting.id, waiting.data) for waiting in found] == [(1, b"first"), (2**40, b"second")]
    assert spool.batches == 2, "what never was waits for nothing"
    await spool.backlog.acknowledge([1, 2**40])
    assert spool.batches == 0
    await spool.close()
