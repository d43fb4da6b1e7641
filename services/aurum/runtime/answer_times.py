"""How long a server's answers take, by method, so that it can refuse a call whose caller will not wait for the answer.

An estimate describes the load at the time of the last answers, so it has to be forgotten when nothing confirms it.
Otherwise one slow answer keeps callers with short deadlines out for good, and with them the fast answers that would
correct it.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

_WEIGHT = 0.05  # of an answer in an estimate that is current
_HALF_LIFE = 5.0  # seconds in which an estimate that nothing confirms halves
_REFUSED = 0.998  # factor for each refusal: of callers that would be cut off, about one in ten is tried
_WORTH = 0.7  # share of the usual time; a caller that waits for less is refused
_OVERRUN = 2.0  # an answer that its caller's deadline has cut off is taken to need so many times as long
_LEAST = 1e-4  # seconds; what is shorter is no different, and a logarithm needs more than none


@dataclass(slots=True)
class _Estimate:
    seconds: float
    at: float

    def decayed(self, now: float) -> float:
        return self.seconds * self.share_left(now)

    def share_left(self, now: float) -> float:
        return math.exp2(-max(0.0, now - self.at) / _HALF_LIFE)


class AnswerTimes:
    """The usual time to answer each method of a server.

    An estimate is a moving geometric mean of the answers, so that one slow answer among many quick ones changes little.
    It halves in 5 s without an answer, and the older it is, the more a new answer counts. Each refusal lowers it by
    0.2 %, so that a caller with a short deadline is tried again now and then also under lasting load. An answer that
    its caller's deadline has cut off raises it.

    clock: seconds, monotonic. It is not for use from several threads at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_method: dict[str, _Estimate] = {}  # bounded: only methods that the server has are answered

    def usual(self, method: str) -> float:
        """Seconds that an answer takes at the moment; 0.0 if nothing is known."""
        known = self._by_method.get(method)
        return known.decayed(self._clock()) if known else 0.0

    def refuses(self, method: str, left: float | None, busy: bool) -> bool:
        """Whether a call is to be refused, because its answer would come too late; a refusal is remembered.

        left: seconds that the caller waits, None for one without a deadline. busy: whether the server has any other
        call in progress; one that has none always tries.
        """
        if left is None or not busy:
            return False
        known = self._by_method.get(method)
        if known is None or left >= _WORTH * known.decayed(self._clock()):
            return False
        known.seconds *= _REFUSED
        return True

    def answered(self, method: str, seconds: float) -> None:
        """A call was answered after so many seconds."""
        now = self._clock()
        known = self._by_method.get(method)
        seconds = max(seconds, _LEAST)
        if known is None:
            self._by_method[method] = _Estimate(seconds, now)
            return
        kept = (1.0 - _WEIGHT) * known.share_left(now)
        known.seconds = known.seconds**kept * seconds ** (1.0 - kept)
        known.at = now

    def cut_off(self, method: str, seconds: float, left: float | None) -> None:
        """A call ended without an answer after so many seconds; that can only raise the estimate.

        left: seconds that its caller would have waited. A call that ended long before says nothing of how long answers
        take: its caller has gone away.
        """
        if left is None or seconds < _WORTH * left:
            return
        if _OVERRUN * seconds > self.usual(method):
            self.answered(method, _OVERRUN * seconds)
