"""The virtual-time event loop: order, timing, cancellation, contexts and failures."""

import asyncio
import contextvars

import pytest

from aurum.resilience.virtual_time import VirtualLoop


class Due:
    """Notes the time at which it is run."""

    def __init__(self, loop: VirtualLoop, name: str, seen: list[tuple[str, float]]) -> None:
        self.loop, self.name, self.seen = loop, name, seen

    def run(self) -> None:
        self.seen.append((self.name, self.loop.time()))


def test_timers_run_in_order_of_time_and_registration() -> None:
    loop = VirtualLoop(10.0)
    seen: list[tuple[str, float]] = []
    loop.call_later(2.0, lambda name: seen.append((name, loop.time())), "later")
    loop.call_at(11.0, lambda name: seen.append((name, loop.time())), "first")
    loop.run_at(12.0, Due(loop, "second", seen))
    loop.call_at(12.0, lambda: seen.append(("third", loop.time())))
    loop.call_soon(lambda name: seen.append((name, loop.time())), "soon")
    loop.call_soon_threadsafe(lambda: seen.append(("safe", loop.time())))
    assert seen == []
    loop.advance()
    assert seen == [
        ("soon", 10.0),
        ("safe", 10.0),
        ("first", 11.0),
        ("later", 12.0),
        ("second", 12.0),
        ("third", 12.0),
    ]
    assert VirtualLoop().time() == 0.0


def test_timers_at_same_time_preserve_order() -> None:
    loop = VirtualLoop()
    seen: list[tuple[str, float]] = []
    for number in range(20):
        loop.run_at(1.0, Due(loop, str(number), seen))
    loop.advance()
    assert seen == [(str(number), 1.0) for number in range(20)]


def test_advance_includes_the_end_time() -> None:
    loop = VirtualLoop()
    seen: list[tuple[str, float]] = []
    for at in (1.0, 2.0, 2.5):
        loop.run_at(at, Due(loop, str(at), seen))
    loop.advance(until=2.0)
    assert ([name for name, _ in seen], loop.time()) == (["1.0", "2.0"], 2.0)
    loop.advance(until=2.25)
    assert (len(seen), loop.time()) == (2, 2.25)
    loop.advance(until=1.0)
    assert loop.time() == 2.25, "time does not go back"
    loop.advance()
    assert (len(seen), loop.time()) == (3, 2.5)


def test_arrivals_run_before_timers_at_same_time() -> None:
    loop = VirtualLoop()
    seen: list[tuple[str, float]] = []
    loop.run_at(1.0, Due(loop, "early timer", seen))
    loop.run_at(2.0, Due(loop, "timer", seen))
    loop.advance(arrivals=[(at, Due(loop, f"arrival {at}", seen)) for at in (0.5, 2.0, 3.0, 3.0)])
    assert seen == [
        ("arrival 0.5", 0.5),
        ("early timer", 1.0),
        ("arrival 2.0", 2.0),
        ("timer", 2.0),
        ("arrival 3.0", 3.0),
        ("arrival 3.0", 3.0),
    ]


def test_arrivals_after_end_time_are_not_run() -> None:
    loop = VirtualLoop(1.5)
    seen: list[tuple[str, float]] = []
    loop.advance(until=3.0, arrivals=[(at, Due(loop, str(at), seen)) for at in (1.0, 2.0, 3.0, 3.1)])
    assert seen == [("1.0", 1.5), ("2.0", 2.0), ("3.0", 3.0)]
    assert loop.time() == 3.0
    loop.advance(until=5.0, arrivals=[(9.0, Due(loop, "9", seen))])
    assert (len(seen), loop.time()) == (3, 5.0)


def test_cancelled_timer_neither_runs_nor_advances_time() -> None:
    loop = VirtualLoop()
    seen: list[tuple[str, float]] = []
    timer = loop.call_later(5.0, seen.append, ("cancelled", 0.0))
    loop.run_at(1.0, Due(loop, "runs", seen))
    assert (timer.when(), timer.cancelled()) == (5.0, False)
    timer.cancel()
    assert timer.cancelled()
    loop.advance()
    assert seen == [("runs", 1.0)]
    assert loop.time() == 1.0
    early = loop.call_later(1.0, seen.append, ("cancelled", 0.0))
    loop.run_at(3.0, Due(loop, "after", seen))
    early.cancel()
    loop.advance()
    assert seen[1:] == [("after", 3.0)]


def test_callbacks_run_in_their_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    context = contextvars.copy_context()
    context.run(variable.set, "theirs")
    loop = VirtualLoop()
    seen: list[tuple[str, str]] = []

    def look(name: str) -> None:
        seen.append((name, variable.get()))

    loop.call_soon(look, "soon", context=context)
    loop.call_soon(look, "soon, none")
    loop.call_at(1.0, look, "at", context=context)
    loop.call_at(1.0, look, "at, none")
    loop.call_later(2.0, look, "later", context=context)

    async def main() -> None:
        look("task")

    task = loop.create_task(main(), name="named", context=context)
    assert task.get_name() == "named"
    loop.advance()
    assert seen == [
        ("soon", "theirs"),
        ("soon, none", "none"),
        ("task", "theirs"),
        ("at", "theirs"),
        ("at, none", "none"),
        ("later", "theirs"),
    ]


def test_virtual_loop_is_current_only_while_running() -> None:
    loop = VirtualLoop()
    assert (loop.is_running(), loop.is_closed(), loop.get_debug()) == (False, False, False)
    seen: list[object] = []

    async def main() -> float:
        seen.extend([asyncio.get_running_loop(), loop.is_running()])
        future = loop.create_future()
        assert future.get_loop() is loop
        loop.call_later(4.0, future.set_result, 1.5)
        return await future

    assert loop.run(main()) == 1.5
    assert seen == [loop, True]
    assert loop.time() == 4.0
    assert not loop.is_running()
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_failed_callback_leaves_no_running_loop() -> None:
    loop = VirtualLoop()

    def fail() -> None:
        raise ValueError("at once")

    loop.call_soon(fail)
    with pytest.raises(ValueError, match="at once"):
        loop.advance()
    assert not loop.is_running()


def test_reported_failure_is_raised_once() -> None:
    loop = VirtualLoop()
    loop.call_exception_handler({"message": "something", "exception": KeyError("why")})
    with pytest.raises(KeyError, match="why"):
        loop.advance()
    loop.advance()
    loop.call_exception_handler({"message": "something went wrong"})
    with pytest.raises(RuntimeError, match=r"^something went wrong$"):
        loop.advance()


def test_coroutine_waiting_forever_raises_error() -> None:
    loop = VirtualLoop()
    with pytest.raises(RuntimeError) as caught:
        loop.run(asyncio.Event().wait())
    assert str(caught.value) == "the coroutine waits for something that will never happen"

    async def fails() -> None:
        await asyncio.sleep(1.0)
        raise KeyError("its own")

    with pytest.raises(KeyError, match="its own"):
        VirtualLoop().run(fails())
