"""Ingestion knows which gateways are connected, and from which one the readings of a machine come."""

from pathlib import Path

import pytest

from aurum.ingestion.gateways import Gateways
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.ingestion.stored_gateways import StoredGateways
from aurum.readings.batch import SeriesKeys
from aurum.readings.transport.sending_gateway import GATEWAY_METADATA, gateway_in
from aurum.runtime.errors import InvalidArgumentError


class Known:
    def __init__(self) -> None:
        self.now = 0.0
        self.machines: list[str] = []
        self.gateways = Gateways(self.machines.append, lambda: None, lambda: self.now)

    def connected(self) -> dict[str, bool]:
        return {state.name: state.connected for state in self.gateways.changed_since(0)}


def test_gateway_is_connected_while_it_has_a_stream() -> None:
    known = Known()
    with known.gateways.connected("A"):
        before = known.gateways.version
        with known.gateways.connected("A"), known.gateways.connected(""):
            assert known.connected() == {"A": True}
        assert known.gateways.version == before
    assert known.connected() == {"A": False}
    assert [state.name for state in known.gateways.changed_since(before)] == ["A"]


def test_machine_belongs_to_the_latest_gateway_that_sends_it() -> None:
    known = Known()
    keys = [SeriesKeys([("m1", "heat"), ("m2", "heat")]) for _ in range(2)]
    with known.gateways.connected("A"), known.gateways.connected("B"):
        known.gateways.note_batch(keys[0], "A")
        known.gateways.note_batch(keys[0], "")
        assert known.machines == ["m1", "m2"]
        known.now = 10
        known.gateways.note_batch(keys[1], "B")
        assert known.gateways.of("m1") == "A"  # it would change with each batch if both send it
        known.now = 70
        known.gateways.note_batch(keys[1], "B")
        assert known.gateways.of("m1") == "B"
        known.now = 140
        known.gateways.note_batch(keys[0], "A")
        assert known.gateways.of("m1") == "A"
    assert known.gateways.of("m3") == ""


def test_stored_gateways_are_taken_over_unless_newer_is_known() -> None:
    known = Known()
    keys = SeriesKeys([("m1", "heat")])
    with known.gateways.connected("A"):
        known.gateways.note_batch(keys, "A")
        known.gateways.restore({"m1": "B", "m2": "B"})
        assert (known.gateways.of("m1"), known.gateways.of("m2")) == ("A", "B")
        assert known.machines == ["m1", "m2"]
        assert known.gateways.unwritten == {"m1": "A"}
        known.gateways.written({"m1": "C"})
        assert known.gateways.unwritten == {"m1": "A"}  # it has changed while it was written
        known.gateways.written({"m1": "A"})
        known.gateways.restore({"m1": "B"})  # another replica has stored it later
        assert (known.gateways.of("m1"), known.gateways.unwritten) == ("B", {})
        known.gateways.note_batch(keys, "A")
        assert known.gateways.of("m1") == "A"


async def test_gateways_are_stored_once_and_read_again(tmp_path: Path) -> None:
    store = SqliteStore(SqliteOptions(tmp_path / "store.db"))
    await store.start()
    known, later = Known(), Known()
    with known.gateways.connected("A"):
        known.gateways.note_batch(SeriesKeys([("m1", "heat")]), "A")
    await StoredGateways(store, known.gateways).write()
    assert known.gateways.unwritten == {}
    await StoredGateways(store, later.gateways).load()
    assert (later.gateways.of("m1"), later.gateways.unwritten) == ("A", {})
    await store.close()


def test_gateways_that_are_away_are_forgotten_if_there_are_many() -> None:
    known = Known()
    with known.gateways.connected("stays"):
        for number in range(1100):
            with known.gateways.connected(f"g{number}"):
                pass
        connected = known.connected()
    assert len(connected) == 1000
    assert connected["stays"]


@pytest.mark.parametrize("name", ["a b", "-a", "x" * 65, "é"])
def test_invalid_name_of_a_gateway_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="AURUM_EDGE_NAME"):
        gateway_in([(GATEWAY_METADATA, name)])
    assert gateway_in([("other", name), (GATEWAY_METADATA, "hall-3")]) == "hall-3"
    assert gateway_in(None) == ""
