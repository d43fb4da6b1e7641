"""Calls of OPC UA services in parts that a server accepts.

Small controllers limit the number of operations in a call (OPC 10000-5, 6.3.11: OperationLimitsType). Some limit it
without saying so, and refuse a call as a whole.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from asyncua import ua
from asyncua.common.session_interface import AbstractSession

Operation = TypeVar("Operation")
Result = TypeVar("Result")

# Operations in a call if the server has no limit. A node that is browsed has many references, and a server that is busy
# with an answer for seconds does not answer the client's sign of life
_MAX_READ, _MAX_BROWSE, _MAX_MONITOR = 1000, 10, 200
_TOO_MANY = frozenset({
    ua.StatusCodes.BadTooManyOperations,
    ua.StatusCodes.BadEncodingLimitsExceeded,
    ua.StatusCodes.BadRequestTooLarge,
    ua.StatusCodes.BadResponseTooLarge,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class OperationLimits:
    """The number of operations that one call may have.

    Attributes:
        read: Nodes of a Read.
        browse: Nodes of a Browse.
        monitor: Items of a CreateMonitoredItems.
    """

    read: int = _MAX_READ
    browse: int = _MAX_BROWSE
    monitor: int = _MAX_MONITOR


async def call_in_parts(
    call: Callable[[Sequence[Operation]], Awaitable[Sequence[Result]]], operations: Sequence[Operation], size: int
) -> list[Result]:
    """Calls a service as often as necessary, with smaller parts if the server refuses one because of its size.

    Args:
        call: Calls the service.
        operations: All operations.
        size: The number of operations in a part, unless the server refuses that.

    Returns:
        The results in the order of the operations.

    Raises:
        UaError: If a call fails for another reason, or with a single operation.
    """
    results: list[Result] = []
    while len(results) < len(operations):
        part = operations[len(results) : len(results) + size]
        try:
            answers = await call(part)
        except ua.UaError as error:
            if getattr(error, "code", None) not in _TOO_MANY or len(part) == 1:
                raise
            size = len(part) // 2
            continue
        if len(answers) != len(part):
            raise ua.UaError(f"the server answered {len(part)} operations with {len(answers)} results")
        results += answers
    return results


async def read_values(
    session: AbstractSession, nodes: Sequence[ua.NodeId], size: int = _MAX_READ
) -> list[ua.DataValue]:
    """Reads the values of nodes. Raises UaError."""

    async def read(part: Sequence[ua.NodeId]) -> list[ua.DataValue]:
        parameters = ua.ReadParameters()
        parameters.NodesToRead = [ua.ReadValueId(node, ua.AttributeIds.Value) for node in part]
        results: list[ua.DataValue] = await session.read(parameters)
        return results

    return await call_in_parts(read, nodes, size)


async def read_operation_limits(session: AbstractSession) -> OperationLimits:
    """Reads the server's limits. Those that it does not have or does not give are this module's. Raises UaError."""
    ids = ua.ObjectIds
    nodes = [
        ua.NodeId(ua.Int32(number))
        for number in (
            ids.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
            ids.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
            ids.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
        )
    ]
    # One by one, because the limit of this call is not known yet
    read, browse, monitor = [_limit(value) for value in await read_values(session, nodes, size=1)]
    return OperationLimits(
        min(read or _MAX_READ, _MAX_READ),
        min(browse or _MAX_BROWSE, _MAX_BROWSE),
        min(monitor or _MAX_MONITOR, _MAX_MONITOR),
    )


def _limit(value: ua.DataValue) -> int:
    """Returns a limit; 0 if there is none."""
    limit = value.Value.Value if value.Value is not None else None
    good = value.StatusCode is None or value.StatusCode.is_good()
    return limit if good and isinstance(limit, int) and limit > 0 else 0
