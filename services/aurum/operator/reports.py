"""Asks pods for the policies that they have in force: often until they have the desired document, rarely afterwards."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aurum.operator.observed import Pod, Report
from aurum.runtime.errors import AurumError
from aurum.runtime.http_client import HttpDependency

_FIRST, _GROWTH, _LONGEST = 0.05, 1.5, 2.0  # pauses in seconds between requests to a lagging pod, and their growth
_SETTLED = 20.0  # seconds between requests to a pod that has the desired document
_AT_A_TIME = 32
_MAX_REASON = 300  # characters


@dataclass(slots=True)
class _Asked:
    due: float = 0.0
    pause: float = _FIRST
    wanted: str = ""


class Reports:
    """Collects the reports of pods.

    Args:
        pods: Client of the pods' admin servers.
        on_change: Called when a report differs from the previous one.
        clock: Monotonic clock in seconds.

    Attributes:
        by_pod: Latest report of each pod, by uid.
    """

    def __init__(
        self, pods: HttpDependency, on_change: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.by_pod: dict[str, Report] = {}
        self._pods = pods
        self._on_change = on_change
        self._clock = clock
        self._asked: dict[str, _Asked] = {}
        self._followed: dict[str, Pod] = {}
        self._woken = asyncio.Event()

    def follow(self, pods: Iterable[tuple[Pod, str]]) -> None:
        """Replaces the pods to ask, each with the hash of its desired document."""
        self._followed = {}
        for pod, wanted in pods:
            self._followed[pod.uid] = pod
            asked = self._asked.setdefault(pod.uid, _Asked())
            if asked.wanted != wanted:
                asked.wanted, asked.pause, asked.due = wanted, _FIRST, 0.0
        for uid in set(self._asked) - set(self._followed):
            del self._asked[uid]
            self.by_pod.pop(uid, None)
        self._woken.set()

    async def run(self) -> None:
        """Asks the pods until it is cancelled."""
        while True:
            self._woken.clear()
            now = self._clock()
            due = [pod for uid, pod in self._followed.items() if self._asked[uid].due <= now]
            for start in range(0, len(due), _AT_A_TIME):
                await asyncio.gather(*(self._ask(pod) for pod in due[start : start + _AT_A_TIME]))
            until = min((asked.due for asked in self._asked.values()), default=self._clock() + _SETTLED)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.005, until - self._clock())):
                    await self._woken.wait()

    async def _ask(self, pod: Pod) -> None:
        try:
            report = Report.of(await self._pods.get_json("/policy", at=pod.address), self._clock())
        except AurumError as error:
            report = Report(self._clock(), f"does not answer: {error.message}"[:_MAX_REASON])
        except ValueError as error:
            report = Report(self._clock(), f"does not answer as it should: {error}"[:_MAX_REASON])
        asked = self._asked.get(pod.uid)
        if asked is None:
            return  # it has disappeared meanwhile
        before = self.by_pod.get(pod.uid)
        self.by_pod[pod.uid] = report
        if report.hash == asked.wanted:
            asked.pause, asked.due = _FIRST, self._clock() + _SETTLED
        else:
            asked.due = self._clock() + asked.pause
            asked.pause = min(_LONGEST, asked.pause * _GROWTH)
        if before is None or _said(before) != _said(report):
            self._on_change()


def _said(report: Report) -> tuple[object, ...]:
    """Returns a report without its time, for comparison."""
    return (
        report.problem,
        report.hash,
        report.sources,
        report.refused,
        {target: dict(counts) for target, counts in report.shadows.items()},
    )
