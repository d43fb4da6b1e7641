"""Identifies batches that the server refuses permanently, so that they do not block the others.

A refusal that names its batch and that a retry cannot change counts at once. If the server does not name the
batch, for example because a message is too large, batches are sent one by one until one is refused alone. If the
batch might still be accepted, for example after an internal error, it is skipped after five refusals in a row. It is
given up only when the server accepts other batches, because a server that refuses everything is faulty.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from aurum.readings.batch import AHEAD_OF_CLOCK
from aurum.runtime.errors import AurumError, ResourceExhaustedError

_MAX_CONSECUTIVE = 5  # refusals of a batch that might still be accepted
_SINGLE_BATCHES = 64  # batches to be acknowledged before several are sent together again
_TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
_DOUBTFUL = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})
_CAUSED_BY_BATCH = _DOUBTFUL | {
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
}


@dataclass(frozen=True, slots=True)
class Refused:
    """A batch that the server refuses permanently.

    Attributes:
        id: The id of the batch in its outbox.
        reason: A stable, machine-readable name.
        message: The description for people.
    """

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
        self._skipped: Refused | None = None  # is given up when another batch is accepted
        self._single_left = 0  # batches still to be sent alone

    @property
    def skipped_id(self) -> int | None:
        """The id of a batch that must not be sent, or None."""
        return self._skipped.id if self._skipped else None

    def window_size(self, max_batches: int) -> int:
        """Returns how many batches may be in flight."""
        return 1 if self._single_left else max_batches

    def record_acknowledged(self, batches: int) -> Refused | None:
        """Records that batches were acknowledged. Returns the batch that is now given up, or None."""
        self._single_left = max(0, self._single_left - batches)
        refused, self._skipped = self._skipped, None
        if refused is not None:
            self._suspect = None
        return refused

    def record_stream_end(
        self, error: AurumError, code: grpc.StatusCode, in_flight: Sequence[int], acknowledged: int
    ) -> Refused | None:
        """Records how a stream ended. Returns the batch that is to be given up, or None.

        Args:
            error: The server's error.
            code: Its gRPC status, which may have no matching AurumError.
            in_flight: The ids of the batches that were sent and not acknowledged, in order.
            acknowledged: The number of batches of the stream that were acknowledged.
        """
        if _is_temporary(error, code):
            return None
        position = error.metadata.get("position", "")
        index = int(position) - acknowledged if position.isdigit() else -1
        named = 0 <= index < len(in_flight)
        if named and code not in _DOUBTFUL:
            return Refused(in_flight[index], error.reason, error.message)
        if not named and code not in _CAUSED_BY_BATCH:
            return None  # concerns the whole stream, for example a missing role
        if not named and len(in_flight) != 1:
            self._single_left = _SINGLE_BATCHES
            return None
        self._count_refusal(Refused(in_flight[index if named else 0], error.reason, error.message))
        return None

    def _count_refusal(self, refused: Refused) -> None:
        if self._skipped is not None:  # other batches are refused too
            self._suspect = self._skipped = None
            return
        if self._suspect is None or self._suspect.id != refused.id:
            self._suspect = _Suspect(refused.id)
        self._suspect.refusals += 1
        if self._suspect.refusals >= _MAX_CONSECUTIVE:
            self._skipped = refused


def _is_temporary(error: AurumError, code: grpc.StatusCode) -> bool:
    if error.reason == AHEAD_OF_CLOCK:
        return True  # the clocks disagree; the batch is accepted later
    return code in _TRANSIENT or (isinstance(error, ResourceExhaustedError) and error.retry_after is not None)
