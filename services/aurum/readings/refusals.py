"""Which batch of a stream a server refuses, and whether for good: such a batch must not hold up the others.

A refusal that names its batch and that no repetition would change is for good at once. Where the server does not say
which batch it is, as for a message that is too large for it, batches are sent one by one until one of them is refused
alone. Where the same batch could still be taken, as after an internal error, it is passed over after some refusals in a
row, and given up once the server takes others: a server that refuses everything is not the fault of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from aurum.readings.batch import AHEAD_OF_CLOCK
from aurum.runtime.errors import AurumError, ResourceExhaustedError

_IN_A_ROW = 5  # refusals of a batch that could still be taken
_ONE_BY_ONE = 64  # acknowledged batches after which they are sent together again
_BREAKS = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
_DOUBTFUL = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})
_BY_SIZE_OR_CONTENT = _DOUBTFUL | {
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
}


@dataclass(frozen=True, slots=True)
class Refused:
    """A batch that the server will never take. reason: a stable name, for programs; message: a sentence."""

    id: int
    reason: str
    message: str


@dataclass(slots=True)
class _Suspect:
    id: int
    refusals: int = 0


class Refusals:
    """The refusals of one server. For the streams of one uplink, one after the other."""

    def __init__(self) -> None:
        self._suspect: _Suspect | None = None
        self._passed_over: Refused | None = None  # given up as soon as another batch is taken
        self._one_by_one = 0  # batches to be sent alone before they are sent together again

    @property
    def passed_over(self) -> int | None:
        """The id of a batch that is not to be sent."""
        return self._passed_over.id if self._passed_over else None

    def window(self, most: int) -> int:
        """How many batches may be on their way at once."""
        return 1 if self._one_by_one else most

    def taken(self, batches: int) -> Refused | None:
        """Notes that batches were acknowledged; what is to be given up since then."""
        self._one_by_one = max(0, self._one_by_one - batches)
        refused, self._passed_over = self._passed_over, None
        if refused is not None:
            self._suspect = None
        return refused

    def broken(self, error: AurumError, code: grpc.StatusCode, in_flight: Sequence[int], taken: int) -> Refused | None:
        """Notes how a stream ended; what is to be given up since then.

        Args:
            error: What the server said.
            code: Its status, which may have no error of ours.
            in_flight: Ids of the batches that were sent and not acknowledged, in their order.
            taken: Batches of the stream that were acknowledged before.
        """
        if _is_temporary(error, code):
            return None
        position = error.metadata.get("position", "")
        index = int(position) - taken if position.isdigit() else -1
        named = 0 <= index < len(in_flight)
        if named and code not in _DOUBTFUL:
            return Refused(in_flight[index], error.reason, error.message)
        if not named and code not in _BY_SIZE_OR_CONTENT:
            return None  # of the stream as a whole, such as a role that the client lacks
        if not named and len(in_flight) != 1:
            self._one_by_one = _ONE_BY_ONE
            return None
        self._doubt(Refused(in_flight[index if named else 0], error.reason, error.message))
        return None

    def _doubt(self, refused: Refused) -> None:
        if self._passed_over is not None:  # and others are refused as well
            self._suspect = self._passed_over = None
            return
        if self._suspect is None or self._suspect.id != refused.id:
            self._suspect = _Suspect(refused.id)
        self._suspect.refusals += 1
        if self._suspect.refusals >= _IN_A_ROW:
            self._passed_over = refused


def _is_temporary(error: AurumError, code: grpc.StatusCode) -> bool:
    if error.reason == AHEAD_OF_CLOCK:
        return True  # the clocks differ, here or there, and one day it will be taken
    return code in _BREAKS or (isinstance(error, ResourceExhaustedError) and error.retry_after is not None)
