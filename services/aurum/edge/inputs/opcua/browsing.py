"""Finds the variables of an OPC UA server by the browse names on the way to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncua import ua
from asyncua.common.session_interface import AbstractSession

from aurum.edge.inputs.common.configuration import PLACEHOLDER, OpcuaNodes
from aurum.edge.inputs.opcua.service_calls import call_in_parts
from aurum.runtime.errors import UnavailableError

MAX_VARIABLES = 100_000
_MAX_DEPTH = 20
_MAX_REFERENCES = 1000  # of a node in one answer


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the server, with the machine and sensor that it belongs to."""

    node: ua.NodeId
    machine: str
    sensor: str


@dataclass(slots=True)
class Found:
    """What browsing has found.

    Attributes:
        variables: The variables, each node once.
        problems: The nodes that could not be browsed, and why.
    """

    variables: list[Variable] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def browse(session: AbstractSession, nodes: OpcuaNodes, root: ua.NodeId, size: int) -> Found:
    """Finds the variables below a node whose path matches the description.

    Args:
        session: The session.
        nodes: The description.
        root: The node at which its path begins.
        size: The number of nodes that one call may browse.

    Raises:
        UaError: If the server does not answer.
        UnavailableError: If there are more than 100,000 variables.
    """
    levels = nodes.path.split("/")[:_MAX_DEPTH]
    found = Found()
    frontier: dict[ua.NodeId, dict[str, str]] = {root: {}}
    for depth, level in enumerate(levels):
        is_last = depth == len(levels) - 1
        results = await _browse_nodes(session, list(frontier), size)
        below: dict[ua.NodeId, dict[str, str]] = {}
        for (node, names), result in zip(frontier.items(), results, strict=True):
            if not result.StatusCode.is_good():
                found.problems.append(f"{node.to_string()} cannot be browsed: {result.StatusCode.name}")
            for reference in result.References or []:
                if (
                    _is_wanted(reference, is_variable=is_last)
                    and (resolved := _match(level, reference, names)) is not None
                ):
                    below.setdefault(_plain(reference.NodeId), resolved)
        if len(below) > MAX_VARIABLES:
            raise UnavailableError(
                f"{nodes.root} has more than {MAX_VARIABLES} nodes at {'/'.join(levels[: depth + 1])}"
            )
        frontier = below
    found.variables = [
        Variable(node, nodes.machine.format_map(names), nodes.sensor.format_map(names))
        for node, names in frontier.items()
    ]
    return found


def _is_wanted(reference: ua.ReferenceDescription, *, is_variable: bool) -> bool:
    if getattr(reference.NodeId, "ServerIndex", None):
        return False  # a node of another server
    if is_variable:
        return bool(reference.NodeClass is ua.NodeClass.Variable)
    return reference.NodeClass in (ua.NodeClass.Object, ua.NodeClass.Variable)


def _match(level: str, reference: ua.ReferenceDescription, names: dict[str, str]) -> dict[str, str] | None:
    """Returns the names up to a node whose browse name matches a level of the path. None if it does not match."""
    name = reference.BrowseName.Name or ""
    placeholder = PLACEHOLDER.fullmatch(level)
    if placeholder is not None:
        return {**names, placeholder.group(1): name}
    return names if level in ("+", name) else None


def _plain(node: ua.NodeId) -> ua.NodeId:
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)


async def _browse_nodes(session: AbstractSession, nodes: Sequence[ua.NodeId], size: int) -> list[ua.BrowseResult]:
    """Returns the references of each node, all pages of them."""

    async def call(part: Sequence[ua.NodeId]) -> list[ua.BrowseResult]:
        parameters = ua.BrowseParameters()
        parameters.View.Timestamp = ua.get_win_epoch()
        parameters.RequestedMaxReferencesPerNode = _MAX_REFERENCES
        parameters.NodesToBrowse = [_description(node) for node in part]
        results: list[ua.BrowseResult] = await session.browse(parameters)
        for result in results:
            await _read_further_pages(session, result)
        return results

    results = await call_in_parts(call, nodes, size)
    for position, result in enumerate(results):
        # The server can keep fewer unfinished answers than there were nodes in the call
        if result.StatusCode.value == ua.StatusCodes.BadNoContinuationPoints and len(nodes) > 1:
            (results[position],) = await call([nodes[position]])
    return results


async def _read_further_pages(session: AbstractSession, result: ua.BrowseResult) -> None:
    while result.ContinuationPoint:
        parameters = ua.BrowseNextParameters()
        parameters.ContinuationPoints = [result.ContinuationPoint]
        parameters.ReleaseContinuationPoints = False
        (page,) = await session.browse_next(parameters)
        result.StatusCode, result.ContinuationPoint = page.StatusCode, page.ContinuationPoint
        result.References = [*(result.References or []), *(page.References or [])]


def _description(node: ua.NodeId) -> ua.BrowseDescription:
    description = ua.BrowseDescription()
    description.NodeId = node
    description.BrowseDirection = ua.BrowseDirection.Forward
    description.ReferenceTypeId = ua.NodeId(ua.Int32(ua.ObjectIds.HierarchicalReferences))
    description.IncludeSubtypes = True
    description.NodeClassMask = ua.NodeClass.Unspecified
    description.ResultMask = ua.BrowseResultMask.All
    return description
