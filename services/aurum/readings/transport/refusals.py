"""Decides which batch of a stream the server refuses, and whether permanently, so that it does not block the others.

A refusal that names its batch and that a retry cannot change is permanent at once. If the server does not name the
batch, for example because a message is too large, batches are sent one by one until one is refused alone. If the
batch might still be accepted, for example after an internal error, it is skipped after five refusals in a row. It is
given up only when the server accepts other batches, because a server that refuses everything is itself at fault.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from aurum.readings.batch import AHEAD_OF_CLOCK
from aurum.runtime.errors import AurumError, ResourceExhaustedError

_IN_A_ROW = 5  # refusals of a batch that might still be accepted
_ONE_BY_ONE = 64  # batches to be acknowledged before several are sent together again
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
    """A batch that the server refuses permanently. `reason` is a stable name for programs, `message` a sentence."""

    id: int
    reason: str
    message: str


@dataclass(slots=True)
class _Suspect:
    id: int
    refusals: int = 0


class Refusals:
    """Tracks the refusals of one server, over the consecutive streams of one uplink."""

    def __init__(self) -> None:
        self._suspect: _Suspect | None = None
        self._passed_over: Refused | None = None  # given up as soon as another batch is accepted
        self._one_by_one = 0  # batches still to be sent alone

    @property
    def passed_over(self) -> int | None:
        """The id of a batch that must not be sent, or None."""
        return self._passed_over.id if self._passed_over else None

    def window(self, most: int) -> int:
        """Returns how many batches may be in flight."""
        return 1 if self._one_by_one else most

    def taken(self, batches: int) -> Refused | None:
        """Records that batches were acknowledged. Returns the batch that is now given up, or None."""
        self._one_by_one = max(0, self._one_by_one - batches)
        refused, self._passed_over = self._passed_over, None
        if refused is not None:
            self._suspect = None
        return refused

    def broken(self, error: AurumError, code: grpc.StatusCode, in_flight: Sequence[int], taken: int) -> Refused | None:
        """Records how a stream ended. Returns the batch that is to be given up, or None.

        Args:
            error: The server's error.
            code: Its gRPC status, which may have no matching AurumError.
            in_flight: The ids of the batches that were sent and not acknowledged, in order.
            taken: The number of batches of the stream that were acknowledged.
        """
        if _is_temporary(error, code):
            return None
        position = error.metadata.get("position", "")
        index = int(position) - taken if position.isdigit() else -1
        named = 0 <= index < len(in_flight)
        if named and code not in _DOUBTFUL:
            return Refused(in_flight[index], error.reason, error.message)
        if not named and code not in _BY_SIZE_OR_CONTENT:
            return None  # concerns the whole stream, for example a missing role
        if not named and len(in_flight) != 1:
            self._one_by_one = _ONE_BY_ONE
            return None
        self._doubt(Refused(in_flight[index if named else 0], error.reason, error.message))
        return None

    def _doubt(self, refused: Refused) -> None:
        if self._passed_over is not None:  # other batches are refused too
            self._suspect = self._passed_over = None
            return
        if self._suspect is None or self._suspect.id != refused.id:
            self._suspect = _Suspect(refused.id)
        self._suspect.refusals += 1
        if self._suspect.refusals >= _IN_A_ROW:
            self._passed_over = refused


def _is_temporary(error: AurumError, code: grpc.StatusCode) -> bool:
    if error.reason == AHEAD_OF_CLOCK:
        return True  # the clocks disagree; the batch is accepted later
    return code in _BREAKS or (isinstance(error, ResourceExhaustedError) and error.retry_after is not None)
