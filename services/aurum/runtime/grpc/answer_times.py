"""Estimates how long a server takes to answer each method, to refuse calls whose callers will not wait that long.

An estimate describes the load at the time of the last answers, so it must decay when nothing confirms it. Otherwise one
slow answer would keep callers with short deadlines out for good, and with them the fast answers that would correct it.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

_WEIGHT = 0.05  # weight of one answer in an up-to-date estimate
_HALF_LIFE = 5.0  # seconds in which an unconfirmed estimate halves
_REFUSED = 0.998  # factor for each refusal; so about one in ten calls that would be cut off is tried
_WORTH = 0.7  # share of the usual time; a caller that waits for less is refused
_OVERRUN = 2.0  # assumed duration of an answer cut off by the deadline, as a multiple of the time it took
_LEAST = 1e-4  # seconds; shorter times are equivalent, and the logarithm needs a positive value


@dataclass(slots=True)
class _Estimate:
    seconds: float
    at: float

    def decayed(self, now: float) -> float:
        return self.seconds * self.remaining_weight(now)

    def remaining_weight(self, now: float) -> float:
        return math.exp2(-max(0.0, now - self.at) / _HALF_LIFE)


class AnswerTimes:
    """The usual time to answer each method of a server. It is not thread-safe.

    An estimate is a moving geometric mean of the answer times, so one slow answer among many fast ones changes little.
    It halves in 5 s without an answer. The older it is, the more a new answer counts. Each refusal lowers it by 0.2 %,
    so that callers with short deadlines are tried again now and then, even under lasting load. An answer that the
    caller's deadline has cut off raises it.

    Args:
        clock: Monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_method: dict[str, _Estimate] = {}  # bounded, because only existing methods are answered

    def expected_seconds(self, method: str) -> float:
        """Seconds that an answer takes at present, or 0.0 if nothing is known."""
        estimate = self._by_method.get(method)
        return estimate.decayed(self._clock()) if estimate else 0.0

    def should_refuse(self, method: str, left: float | None, busy: bool) -> bool:
        """Whether to refuse a call because its answer would come too late. A refusal lowers the estimate.

        Args:
            method: Full name of the method.
            left: Seconds that the caller waits, or None without a deadline.
            busy: Whether the server has other calls in progress. An idle server never refuses.
        """
        if left is None or not busy:
            return False
        estimate = self._by_method.get(method)
        if estimate is None or left >= _WORTH * estimate.decayed(self._clock()):
            return False
        estimate.seconds *= _REFUSED
        return True

    def record_answer(self, method: str, seconds: float) -> None:
        """Records that a call was answered after `seconds`."""
        now = self._clock()
        estimate = self._by_method.get(method)
        seconds = max(seconds, _LEAST)
        if estimate is None:
            self._by_method[method] = _Estimate(seconds, now)
            return
        kept = (1.0 - _WEIGHT) * estimate.remaining_weight(now)
        estimate.seconds = estimate.seconds**kept * seconds ** (1.0 - kept)
        estimate.at = now

    def record_cut_off(self, method: str, seconds: float, left: float | None) -> None:
        """Records that a call ended without an answer after `seconds`. It can only raise the estimate.

        Args:
            method: Full name of the method.
            seconds: Duration of the call.
            left: Seconds that the caller would have waited. A call that ended long before was abandoned by its caller,
                and says nothing about answer times.
        """
        if left is None or seconds < _WORTH * left:
            return
        if _OVERRUN * seconds > self.expected_seconds(method):
            self.record_answer(method, _OVERRUN * seconds)
