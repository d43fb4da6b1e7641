"""What the API writes for callers that name no source: no sequence is burnt, and gaps do not grow for ever."""

from hypothesis import given
from hypothesis import strategies as st

from aurum.api.own_source import OwnSource
from aurum.storage import sequence_ranges


@given(st.lists(st.sampled_from(["stored", "refused", "unknown"]), max_size=200))
def test_gaps_are_no_more_than_unknown_writes(outcomes: list[str]) -> None:
    source = OwnSource()
    stored: list[sequence_ranges.Range] = []
    used: set[int] = set()
    for outcome in outcomes:
        source_id, sequence = source.next_batch()
        assert source_id == source.id
        assert sequence not in used, "a sequence is used for one batch only"
        if outcome == "refused":
            source.record_refused(source_id, sequence)
            continue
        used.add(sequence)
        if outcome == "stored":
            sequence_ranges.record(stored, sequence)
        else:
            source.record_unknown(source_id)
    assert len(stored) <= 2 + outcomes.count("unknown") + outcomes[-1:].count("refused")


def test_another_source_begins_after_many_unknown_writes() -> None:
    source = OwnSource()
    first, _ = source.next_batch()
    for _ in range(1000):
        source.record_unknown(first)
    second, sequence = source.next_batch()
    assert second != first
    assert sequence == 1
    source.record_refused(first, 7)  # of the one before, which is over
    assert source.next_batch() == (second, 2)
