"""Requests to the API server, each object's by itself: one on its way at a time, and after a failure later and later.

An object that is refused, or whose request hangs, holds up no other: nobody waits for a request, and those that failed
before have places of their own.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple

import httpx2
from lightkube.core.exceptions import ApiError

from aurum.runtime import metrics

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0  # seconds until a request that failed is made again, doubling
_LONGEST_REPEAT = 1.0  # seconds until a request that succeeded, and yet has to be made again, is made again
_PLACES, _PLACES_AFTER_FAILURE = 16, 4  # requests of a kind on their way at a time
_LONGEST_REASON = 300  # characters

Kind = Literal["list", "configmap", "pod", "status", "event"]
KINDS: tuple[Kind, ...] = ("list", "configmap", "pod", "status", "event")


class Key(NamedTuple):
    """What a request is about. name: within its kind."""

    kind: Kind
    name: str = ""


@dataclass(slots=True)
class _State:
    """failures, successes: in a row, since the object was last as it is to be, or something else was requested of it.
    due: before it no request is made. wanted: one was to be made before. requested: what was last requested."""

    task: asyncio.Task[None] | None = None
    failures: int = 0
    successes: int = 0
    wanted: bool = False
    due: float = float("-inf")
    requested: str = ""
    problem: str = ""


class Attempts:
    """nudge: called when a request has succeeded, or failed for another reason than before. may_write: asked before
    each request leaves."""

    def __init__(
        self,
        nudge: Callable[[], None],
        may_write: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nudge = nudge
        self._may_write = may_write
        self._clock = clock
        self._states: dict[Key, _State] = {}
        self._places = {
            (kind, failed): asyncio.Semaphore(_PLACES_AFTER_FAILURE if failed else _PLACES)
            for kind in KINDS
            for failed in (False, True)
        }
        self._unexpected: BaseException | None = None

    def begin(
        self,
        key: Key,
        request: Callable[[], Awaitable[None]],
        within: float,
        wanted: str = "",
        *,
        again: bool = True,
    ) -> None:
        """Makes a request, unless one for the object is on its way, or was made a short time ago and failed or did not
        help. within: seconds that it may take. wanted: identifies what is requested; a change of it is requested at
        once, whatever became of what was wanted before. again: whether it counts as failing until it succeeds; an event
        is told once."""
        state = self._states.setdefault(key, _State())
        if wanted != state.requested:
            state.requested, state.due, state.failures = wanted, float("-inf"), 0
        state.wanted = state.task is None and state.due > self._clock()
        if state.task is None and not state.wanted:
            state.task = asyncio.create_task(self._make(key, state, request, within, again=again), name=" ".join(key))

    def busy(self, key: Key) -> bool:
        """Whether the first request for an object, or the first after a success, is on its way."""
        state = self._states.get(key)
        return state is not None and state.task is not None and not state.failures

    def problem(self, key: Key) -> str:
        """Why the last request for an object failed; empty if it did not."""
        state = self._states.get(key)
        return state.problem if state else ""

    def settle(self, key: Key) -> None:
        """Nothing is to be requested for an object any more: earlier failures are forgotten."""
        state = self._states.get(key)
        if state is not None and state.task is None:
            del self._states[key]

    def keep(self, kind: Kind, names: Collection[str]) -> None:
        """Forgets the objects of a kind that are not among these."""
        for key in [key for key in self._states if key.kind == kind and key.name not in names]:
            self.settle(key)

    def wait(self) -> float:
        """Seconds until a request may be made that came too soon."""
        waiting = [state.due for state in self._states.values() if state.task is None and state.wanted]
        return max(0.0, min(waiting) - self._clock()) if waiting else float("inf")

    def raise_unexpected(self) -> None:
        """Raises what has ended a request and is not the failure of one, such as the end of the process."""
        if self._unexpected is not None:
            raise self._unexpected

    def measure(self) -> None:
        """Sets the metrics of what fails."""
        failing = [(key.kind, state) for key, state in self._states.items() if state.failures]
        for kind in KINDS:
            metrics.operator_objects_failing.labels(kind).set(sum(1 for each, _ in failing if each == kind))
        metrics.operator_backoff_seconds.set(max((_pause(state.failures) for _, state in failing), default=0.0))

    async def close(self) -> None:
        """Gives up what is on its way, and returns when nothing is."""
        tasks = [state.task for state in self._states.values() if state.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _make(
        self, key: Key, state: _State, request: Callable[[], Awaitable[None]], within: float, *, again: bool
    ) -> None:
        try:
            async with self._places[key.kind, state.failures > 0]:
                if not self._may_write():
                    state.due, state.wanted = self._clock() + _FIRST_PAUSE, True
                    return
                async with asyncio.timeout(within):
                    await request()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._failed(key, state, _reason(error, within), again=again)
        except BaseException as error:
            self._unexpected = error
        else:
            state.failures, state.problem = 0, ""
            state.successes += 1
            # Whatever changes what was written must not have it written without end
            state.due = self._clock() + min(_LONGEST_REPEAT, _pause(state.successes))
            self._nudge()
        finally:
            state.task = None
            if not again and self._states.get(key) is state:
                del self._states[key]
            if self._unexpected is not None:
                self._nudge()

    def _failed(self, key: Key, state: _State, reason: str, *, again: bool) -> None:
        metrics.operator_request_errors_total.labels(key.kind).inc()
        if not again:
            logger.warning("the %s of %s was not accepted and is left out: %s", *key, reason)
            return
        state.failures, state.successes = state.failures + 1, 0
        pause = _pause(state.failures)
        state.due = self._clock() + pause
        if reason != state.problem:
            logger.warning("reconciliation of the %s %s failed and is retried in %.1f s: %s", *key, pause, reason)
            state.problem = reason
        self._nudge()


def _pause(failures: int) -> float:
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, 20))


def _reason(error: Exception, within: float) -> str:
    """The same words for the same failure, whenever it happens."""
    if isinstance(error, ApiError):
        return f"{error.status.code}: {error.status.message or error}"[:_LONGEST_REASON]
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return f"no answer within {within:g} s"
    return f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
