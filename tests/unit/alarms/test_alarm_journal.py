"""Entries of the journal of alarms: what this version wrote, what a newer one wrote, and what nobody can read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from aurum.alarms.journal import decode, encode
from aurum.alarms.lifecycle import Transition
from aurum.runtime import damage

RAISED = Transition("raised", "pump-1", "hot", 1_790_000_000_000_000, value=99.5)


def unknown(what: str) -> float:
    return REGISTRY.get_sample_value("unknown_total", {"what": what}) or 0.0


@given(
    st.builds(
        Transition,
        kind=st.sampled_from(["raised", "cleared", "shelved", "acknowledged"]),
        machine_id=st.text(),
        rule=st.text(),
        at_us=st.integers(0, 2**62),
        by=st.text(),
        value=st.none() | st.floats(allow_nan=False),
    )
)
def test_transitions_round_trip(transition: Transition) -> None:
    assert decode(encode(transition), "x") == transition


def test_unknown_field_is_left_out_and_counted() -> None:
    before = unknown("field of alarm transition")
    newer = json.dumps(json.loads(encode(RAISED)) | {"area": "hall 2", "line": 3}).encode()
    assert decode(newer, "x") == RAISED
    assert unknown("field of alarm transition") == before + 2


def test_unknown_words_of_newer_versions_are_left_out() -> None:
    before = unknown("priority of alarm transition")
    newer = json.dumps(json.loads(encode(RAISED)) | {"priority": "critical", "quantity": "torque"}).encode()
    assert decode(newer, "x") == RAISED
    assert unknown("priority of alarm transition") == before + 1


def test_unknown_kind_is_passed_over_and_counted() -> None:
    before = unknown("kind of alarm transition")
    assert decode(json.dumps(json.loads(encode(RAISED)) | {"kind": "escalated"}).encode(), "x") is None
    assert unknown("kind of alarm transition") == before + 1


WRONG_TIME = encode(RAISED).replace(b"17900", b'"x"00')


@pytest.mark.parametrize(
    "entry", [b"", b"{", b"[]", b"7", b"{}", b"\xff", b"[" * 100_000, b'{"kind": 7}', WRONG_TIME], ids=range(9)
)
def test_unreadable_entry_is_passed_over_and_told_once(entry: bytes) -> None:
    name = f"entry {entry[:20]!r}"
    for _ in range(2):
        assert decode(entry, name) is None
    assert [each["name"] for each in damage.latest()].count(f"alarm transition {name}") == 1
