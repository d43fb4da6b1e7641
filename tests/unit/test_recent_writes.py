"""The API remembers which machines it has just written readings of."""

from aurum.api.recent_writes import RecentWrites


def test_last_write_of_a_machine_is_remembered_for_a_minute() -> None:
    now = 1_000_000.0
    writes = RecentWrites(clock=lambda: now)
    writes.note(["pump-1", "pump-2"])
    now += 50
    writes.note(["pump-2"])
    assert (writes.last("pump-1"), writes.last("pump-2"), writes.last("pump-3")) == (10**12, 10**12 + 5 * 10**7, 0)
    now += 20
    writes.note(["pump-4"])
    assert writes.last("pump-1") == 0
    assert writes.last("pump-2") == 10**12 + 5 * 10**7


def test_remembered_machines_are_bounded() -> None:
    writes = RecentWrites()
    writes.note(f"pump-{number}" for number in range(10_001))
    assert writes.last("pump-0") == 0
    assert writes.last("pump-10000") > 0
