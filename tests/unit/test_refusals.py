"""Which refusals give a batch up: at once, after some in a row, or never."""

import grpc
import pytest

from aurum.readings.batch import AHEAD_OF_CLOCK
from aurum.readings.transport.refusals import Refusals, Refused
from aurum.runtime.errors import AurumError, InternalError, PermissionDeniedError, ResourceExhaustedError

INTERNAL = grpc.StatusCode.INTERNAL


def error(reason: str = "WHY", position: int | None = None, retry_after: float | None = None) -> AurumError:
    metadata = {} if position is None else {"position": str(position)}
    kind = ResourceExhaustedError if retry_after is not None else AurumError
    return kind("no", reason=reason, metadata=metadata, retry_after=retry_after)


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ],
)
def test_named_batch_is_given_up_at_once(code: grpc.StatusCode) -> None:
    assert Refusals().record_stream_end(error(position=12), code, [7, 8, 9], 10) == Refused(9, "WHY", "no")


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    ],
)
def test_refusal_of_the_whole_stream_gives_up_nothing(code: grpc.StatusCode) -> None:
    refusals = Refusals()
    for _ in range(50):
        assert refusals.record_stream_end(error(), code, [7], 0) is None
    assert (refusals.skipped_id, refusals.window_size(64)) == (None, 64)


def test_request_to_slow_down_gives_up_nothing() -> None:
    refusals = Refusals()
    for refusal in (error(position=0, retry_after=0.5), error(AHEAD_OF_CLOCK, 0)):
        for _ in range(50):
            assert refusals.record_stream_end(refusal, grpc.StatusCode.RESOURCE_EXHAUSTED, [7], 0) is None
    assert refusals.skipped_id is None


def test_position_outside_of_the_stream_is_ignored() -> None:
    refusal = PermissionDeniedError("no", metadata={"position": "3"})
    assert Refusals().record_stream_end(refusal, refusal.code, [7, 8], 0) is None
    refusal = PermissionDeniedError("no", metadata={"position": "-1"})
    assert Refusals().record_stream_end(refusal, refusal.code, [7, 8], 0) is None


def test_unnamed_batch_is_found_by_sending_one_by_one() -> None:
    refusals = Refusals()
    too_large = AurumError("too large")
    assert refusals.record_stream_end(too_large, grpc.StatusCode.RESOURCE_EXHAUSTED, [7, 8, 9], 0) is None
    assert refusals.window_size(64) == 1
    assert refusals.record_acknowledged(1) is None  # 7
    for _ in range(5):
        assert refusals.skipped_id is None
        assert refusals.record_stream_end(too_large, grpc.StatusCode.RESOURCE_EXHAUSTED, [8], 0) is None
    assert refusals.skipped_id == 8
    assert refusals.record_acknowledged(1) == Refused(8, too_large.reason, "too large")  # 9
    assert refusals.skipped_id is None
    refusals.record_acknowledged(61)
    assert refusals.window_size(64) == 1
    refusals.record_acknowledged(1)
    assert refusals.window_size(64) == 64


def test_server_that_refuses_everything_gives_up_nothing() -> None:
    refusals = Refusals()
    for _ in range(20):
        sent = next(id_ for id_ in (7, 8) if id_ != refusals.skipped_id)
        assert refusals.record_stream_end(InternalError("no", metadata={"position": "0"}), INTERNAL, [sent], 0) is None
    assert refusals.record_acknowledged(1) is None or refusals.skipped_id is None


def test_refusals_of_different_batches_are_not_added_up() -> None:
    refusals = Refusals()
    for number in range(40):
        refusals.record_stream_end(error(), INTERNAL, [number % 2], 0)
    assert refusals.skipped_id is None
