"""Recent readings in columns: what they answer and pack is what the batches say."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.ingestion import memtable, memtable_packing
from aurum.ingestion.memtable import Memtable, SeriesPart
from aurum.ingestion.series_index import SeriesIndex
from aurum.readings.batch import Batch, Series, SeriesKey
from aurum.storage.packed_readings import PackedReadings
from aurum.storage.ranks import Rank, Ranked, merge_ranked

Batches = list[tuple[tuple[object, ...], int, dict[str, list[int]]]]  # source, distance, times by machine
Readings = dict[SeriesKey, dict[int, tuple[Rank, float]]]  # by series and time: rank and value


def batch(sequence: int, columns: dict[str, list[int]], first_value: float = 0.0) -> Batch:
    """A batch with these times of each machine, whose values count from the first one."""
    series, value = [], first_value
    for machine_id, times in columns.items():
        series.append(Series(machine_id, "s", np.array(times), value + np.arange(len(times), dtype=np.float64)))
        value += len(times)
    return Batch.from_series("src", sequence, series)


received = st.lists(
    st.tuples(
        st.sampled_from([(1,), (2,), (9, "by name")]),  # source
        st.integers(-1, 3),  # distance of its sequence from the highest one of the source
        st.dictionaries(
            st.integers(0, 40).map(lambda number: f"m{number}"),
            st.lists(st.integers(0, 30), min_size=1, max_size=5),
            min_size=1,
        ),
    ),
    min_size=1,
    max_size=20,
)


def filled(
    batches: Batches,
) -> tuple[Memtable, SeriesIndex, Readings]:
    """A memtable with batches, and what they say."""
    series, said, value = SeriesIndex(), Readings(), 0.0
    recent = Memtable(series)
    sequences: dict[tuple[object, ...], set[int]] = {}
    for source, distance, columns in batches:
        taken = sequences.setdefault(source, {100})
        sequence = max(taken) + distance
        while sequence in taken:
            sequence += 1
        taken.add(sequence)
        rank = (*map(str, source), sequence)
        each = batch(sequence, columns, value)
        value += each.readings
        recent.add_batch(each, rank)
        for column in each.series:
            found = said.setdefault((column.machine_id, column.sensor), {})
            for at, reading in zip(column.timestamps.tolist(), column.values.tolist(), strict=True):
                if at not in found or found[at][0] <= rank:
                    found[at] = rank, reading
    return recent, series, said


def values_of(said: dict[int, tuple[Rank, float]]) -> list[tuple[int, float]]:
    return [(at, value) for at, (_, value) in sorted(said.items())]


@given(received, st.sampled_from([2, 64]))
def test_parts_by_rank_say_what_the_batches_say(batches: Batches, chain: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memtable, "_CHAIN", chain)
        recent, series, said = filled(batches)
        for key, expected in said.items():
            found: dict[int, float] = {}
            for part in sorted(recent.parts(key), key=lambda part: part.rank):
                found.update(zip(part.timestamps.tolist(), part.values.tolist(), strict=True))
            assert sorted(found.items()) == values_of(expected)
    assert recent.parts(("absent", "s")) == []
    assert [series.key_of(number) for number in recent.numbers().tolist()] == list(said)
    assert recent.readings == sum(len(times) for _, _, columns in batches for times in columns.values())


@given(received, st.integers(1, 30))
def test_packing_in_pieces_loses_and_reorders_nothing(batches: Batches, at_once: int) -> None:
    """However few readings are sorted at once: sorted, and by rank what counts at each time."""
    recent, series, said = filled(batches)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memtable_packing, "_SORTED_AT_ONCE", at_once)
        packed = list(recent.packed())
    found: Readings = {}
    for number, piece in pieces_by_series(packed):
        readings = found.setdefault(series.key_of(number), {})
        for at, (rank, value) in piece.items():
            assert at not in readings or readings[at][0] != rank
            readings[at] = max(readings.get(at, (rank, value)), (rank, value))
    assert {key: values_of(readings) for key, readings in found.items()} == {
        key: values_of(readings) for key, readings in said.items()
    }
    _check_ranks(found, said, batches)


@given(received, st.integers(1, 30))
def test_merged_pieces_are_the_undivided_series(batches: Batches, at_once: int) -> None:
    """Whatever the order in which the pieces are read, as those of different segments are."""
    recent, _, _ = filled(batches)
    undivided = {number: values_of(piece) for number, piece in pieces_by_series(list(recent.packed()))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memtable_packing, "_SORTED_AT_ONCE", at_once)
        packed = list(recent.packed())
    parts: dict[int, list[Ranked]] = {}
    for each in reversed(packed):
        ends = each.ends.tolist()
        for number, start, end in zip(each.numbers.tolist(), (each.ends - each.lengths).tolist(), ends, strict=True):
            parts.setdefault(number, []).append(
                (each.timestamps[start:end], each.values[start:end], each.ranks.between(start, end))
            )
    merged = {number: merge_ranked(some) for number, some in parts.items()}
    assert {
        number: list(zip(times.tolist(), values.tolist(), strict=True)) for number, (times, values, _) in merged.items()
    } == undivided


def pieces_by_series(packed: list[PackedReadings]) -> Iterator[tuple[int, dict[int, tuple[Rank, float]]]]:
    """Yields the number of each series, and by time its readings and their ranks, for each piece of the series."""
    for each in packed:
        assert (np.diff(each.numbers) > 0).all()
        for number, start, end in zip(
            each.numbers.tolist(), (each.ends - each.lengths).tolist(), each.ends.tolist(), strict=True
        ):
            times, ranks = each.timestamps[start:end], each.ranks.between(start, end)
            assert (np.diff(times) > 0).all()
            runs = np.repeat(np.arange(len(ranks.lengths)), ranks.lengths).tolist()
            yield (
                number,
                {
                    at: ((*ranks.sources[ranks.places[run]], int(ranks.sequences[run])), value)
                    for at, value, run in zip(times.tolist(), each.values[start:end].tolist(), runs, strict=True)
                },
            )


def _check_ranks(found: Readings, said: Readings, batches: Batches) -> None:
    """Each reading has its rank, or the rank of a later batch of its source without a gap in between."""
    sequences: dict[Rank, set[int]] = {}
    for readings in said.values():
        for rank, _ in readings.values():
            sequences.setdefault(rank[:-1], set()).add(rank[-1])
    for key, readings in found.items():
        for at, (rank, _) in readings.items():
            own = said[key][at][0]
            assert rank[:-1] == own[:-1]
            assert rank[-1] >= own[-1]
            assert rank[-1] - own[-1] < len(batches)


def test_consecutive_batches_form_one_part_up_to_a_gap() -> None:
    recent = Memtable(SeriesIndex())
    for sequence in (*range(1, 101), *range(102, 201)):
        machine_id = "other" if sequence % 10 == 0 else "m"
        recent.add_batch(batch(sequence, {machine_id: [sequence]}), (1, sequence))
    parts = recent.parts(("m", "s"))
    assert [part.rank for part in parts] == [(1, 100), (1, 200)]
    assert parts[1].timestamps.tolist() == [sequence for sequence in range(102, 200) if sequence % 10]


def test_parts_that_were_handed_out_do_not_change() -> None:
    recent = Memtable(SeriesIndex())
    recent.add_batch(batch(1, {"m": [1, 2]}), (1, 1))
    (part,) = recent.parts(("m", "s"))
    for sequence in range(2, 3000):
        recent.add_batch(batch(sequence, {"m": [sequence * 10], f"m{sequence}": [1]}, float(sequence)), (1, sequence))
    assert (part.timestamps.tolist(), part.values.tolist()) == ([1, 2], [0.0, 1.0])
    (part,) = recent.parts(("m", "s"))
    assert isinstance(part, SeriesPart)
    assert len(part.values) == 3000
    assert recent.nbytes >= 16 * recent.readings
