"""Requests to the API server: one per object at a time, with growing pauses after failures.

A refused or hanging request delays no other object. Nobody waits for a request, and objects that have failed before use
separate places.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple

import httpx2
from lightkube.core.exceptions import ApiError

from aurum.operator import metrics

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0  # seconds until a failed request is repeated, doubling
_LONGEST_REPEAT = 1.0  # longest pause in seconds before a successful request is repeated
_PLACES, _PLACES_AFTER_FAILURE = 16, 4  # concurrent requests of one kind, and of those that failed before
_LONGEST_REASON = 300  # characters

Kind = Literal["list", "configmap", "pod", "status", "event"]
KINDS: tuple[Kind, ...] = ("list", "configmap", "pod", "status", "event")


class Key(NamedTuple):
    """The object of a request. name: Unique within its kind."""

    kind: Kind
    name: str = ""


@dataclass(slots=True)
class _State:
    """The requests for one object.

    Attributes:
        task: The request in progress, or None.
        failures: Failures in a row since the object was last in its desired state, or since that changed.
        successes: Successes in a row since then.
        requested_early: Whether a request was asked for before it was due.
        due: Earliest time of the next request.
        requested: Identifies the desired state that was last requested.
        problem: Why the last request failed, or an empty string.
    """

    task: asyncio.Task[None] | None = None
    failures: int = 0
    successes: int = 0
    requested_early: bool = False
    due: float = float("-inf")
    requested: str = ""
    problem: str = ""


class Attempts:
    """Makes requests in the background and tracks their failures.

    Args:
        nudge: Called after a request has succeeded, or has failed and will be repeated.
        may_write: Checked before each request is sent.
        clock: Monotonic clock in seconds.
    """

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
        desired: str = "",
        *,
        again: bool = True,
    ) -> None:
        """Starts a request, unless one for the object is in progress or its pause has not ended.

        Args:
            key: The object.
            request: Makes the request.
            within: Seconds that the request may take.
            desired: Identifies the desired state. A change of it is requested at once, even after failures.
            again: Whether a failure is remembered for a retry. Events are sent only once.
        """
        state = self._states.setdefault(key, _State())
        if desired != state.requested:
            state.requested, state.due, state.failures = desired, float("-inf"), 0
        state.requested_early = state.task is None and state.due > self._clock()
        if state.task is None and not state.requested_early:
            state.task = asyncio.create_task(
                self._run_request(key, state, request, within, again=again), name=" ".join(key)
            )

    def busy(self, key: Key) -> bool:
        """Whether a request for the object is in progress that does not follow a failure."""
        state = self._states.get(key)
        return state is not None and state.task is not None and not state.failures

    def problem(self, key: Key) -> str:
        """Returns why the last request for an object failed, or an empty string."""
        state = self._states.get(key)
        return state.problem if state else ""

    def forget_failures(self, key: Key) -> None:
        """Forgets earlier failures, because the object needs no request any more."""
        state = self._states.get(key)
        if state is not None and state.task is None:
            del self._states[key]

    def forget_others(self, kind: Kind, names: Collection[str]) -> None:
        """Forgets the objects of a kind that are not among the given names."""
        for key in [key for key in self._states if key.kind == kind and key.name not in names]:
            self.forget_failures(key)

    def seconds_until_due(self) -> float:
        """Returns the seconds until a request that was asked for too early may be made."""
        waiting = [state.due for state in self._states.values() if state.task is None and state.requested_early]
        return max(0.0, min(waiting) - self._clock()) if waiting else float("inf")

    def raise_unexpected(self) -> None:
        """Raises an error that ended a request and is no ordinary failure, such as SystemExit."""
        if self._unexpected is not None:
            raise self._unexpected

    def set_metrics(self) -> None:
        """Sets the metrics of failing objects."""
        failing = [(key.kind, state) for key, state in self._states.items() if state.failures]
        for kind in KINDS:
            metrics.operator_objects_failing.labels(kind).set(sum(1 for each, _ in failing if each == kind))
        metrics.operator_backoff_seconds.set(max((_backoff(state.failures) for _, state in failing), default=0.0))

    async def close(self) -> None:
        """Cancels all requests and waits for their end."""
        tasks = [state.task for state in self._states.values() if state.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_request(
        self, key: Key, state: _State, request: Callable[[], Awaitable[None]], within: float, *, again: bool
    ) -> None:
        try:
            async with self._places[key.kind, state.failures > 0]:
                if not self._may_write():
                    state.due, state.requested_early = self._clock() + _FIRST_PAUSE, True
                    return
                async with asyncio.timeout(within):
                    await request()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._record_failure(key, state, _describe_failure(error, within), again=again)
        except BaseException as error:
            self._unexpected = error
        else:
            state.failures, state.problem = 0, ""
            state.successes += 1
            # A competing writer must not cause an endless series of writes
            state.due = self._clock() + min(_LONGEST_REPEAT, _backoff(state.successes))
            self._nudge()
        finally:
            state.task = None
            if not again and self._states.get(key) is state:
                del self._states[key]
            if self._unexpected is not None:
                self._nudge()

    def _record_failure(self, key: Key, state: _State, reason: str, *, again: bool) -> None:
        metrics.operator_request_errors_total.labels(key.kind).inc()
        if not again:
            logger.warning("the %s of %s was not accepted and is left out: %s", *key, reason)
            return
        state.failures, state.successes = state.failures + 1, 0
        pause = _backoff(state.failures)
        state.due = self._clock() + pause
        if reason != state.problem:
            logger.warning("reconciliation of the %s %s failed and is retried in %.1f s: %s", *key, pause, reason)
            state.problem = reason
        self._nudge()


def _backoff(failures: int) -> float:
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, 20))


def _describe_failure(error: Exception, within: float) -> str:
    """Returns the reason of a failure. Equal failures have equal reasons."""
    if isinstance(error, ApiError):
        return f"{error.status.code}: {error.status.message or error}"[:_LONGEST_REASON]
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return f"no answer within {within:g} s"
    return f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
