"""How far a stream of new readings lags behind the server that sends it, although the clocks of the two differ."""

import math

_PERIOD = 60.0  # seconds; the least delay is that of one to two periods, because clocks drift apart


class StreamLag:
    """The lag of one stream.

    A response states when the server took its readings, by the server's clock. The least difference to the time at
    which a response was received is taken as the difference of the clocks. So a response that waited on its way, or for
    this process, counts as older by as much.
    """

    def __init__(self) -> None:
        self._complete = -math.inf  # the latest time of the server up to which all readings were applied
        self._difference = math.inf  # the least one of this period: own clock minus that of the server, in seconds
        self._former = math.inf  # the least one of the period before
        self._period_began = -math.inf

    def note(self, complete_us: int, received: float) -> None:
        """Notes that a response was applied.

        Args:
            complete_us: Up to which moment of the server's clock all readings have been received, in µs. 0: it is
                unknown, because more follow or the server does not state it.
            received: When the response was received (monotonic seconds).
        """
        if complete_us <= 0:
            return
        self._complete = complete_us / 1e6
        if received - self._period_began > _PERIOD:
            self._former = self._difference
            self._difference = math.inf
            self._period_began = received
        self._difference = min(self._difference, received - self._complete)

    def seconds(self, now: float) -> float:
        """Returns for how long readings may have become durable that were not applied; infinite if it is unknown."""
        if self._complete == -math.inf:
            return math.inf
        return max(0.0, now - self._complete - min(self._difference, self._former))
