"""An asyncio event loop with virtual time: waiting costs nothing, and an hour of timers runs in an instant.

It runs the production code unchanged, with its tasks, futures, sleeps and timeouts. It has no I/O and no threads, so
runs with the same input are identical. It is used by tests and to replay calls against a policy.
"""

import asyncio
import collections
import contextvars
import heapq
import math
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Runnable(Protocol):
    """An item that the loop can run at a given time."""

    def run(self) -> None:
        """Runs the item."""


class _Timer:
    """The handle that call_later returns."""

    __slots__ = ("_arguments", "_callback", "_context", "_when")

    def __init__(self, when: float, callback: Callable[..., object], arguments: tuple[Any, ...], context: Any) -> None:
        self._when = when
        self._callback: Callable[..., object] | None = callback
        self._arguments = arguments
        self._context = context

    def cancel(self) -> None:
        self._callback = None

    def cancelled(self) -> bool:
        return self._callback is None

    def when(self) -> float:
        return self._when

    def run(self) -> None:
        if self._callback is not None and self._context is not None:
            self._context.run(self._callback, *self._arguments)
        elif self._callback is not None:
            self._callback(*self._arguments)


_NEVER: tuple[float, None] = (math.inf, None)


class VirtualLoop(asyncio.AbstractEventLoop):
    """The virtual event loop. start: Initial time in seconds. now: The current time, as `time()` returns it."""

    def __init__(self, start: float = 0.0) -> None:
        self.now = start
        self._ready: collections.deque[tuple[Callable[..., object], tuple[Any, ...], Any]] = collections.deque()
        self._timers: list[tuple[float, int, Runnable]] = []
        self._timer_count = 0
        self._failure: BaseException | None = None
        self.time = lambda: self.now  # type: ignore[method-assign]  # as an attribute it saves a call

    def advance(self, until: float = math.inf, arrivals: Iterable[tuple[float, Runnable]] = ()) -> None:
        """Runs everything that is due up to and including the time `until`, by default to the end.

        Args:
            until: Time in seconds at which to stop.
            arrivals: Further items to run with their times, in order of time. This is cheaper than one timer each.

        Raises:
            Exception: The error of a callback or of a task that is never awaited.
        """
        asyncio._set_running_loop(self)
        ready, timers = self._ready, self._timers
        coming = iter(arrivals)
        arrives, arriving = next(coming, _NEVER)
        try:
            while True:
                while ready:
                    callback, arguments, context = ready.popleft()
                    if context is None:
                        callback(*arguments)
                    else:
                        context.run(callback, *arguments)
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    raise failure
                if arriving is not None and (not timers or arrives <= timers[0][0]):
                    if arrives > until:
                        break
                    self.now = max(self.now, arrives)
                    due = arriving
                    arrives, arriving = next(coming, _NEVER)
                    due.run()
                elif timers and timers[0][0] <= until:
                    when, _, due = heapq.heappop(timers)
                    if due.__class__ is _Timer and due.cancelled():
                        continue
                    self.now = when
                    due.run()
                else:
                    break
            if until < math.inf:
                self.now = max(self.now, until)
        finally:
            asyncio._set_running_loop(None)

    def run_at(self, when: float, due: Runnable) -> None:
        """Runs an item at the time `when`. It cannot be cancelled, which makes it cheaper."""
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, due))

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine, and everything that it has started, to the end.

        Raises the coroutine's error, or RuntimeError if it waits for something that can never happen.
        """
        task = asyncio.Task(main, loop=self)
        self.advance()
        if not task.done():
            raise RuntimeError("the coroutine waits for something that will never happen")
        return task.result()

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """Runs a callback before time advances."""
        self._ready.append((callback, args, context))

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """Runs a callback at the time `when`, in seconds, and returns a handle that can cancel it."""
        timer = _Timer(when, callback, args, context)
        self.run_at(when, timer)
        return timer

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """Runs a callback after `delay` seconds and returns a handle that can cancel it."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        """Creates a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None) -> Any:
        """Creates a task of this loop."""
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keeps an error that nobody awaits. `advance` raises it."""
        self._failure = context.get("exception") or RuntimeError(context["message"])

    def get_debug(self) -> bool:
        """Returns False, since asyncio's debug mode is not supported."""
        return False

    def is_running(self) -> bool:
        """Returns whether `advance` is in progress."""
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        """Returns False, since the loop holds no resources and cannot be closed."""
        return False
