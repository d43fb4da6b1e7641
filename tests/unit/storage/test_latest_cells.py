"""Latest readings in Cassandra: cells sort as ranks do, and what other replicas tell is taken by rank."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.ingestion.cassandra.latest import decode, latest_of
from aurum.ingestion.machine_state import MachineStates
from aurum.ingestion.plant_limits import PlantLimits
from aurum.ingestion.store import Change, Latest


def encode(order: int, source_id: str, sequence: int, at_us: int, value: float) -> bytes:
    """A cell, as the version before 4 of the tables wrote it."""
    return struct.pack(">Q", order) + source_id.encode() + b"\0" + struct.pack(">Qqd", sequence, at_us, value)


times = st.integers(0, 2**62)
ranks = st.tuples(
    times, st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/\-]{0,9}", fullmatch=True), st.integers(1, 2**62)
)  # order of a source, its id, sequence


@given(ranks, ranks, times, st.floats(allow_infinity=False), st.floats(allow_infinity=False))
@settings(deadline=None)
def test_cells_of_one_time_sort_by_rank(
    one: tuple[int, str, int], other: tuple[int, str, int], at: int, value: float, another: float
) -> None:
    first, second = encode(*one, at, value), encode(*other, at, another)
    if one != other:
        assert (first < second) == (one < other)
    found = decode(first)
    assert (found.at_us, found.rank) == (at, one)
    assert found.value == value or value != value  # noqa: PLR0124 - the only way a value is no number


def test_newer_reading_without_rank_is_the_latest() -> None:
    """While replicas of the version before still write theirs."""
    ranked = {"s": encode(1, "a", 2, 100, 5.0), "t": encode(1, "a", 2, 100, 6.0)}
    found = latest_of({"s": (101, 7.0), "t": (100, 9.0), "u": (1, 1.0)}, ranked)
    assert found == {"s": Latest(101, 7.0), "t": Latest(100, 6.0, (1, "a", 2)), "u": Latest(1, 1.0)}
    assert latest_of(None, None) == {}


def test_change_of_higher_rank_replaces_reading_of_same_time() -> None:
    plant = MachineStates(PlantLimits(), 16, 1_000_000, shared=True)
    for at, value, rank, shown in (
        (100, 5.0, (2, "b", 1), 5.0),
        (100, 9.0, (1, "a", 7), 5.0),
        (100, 8.0, (), 5.0),
        (100, 1.0, (2, "b", 3), 1.0),
        (99, 4.0, (3, "c", 1), 1.0),
        (101, 3.0, (), 3.0),
        (101, 2.0, (1, "a", 8), 2.0),
    ):
        plant.apply_change(Change("m", None, 0, {"s": Latest(at, value, rank)}))
        assert plant.get("m").sensors["s"][1] == shown
