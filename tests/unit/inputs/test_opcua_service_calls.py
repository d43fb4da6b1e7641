"""OPC UA: calls in parts that a server accepts, and browsing in pages."""

from collections.abc import Sequence
from typing import Any

import pytest
from asyncua import ua
from hypothesis import given
from hypothesis import strategies as st

from aurum.edge.inputs.common.configuration import OpcuaNodes
from aurum.edge.inputs.opcua.browsing import browse
from aurum.edge.inputs.opcua.service_calls import call_in_parts, read_operation_limits

TOO_MANY = st.sampled_from([
    ua.StatusCodes.BadTooManyOperations, ua.StatusCodes.BadEncodingLimitsExceeded, ua.StatusCodes.BadResponseTooLarge,
])  # fmt: skip


@given(st.lists(st.integers(), max_size=200), st.integers(1, 50), st.integers(1, 300), TOO_MANY)
async def test_operations_are_done_once_and_in_order(operations: list[int], limit: int, size: int, code: int) -> None:
    done: list[int] = []

    async def call(part: Sequence[int]) -> list[int]:
        if len(part) > limit:
            raise ua.UaStatusCodeError(code)
        done.extend(part)
        return [2 * each for each in part]

    assert await call_in_parts(call, operations, size) == [2 * each for each in operations]
    assert done == operations


async def test_call_that_fails_for_another_reason_is_not_repeated() -> None:
    calls = 0

    async def call(part: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        raise ua.UaStatusCodeError(ua.StatusCodes.BadSessionClosed)

    with pytest.raises(ua.UaStatusCodeError):
        await call_in_parts(call, [1, 2, 3], 10)
    assert calls == 1


class PagingServer:
    """A session that answers a browse in pages of two references, for at most three nodes at once."""

    def __init__(self, tree: dict[str, dict[str, str]]) -> None:
        self.tree = tree
        self.sizes: list[int] = []
        self._rest: dict[bytes, list[Any]] = {}

    async def read(self, parameters: Any) -> list[ua.DataValue]:
        values = {ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse: ua.Variant(3)}
        if len(parameters.NodesToRead) > 1:
            raise ua.UaStatusCodeError(ua.StatusCodes.BadTooManyOperations)
        return [
            ua.DataValue(values[each.NodeId.Identifier])
            if each.NodeId.Identifier in values
            else ua.DataValue(StatusCode=ua.StatusCode(ua.UInt32(ua.StatusCodes.BadNodeIdUnknown)))
            for each in parameters.NodesToRead
        ]

    async def browse(self, parameters: Any) -> list[ua.BrowseResult]:
        self.sizes.append(len(parameters.NodesToBrowse))
        self._rest.clear()
        return [self._first_page(each.NodeId) for each in parameters.NodesToBrowse]

    async def browse_next(self, parameters: Any) -> list[ua.BrowseResult]:
        return [self._page(self._rest.pop(parameters.ContinuationPoints[0]), b"again")]

    def _first_page(self, node: ua.NodeId) -> ua.BrowseResult:
        if node.Identifier not in self.tree:
            return ua.BrowseResult(ua.StatusCode(ua.UInt32(ua.StatusCodes.BadNodeIdUnknown)))
        references = []
        for child, name in self.tree[str(node.Identifier)].items():
            reference = ua.ReferenceDescription()
            reference.NodeId = ua.ExpandedNodeId(child, 2)
            reference.BrowseName = ua.QualifiedName(name, 2)
            reference.NodeClass = ua.NodeClass.Object if child in self.tree else ua.NodeClass.Variable
            references.append(reference)
        if len(references) > 2 and len(self._rest) >= 2:
            return ua.BrowseResult(ua.StatusCode(ua.UInt32(ua.StatusCodes.BadNoContinuationPoints)))
        return self._page(references, str(node.Identifier).encode())

    def _page(self, references: list[Any], point: bytes) -> ua.BrowseResult:
        if len(references) <= 2:
            return ua.BrowseResult(References=references)
        self._rest[point] = references[2:]
        return ua.BrowseResult(ContinuationPoint=point, References=references[:2])


async def test_browsing_reads_all_pages_within_server_limits() -> None:
    names = [f"s{number}" for number in range(5)]
    tree = {"Plant": {f"m{number}": f"Motor [{number}]" for number in range(7)}}
    tree |= {machine: {f"{machine}.{name}": name for name in names} for machine in tree["Plant"]}
    server = PagingServer(tree)
    limits = await read_operation_limits(server)  # type: ignore[arg-type]
    assert (limits.browse, limits.monitor) == (3, 200)
    found = await browse(server, OpcuaNodes(root="ns=2;s=Plant"), ua.NodeId("Plant", 2), limits.browse)  # type: ignore[arg-type]
    expected = {(f"Motor [{number}]", name) for number in range(7) for name in names}
    assert {(each.machine, each.sensor) for each in found.variables} == expected
    assert len(found.variables) == 35
    assert max(server.sizes) == 3


async def test_browse_root_that_is_gone_is_a_problem() -> None:
    server = PagingServer({"Plant": {}})
    gone = await browse(server, OpcuaNodes(root="ns=2;s=Plnt"), ua.NodeId("Plnt", 2), 10)  # type: ignore[arg-type]
    assert (gone.variables, gone.problems) == ([], ["ns=2;s=Plnt cannot be browsed: BadNodeIdUnknown"])
