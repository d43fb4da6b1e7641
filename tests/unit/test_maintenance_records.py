"""The content of maintenance records."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.maintenance.lives import stops_of
from aurum.maintenance.records import KINDS, Record, RecordError, RecordKind, decode, encode, new_record, parse_id
from aurum.readings.history import Stop

TIMES = st.integers(0, 4_000_000_000_000_000)
RECORDS = st.builds(
    Record,
    TIMES,
    st.text("0123456789abcdef", min_size=1, max_size=20),
    TIMES,
    st.text(),
    st.text(),
    st.none() | st.sampled_from(KINDS),
    st.none() | TIMES,
    st.text(),
    st.text(),
    st.none() | st.floats(0, 1e9),
    st.none() | st.floats(0, 1e6),
    st.integers(0, 1000),
    st.booleans(),
)


@given(RECORDS)
def test_decoding_a_record_restores_it(record: Record) -> None:
    assert decode(record.key_us, record.digest, encode(record)) == record
    assert parse_id(record.id) == (record.key_us, record.digest)


def test_record_of_an_earlier_version_is_a_note() -> None:
    record = decode(7, "digest", b'{"text": "Bearing replaced", "by": "Ada"}')
    assert (record.kind, record.from_us, record.end_us, record.revision) == (None, 7, 7, 0)


@given(RECORDS, RECORDS)
def test_same_content_gives_the_same_record(one: Record, other: Record) -> None:
    assert new_record(one) == new_record(new_record(one))
    same = new_record(one) == new_record(other)
    assert (new_record(one).id == new_record(other).id) == same


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"text": 1, "by": ""}', b'{"text": "", "by": "", "from_us": 1e30}', b"\xff"]
)
def test_content_that_is_no_record_is_refused(content: Any) -> None:
    with pytest.raises(RecordError):
        decode(1, "digest", content)


def test_failures_and_overhauls_count_for_lives() -> None:
    """A repair only ends the time out of service; inspections, notes and deleted records say nothing."""

    def record(at: int, kind: RecordKind | None, *, deleted: bool = False) -> Record:
        return Record(at, "d", at, "", "Ada", kind, at + 5, failure_mode="seal", deleted=deleted)

    records = [
        record(40, "repair"),
        record(30, "failure"),
        record(20, "overhaul"),
        record(25, "replacement"),
        record(10, "inspection"),
        record(50, None),
        record(60, "failure", deleted=True),
    ]
    assert stops_of(records) == [
        Stop(20, 25, renewed=True),
        Stop(25, 30, renewed=True),
        Stop(30, 35, failed=True, mode="seal"),
        Stop(40, 45),
    ]
