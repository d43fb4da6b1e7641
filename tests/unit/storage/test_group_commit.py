"""Group commit: results per item, grouping, queue limits, failures and closing."""

import asyncio
import threading
import weakref
from collections.abc import Callable, Sequence

import pytest

from aurum.runtime.errors import AurumError, InvalidArgumentError, ResourceExhaustedError, UnavailableError
from aurum.storage.group_commit import GroupCommit
from tests.support.waiting import until

Outcomes = Sequence[str | AurumError]
HUGE = 10**12


class Held:
    """Commits that wait until they may, and the groups that came."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.may = threading.Semaphore(0)

    def __call__(self, items: list[str]) -> Outcomes:
        self.groups.append(items)
        self.begun.release()
        assert self.may.acquire(timeout=10)
        return [item.upper() for item in items]

    async def wait_until_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=10)


def upper(items: list[str]) -> Outcomes:
    return [item.upper() for item in items]


def of(commit: Callable[[list[str]], Outcomes] = upper, max_bytes: int = HUGE) -> GroupCommit[str, str]:
    return GroupCommit("test-writer", commit, max_bytes)


async def test_each_item_gets_its_own_result() -> None:
    def commit(items: list[str]) -> Outcomes:
        return [InvalidArgumentError(f"{item} is bad") if item.startswith("x") else item.upper() for item in items]

    writer = of(commit)
    writing = [await writer.submit(item, 1) for item in ("a", "x1", "b", "x2")]
    outcomes = await asyncio.gather(*writing, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["A", "x1 is bad", "B", "x2 is bad"]
    assert [isinstance(outcome, InvalidArgumentError) for outcome in outcomes] == [False, True, False, True]
    assert await writer.run("c") == "C"
    await writer.close()


async def test_rejected_group_rejects_each_item() -> None:
    held = Held()

    def commit(items: list[str]) -> Outcomes:
        if items == ["first"]:
            return held(items)
        raise ResourceExhaustedError(f"no room for {len(items)}")

    writer = of(commit)
    first = await writer.submit("first", 1)
    await held.wait_until_begun()
    writing = [await writer.submit(item, 1) for item in "abc"]
    held.may.release()
    assert await first == "FIRST"
    outcomes = await asyncio.gather(*writing, return_exceptions=True)
    assert [(type(outcome), str(outcome)) for outcome in outcomes] == [(ResourceExhaustedError, "no room for 3")] * 3
    await writer.close()


async def test_failed_commit_is_reported_as_unavailable_per_item() -> None:
    def commit(items: list[str]) -> Outcomes:
        raise ZeroDivisionError

    writer = of(commit)
    writing = [await writer.submit(item, 1) for item in "abc"]
    for outcome in await asyncio.gather(*writing, return_exceptions=True):
        assert isinstance(outcome, UnavailableError)
        assert outcome.message == "the test-writer failed; see the log of this service"
        assert outcome.retry_after == 1.0
    with pytest.raises(UnavailableError):  # and it goes on
        await writer.run("d")
    assert writer.waiting_bytes == 0
    await writer.close()


async def test_work_runs_after_previously_queued_items() -> None:
    held = Held()
    writer = of(held)
    first = await writer.submit("first", 1)
    await held.wait_until_begun()
    names: list[str] = []

    def work() -> int:
        names.append(threading.current_thread().name)
        return len(held.groups)

    tasks = [
        asyncio.ensure_future(await writer.submit("a", 1)),
        asyncio.create_task(writer.call(work)),
    ]
    await asyncio.sleep(0)
    tasks.append(asyncio.ensure_future(await writer.submit("b", 1)))
    held.may.release(2)
    assert list(await asyncio.gather(first, *tasks)) == ["FIRST", "A", 2, "B"]
    assert held.groups == [["first"], ["a", "b"]]
    assert names == ["test-writer"]
    await writer.close()


async def test_failed_work_is_raised_to_caller() -> None:
    def commit(items: list[str]) -> Outcomes:
        raise AssertionError("work alone is no group to commit")

    def refuse() -> None:
        raise InvalidArgumentError("not this")

    writer = of(commit)
    with pytest.raises(InvalidArgumentError, match=r"^not this$"):
        await writer.call(refuse)
    with pytest.raises(UnavailableError, match=r"^the test-writer failed; see the log of this service$") as caught:
        await writer.call(lambda: 1 // 0)
    assert caught.value.retry_after == 1.0
    assert await writer.call(lambda: 5) == 5
    await writer.close()


async def test_full_queue_rejects_item_and_reports_limit() -> None:
    held = Held()
    writer = of(held, max_bytes=10)
    await writer.submit("a", 4)
    await writer.submit("b", 5)
    assert writer.waiting_bytes == 9
    await writer.submit("c", 1)  # one byte less had been room
    assert writer.waiting_bytes == 10
    for options in ({}, {"wait": False}):
        with pytest.raises(ResourceExhaustedError) as caught:
            await writer.submit("d", 1, **options)
        assert caught.value.message == "the test-writer queue is full (10 bytes); send again later"
        assert caught.value.retry_after == 0.5
    with pytest.raises(ResourceExhaustedError):
        await writer.run("d", 1)
    assert writer.waiting_bytes == 10
    held.may.release(5)
    await writer.close()


async def test_queue_accepts_items_only_below_limit() -> None:
    held = Held()
    writer = of(held, max_bytes=10)
    first = await writer.submit("a", 1)
    await held.wait_until_begun()
    second = await writer.submit("b", 10)
    held.may.release()
    await first
    assert writer.waiting_bytes == 10
    with pytest.raises(ResourceExhaustedError):
        await writer.submit("c", 1)
    waiting = asyncio.create_task(writer.submit("d", 1, wait=True))
    await asyncio.sleep(0)
    assert not waiting.done()
    held.may.release(2)
    await second
    assert await (await waiting) == "D"
    assert writer.waiting_bytes == 0
    await writer.close()


async def test_item_size_defaults_to_zero_bytes() -> None:
    held = Held()
    writer = of(held, max_bytes=1)
    running = asyncio.create_task(writer.run("a"))
    await held.wait_until_begun()
    assert writer.waiting_bytes == 0
    held.may.release()
    assert await running == "A"
    with_bytes = asyncio.create_task(writer.run("b", 7))
    await held.wait_until_begun()
    assert writer.waiting_bytes == 7
    held.may.release()
    assert await with_bytes == "B"
    await writer.close()


async def test_group_has_at_most_1024_items() -> None:
    held = Held()
    writer = of(held)
    writing = [await writer.submit("first", 1)]
    await held.wait_until_begun()
    writing += [await writer.submit(str(number), 1) for number in range(1025)]
    held.may.release(5)
    assert await asyncio.gather(*writing) == ["FIRST", *map(str, range(1025))]
    assert [len(group) for group in held.groups] == [1, 1024, 1]
    assert writer.waiting_bytes == 0
    await writer.close()


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([8_000_000] * 3, [2, 1]),
        ([7_999_999, 8_000_000, 8_000_000], [3]),
        ([1, 15_999_998, 1, 1], [3, 1]),
        ([16_000_000, 1], [1, 1]),
        ([20_000_000, 1], [1, 1]),
    ],
)
async def test_group_ends_at_16_megabytes(sizes: list[int], groups: list[int]) -> None:
    held = Held()
    writer = of(held)
    writing = [await writer.submit("first", 1)]
    await held.wait_until_begun()
    writing += [await writer.submit("more", size) for size in sizes]
    held.may.release(9)
    await asyncio.gather(*writing)
    assert [len(group) for group in held.groups[1:]] == groups
    assert writer.waiting_bytes == 0
    await writer.close()


async def test_cancelled_item_does_not_block_others() -> None:
    held = Held()
    writer = of(held)
    first = await writer.submit("first", 1)
    await held.wait_until_begun()
    given_up, kept = await writer.submit("a", 1), await writer.submit("b", 1)
    given_up.cancel()
    held.may.release(2)
    assert list(await asyncio.wait_for(asyncio.gather(first, kept), 10)) == ["FIRST", "B"]
    assert held.groups == [["first"], ["a", "b"]]
    await writer.close()


@pytest.mark.parametrize("queued", [[], ["b"], ["b", "c"]])
async def test_close_commits_queued_items(queued: list[str]) -> None:
    held = Held()
    writer = of(held)
    writing = [await writer.submit("a", 1)]
    await held.wait_until_begun()
    writing += [await writer.submit(item, 1) for item in queued]
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match=r"^the test-writer queue is closing; send again later$"):
        await writer.submit("late", 1)
    with pytest.raises(UnavailableError, match="is closing"):
        await asyncio.wait_for(writer.call(int), 10)  # which nobody would run
    held.may.release(5)
    await asyncio.wait_for(closing, 10)
    assert await asyncio.gather(*writing) == [item.upper() for item in ["a", *queued]]
    assert not any(thread.name == "test-writer" for thread in threading.enumerate())


async def test_writer_thread_is_daemon() -> None:
    writer = of()
    assert writer.waiting_bytes == 0
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "test-writer")
    assert thread.daemon
    await writer.close()


async def test_committed_items_do_not_stay_in_memory() -> None:
    class Item(str):
        __slots__ = ("__weakref__",)

    writer = of()
    item = Item("a")
    kept = weakref.ref(item)
    assert await writer.run(item) == "A"
    del item
    await until(lambda: kept() is None, "the item is gone")
    await writer.close()
