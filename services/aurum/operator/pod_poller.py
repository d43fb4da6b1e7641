"""Asks pods for the policies that they have in force: often until they have the desired document, rarely afterwards."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aurum.operator.cluster_snapshot import Pod, Report
from aurum.runtime.errors import AurumError
from aurum.runtime.http.client import HttpDependency

_FIRST, _GROWTH, _LONGEST = 0.05, 1.5, 2.0  # pauses in seconds between requests to a lagging pod, and their growth
_SETTLED = 20.0  # seconds between requests to a pod that has the desired document
_AT_A_TIME = 32
_MAX_REASON = 300  # characters


@dataclass(slots=True)
class _PollState:
    due: float = 0.0
    pause: float = _FIRST
    desired_hash: str = ""


class PodPoller:
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
        self._polls: dict[str, _PollState] = {}
        self._followed: dict[str, Pod] = {}
        self._woken = asyncio.Event()

    def follow(self, pods: Iterable[tuple[Pod, str]]) -> None:
        """Replaces the pods to ask, each with the hash of its desired document."""
        self._followed = {}
        for pod, desired_hash in pods:
            self._followed[pod.uid] = pod
            poll = self._polls.setdefault(pod.uid, _PollState())
            if poll.desired_hash != desired_hash:
                poll.desired_hash, poll.pause, poll.due = desired_hash, _FIRST, 0.0
        for uid in set(self._polls) - set(self._followed):
            del self._polls[uid]
            self.by_pod.pop(uid, None)
        self._woken.set()

    async def run(self) -> None:
        """Asks the pods until it is cancelled."""
        while True:
            self._woken.clear()
            now = self._clock()
            due = [pod for uid, pod in self._followed.items() if self._polls[uid].due <= now]
            for start in range(0, len(due), _AT_A_TIME):
                await asyncio.gather(*(self._poll(pod) for pod in due[start : start + _AT_A_TIME]))
            until = min((poll.due for poll in self._polls.values()), default=self._clock() + _SETTLED)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.005, until - self._clock())):
                    await self._woken.wait()

    async def _poll(self, pod: Pod) -> None:
        try:
            report = Report.from_response(await self._pods.get_json("/policy", at=pod.address), self._clock())
        except AurumError as error:
            report = Report(self._clock(), f"does not answer: {error.message}"[:_MAX_REASON])
        except ValueError as error:
            report = Report(self._clock(), f"does not answer as it should: {error}"[:_MAX_REASON])
        poll = self._polls.get(pod.uid)
        if poll is None:
            return  # it has disappeared meanwhile
        before = self.by_pod.get(pod.uid)
        self.by_pod[pod.uid] = report
        if report.hash == poll.desired_hash:
            poll.pause, poll.due = _FIRST, self._clock() + _SETTLED
        else:
            poll.due = self._clock() + poll.pause
            poll.pause = min(_LONGEST, poll.pause * _GROWTH)
        if before is None or _without_time(before) != _without_time(report):
            self._on_change()


def _without_time(report: Report) -> tuple[object, ...]:
    """Returns a report without its time, for comparison."""
    return (
        report.problem,
        report.hash,
        report.sources,
        report.refused,
        {target: dict(counts) for target, counts in report.shadows.items()},
    )
