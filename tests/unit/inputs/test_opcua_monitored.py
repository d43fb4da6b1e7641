"""OPC UA: what of a notification is stored, and how the rest is told."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import TagRule
from aurum.edge.inputs.common.refusals import Reason
from aurum.edge.inputs.opcua.browsing import Variable
from aurum.edge.inputs.opcua.changes import Changes, Content, read_changes
from aurum.edge.inputs.opcua.monitored import MonitoredVariables
from tests.support.batch_builder import MemorySpool, make_builder

BAD_SENSOR, UNCERTAIN, GOOD_OVERLOAD = 0x808C0000, 0x40900000, 0x002F0000


def variable(number: int, machine: str = "m-1") -> Variable:
    return Variable(ua.NodeId(f"n{number}", 2), machine, f"s{number}")


def changes(*rows: tuple[int, float, int]) -> Changes:
    """Changes of handle, value and status. The time of the first is 1 s, and so on."""
    handles, values, statuses = (np.array(column) for column in zip(*rows, strict=True))
    good = (statuses & 0xC0000000) == 0
    times = 1_700_000_000_000_000 + np.arange(len(rows)) * 1_000_000
    contents = np.zeros(len(rows), np.uint8)
    return Changes(handles.astype(np.int64), times, values.astype(float), good, statuses.astype(np.uint32), contents)


def monitored(builder: BatchBuilder, variables: Sequence[Variable]) -> MonitoredVariables:
    made = MonitoredVariables("cell", builder)
    made.add(range(len(variables)), made.without_known(variables))
    return made


async def test_status_that_is_not_good_is_counted_by_its_name() -> None:
    spool = MemorySpool()
    builder = make_builder(spool)
    made = monitored(builder, [variable(number) for number in range(4)])
    made.add_changes(changes((0, 1.0, 0), (1, 2.0, BAD_SENSOR), (2, 3.0, UNCERTAIN), (3, 4.0, GOOD_OVERLOAD)))
    made.add_changes(changes((1, 5.0, BAD_SENSOR), (0, 6.0, 0)))
    await builder.commit()
    stored = {sensor: [value for _, value in readings] for (_, sensor), readings in spool.readings().items()}
    assert stored == {"s0": [1.0, 6.0], "s3": [4.0]}
    tally = builder.refusals.refused[Reason.BAD_QUALITY]
    assert tally.count == 3
    assert tally.example == "m-1 s1: BadSensorFailure (ns=2;s=n1), 2 times"


@pytest.mark.parametrize(("value", "reason"), [(math.nan, Reason.ABSENT), (math.inf, Reason.NOT_A_NUMBER)])
async def test_value_that_is_no_number_is_counted(value: float, reason: Reason) -> None:
    spool = MemorySpool()
    builder = make_builder(spool)
    monitored(builder, [variable(0)]).add_changes(changes((0, value, 0), (0, 1.0, 0)))
    await builder.commit()
    assert [value for _, value in spool.readings()["m-1", "s0"]] == [1.0]
    assert {each: tally.count for each, tally in builder.refusals.refused.items()} == {reason: 1}


def not_numbers(*contents: Content) -> Changes:
    """A change of each of the first variables to something that is no number."""
    rows = changes(*((handle, math.nan, 0) for handle in range(len(contents))))
    return replace(rows, good=np.zeros(len(contents), bool), contents=np.array(contents, np.uint8))


async def test_values_that_are_no_numbers_are_told_apart() -> None:
    builder = make_builder(MemorySpool())
    made = monitored(builder, [variable(number) for number in range(3)])
    for _ in range(2):
        made.add_changes(not_numbers(Content.TEXT, Content.NOTHING, Content.OTHER))
    refused = {reason: (tally.count, tally.example) for reason, tally in builder.refusals.refused.items()}
    assert refused == {
        Reason.TEXT: (2, "m-1 s0: is a text (ns=2;s=n0), 2 times"),
        Reason.ABSENT: (2, "m-1 s1: is empty (ns=2;s=n1), 2 times"),
        Reason.UNSUPPORTED: (2, "m-1 s2: is an array, a time or a structure (ns=2;s=n2), 2 times"),
    }


async def test_text_in_place_of_a_number_is_a_fault() -> None:
    builder = make_builder(MemorySpool())
    made = monitored(builder, [variable(0), variable(1)])
    made.add_changes(changes((0, 1.0, 0)))
    await builder.commit()
    made.add_changes(not_numbers(Content.TEXT, Content.TEXT))
    counts = {reason: tally.count for reason, tally in builder.refusals.refused.items()}
    assert counts == {Reason.NOT_A_NUMBER: 1, Reason.TEXT: 1}


async def test_dropped_variables_are_not_refused() -> None:
    builder = make_builder(MemorySpool(), TagRule(sensor="s0", drop=True))
    monitored(builder, [variable(0)]).add_changes(changes((0, 1.0, BAD_SENSOR)))
    assert builder.refusals.refused == {}


def test_two_nodes_of_one_name_are_told_apart() -> None:
    builder = make_builder(MemorySpool())
    made = MonitoredVariables("cell", builder)
    first, other = variable(0), Variable(ua.NodeId("elsewhere", 3), "m-1", "s0")
    assert made.without_known([first, first, other]) == [first]
    assert "m-1 s0 is both ns=2;s=n0 and ns=3;s=elsewhere" in builder.refusals.refused[Reason.INVALID_NAME].example
    made.add([7], [first])
    assert made.without_known([first]) == []


def test_refused_variable_is_looked_for_again() -> None:
    made = MonitoredVariables("cell", make_builder(MemorySpool()))
    made.add([7], made.without_known([variable(0)]))
    made.remove(7)
    assert (len(made), made.without_known([variable(0)])) == (0, [variable(0)])


@pytest.mark.parametrize("variables", [1, 9])  # read by one and as an array
async def test_rounded_integers_of_a_server_are_counted(variables: int) -> None:
    spool = MemorySpool()
    builder = make_builder(spool)
    made = monitored(builder, [variable(number) for number in range(variables)])
    items = [
        ua.MonitoredItemNotification(
            ClientHandle=handle, Value=ua.DataValue(ua.Variant(2**53 + handle, ua.VariantType.UInt64))
        )
        for handle in range(variables)
    ]
    made.add_changes(read_changes(struct_to_binary(ua.DataChangeNotification(MonitoredItems=items))))
    items[0].Value = ua.DataValue(ua.Variant(-(2**53) - 1, ua.VariantType.Int64))
    made.add_changes(read_changes(struct_to_binary(ua.DataChangeNotification(MonitoredItems=items[:1]))))
    await builder.commit()
    assert [value for _, value in spool.readings()["m-1", "s0"]] == [2.0**53, -(2.0**53)]
    tally = builder.refusals.corrected[Reason.ROUNDED]
    assert tally.count == 1 + variables // 2
    assert tally.example == "m-1 s0: is stored as -9007199254740992 (ns=2;s=n0)"
