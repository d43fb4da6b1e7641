"""OPC UA: a subscription to variables that are named or found by browsing."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from asyncua import Client, Node, ua
from asyncua.client.ua_client import UaClientState
from asyncua.crypto import security_policies

from aurum.edge import metrics
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import PLACEHOLDER, OpcuaInput, OpcuaNodes
from aurum.edge.inputs.common.reconnect import Reconnector
from aurum.edge.inputs.common.tags import Indices
from aurum.edge.inputs.common.throttled_log import ThrottledLog
from aurum.edge.inputs.opcua.changes import Changes, changes_of
from aurum.edge.inputs.opcua.subscription import DurableSubscription, Session
from aurum.runtime.errors import AurumError, UnavailableError

_AT_ONCE = 1000  # variables per request
_MOST_VARIABLES = 100_000
_MOST_DEPTH = 20
_ANSWER_WITHIN = 10.0  # seconds for one answer, such as to a request for a thousand variables
_BEGIN_WITHIN = 120.0  # seconds for browsing and subscribing
_LOST_AFTER = 120.0  # seconds without a connection after which a new session is begun
_MODES = {"Sign": ua.MessageSecurityMode.Sign, "SignAndEncrypt": ua.MessageSecurityMode.SignAndEncrypt}


@dataclass(frozen=True, slots=True)
class Variable:
    node: Node
    machine: str
    sensor: str


class Opcua:
    def __init__(self, options: OpcuaInput, collector: BatchBuilder, connector: Reconnector) -> None:
        self._collector = collector
        self._options = options
        self._connector = connector
        self._troubles = ThrottledLog(options.name)
        self._by_handle: dict[int, Variable] = {}
        self._indices: Indices = np.empty(0, np.int32)  # of tags, by handle
        self._generation = -1  # of those tags
        self._problem: str | None = None
        self._results = {
            result: metrics.edge_input_messages_total.labels(options.name, result)
            for result in ("read", "invalid", "gap")
        }

    async def run(self) -> None:
        await self._connector.keep(self._open, self._listen, _close)

    async def _open(self, timeout: float) -> Client:
        options = self._options
        client = Client(
            options.endpoint, timeout=max(timeout, _ANSWER_WITHIN), auto_reconnect=True, reconnect_max_delay=5.0
        )
        client.uaclient.session = Session(client.uaclient)
        client.application_uri = "urn:aurumai:edge"
        client.name = client.description = f"AurumAI edge {options.name}"
        self._by_handle.clear()
        self._generation = -1
        self._problem = None
        try:
            if options.username is not None:
                client.set_user(options.username)
                if options.password_file is not None:
                    client.set_password(options.password_file.read_text(encoding="utf-8").strip())
            if (security := options.security) is not None:
                await client.set_security(
                    getattr(security_policies, f"SecurityPolicy{security.policy.replace('_', '')}"),
                    str(security.certificate),
                    str(security.key),
                    server_certificate=str(security.server_certificate) if security.server_certificate else None,
                    mode=_MODES[security.mode],
                )
            await client.connect()
        except (OSError, TimeoutError, ua.UaError, ValueError) as error:
            await _close(client)
            what = str(error) or type(error).__name__
            raise UnavailableError(f"{options.endpoint} cannot be reached: {what}") from error
        except BaseException:
            client.disconnect_socket()  # there may be no time for an orderly disconnect
            raise
        return client

    async def _listen(self, client: Client) -> None:
        await self._begin(client)
        await self._watch(client)

    async def _begin(self, client: Client) -> None:
        """Subscribes to the variables. Raises UnavailableError if the server does not answer, or has no variables."""
        try:
            async with asyncio.timeout(_BEGIN_WITHIN):
                await self._subscribe(client, await self._variables(client))
        except (OSError, TimeoutError, ua.UaError) as error:
            what = str(error) or type(error).__name__
            raise UnavailableError(f"{self._options.endpoint} cannot be subscribed to: {what}") from error

    async def _variables(self, client: Client) -> list[Variable]:
        found = [Variable(client.get_node(each.node), each.machine, each.sensor) for each in self._options.nodes]
        for each in self._options.browse:
            found += await browse(client, each)
        if not found:
            raise UnavailableError(f"{self._options.endpoint} has no variable where browsing looks for some")
        if len(found) > _MOST_VARIABLES:
            raise UnavailableError(
                f"{self._options.endpoint} has {len(found)} variables; {_MOST_VARIABLES} are allowed"
            )
        return found

    async def _subscribe(self, client: Client, variables: Sequence[Variable]) -> None:
        period = self._options.publishing * 1000
        parameters = ua.CreateSubscriptionParameters()
        parameters.RequestedPublishingInterval = period
        parameters.RequestedLifetimeCount = 10_000
        parameters.RequestedMaxKeepAliveCount = client.get_keepalive_count(period)
        parameters.MaxNotificationsPerPublish = 10_000
        parameters.PublishingEnabled = True
        session = cast("Session", client.uaclient.session)
        subscription = DurableSubscription(session, parameters, self._take, self._results["gap"].inc, self._begin_anew)
        await subscription.init()
        client._subscriptions.append(subscription)  # so that the client restores it
        for start in range(0, len(variables), _AT_ONCE):
            part = variables[start : start + _AT_ONCE]
            requests = [
                subscription._make_monitored_item_request(
                    each.node,
                    ua.AttributeIds.Value,
                    None,
                    self._options.queue,
                    ua.MonitoringMode.Reporting,
                    ua.Double(self._options.sampling * 1000),
                )
                for each in part
            ]
            for request, each in zip(requests, part, strict=True):
                self._by_handle[request.RequestedParameters.ClientHandle] = each
            self._generation = -1
            answers = await subscription.create_monitored_items(requests)
            for answer, each in zip(answers, part, strict=True):
                if isinstance(answer, ua.StatusCode):
                    self._results["invalid"].inc()
                    self._troubles.tell(f"{each.node.nodeid.to_string()} cannot be subscribed to: {answer.name}")

    async def _watch(self, client: Client) -> None:
        """Watches the connection while the client keeps or restores it.

        Raises UnavailableError if it is lost for too long.
        """
        heard = time.monotonic()
        while True:
            await asyncio.sleep(0.5)
            if self._problem is not None:
                raise UnavailableError(self._problem)
            if client.state is UaClientState.CONNECTED:
                heard = time.monotonic()
                self._connector.reach.found()
            else:
                problem = f"the connection to {self._options.endpoint} is lost"
                if time.monotonic() - heard > _LOST_AFTER:
                    raise UnavailableError(problem)
                self._connector.reach.lost(problem)

    async def _take(self, notifications: Sequence[Any]) -> None:
        """Stores the changes, and returns when they are durable.

        If they cannot be stored, does not return, so that no more notifications are requested.
        """
        for notification in notifications:
            if isinstance(notification, ua.DataChangeNotification):
                notification = changes_of(notification)  # noqa: PLW2901
            if isinstance(notification, Changes):
                self._results["read"].inc()
                self._add(notification)
        try:
            durable = await self._collector.commit()
            if durable is not None:
                await durable
        except (AurumError, OSError) as error:
            self._begin_anew(f"readings cannot be kept: {error}")
            await asyncio.Event().wait()

    def _begin_anew(self, problem: str) -> None:
        self._problem = self._problem or problem

    def _add(self, changes: Changes) -> None:
        if self._generation != self._collector.tags.generation:
            self._look_up()
        known = changes.handles < len(self._indices)
        known[known] = self._indices[changes.handles[known]] >= 0
        self._collector.add_all(
            self._options.name,
            self._indices[changes.handles[known]],
            changes.at_us[known],
            changes.values[known],
            changes.good[known],
        )

    def _look_up(self) -> None:
        tags = self._collector.tags
        self._indices = np.full(max(self._by_handle, default=-1) + 1, -1, np.int32)
        for handle, each in self._by_handle.items():
            self._indices[handle] = tags.of(each.machine, each.sensor).index
        self._generation = tags.generation


async def browse(client: Client, nodes: OpcuaNodes) -> list[Variable]:
    """Finds the variables below a node whose path matches the description."""
    levels = nodes.path.split("/")
    found: list[Variable] = []

    async def descend(node: Node, depth: int, names: dict[str, str]) -> None:
        if depth >= min(len(levels), _MOST_DEPTH):
            return
        last = depth == len(levels) - 1
        for reference in await node.get_references(
            ua.ObjectIds.HierarchicalReferences, ua.BrowseDirection.Forward, ua.NodeClass.Unspecified, True
        ):
            name = reference.BrowseName.Name
            level = levels[depth]
            placeholder = PLACEHOLDER.fullmatch(level)
            if placeholder is None and level not in ("+", name):
                continue
            known = {**names, placeholder.group(1): name} if placeholder else names
            child = client.get_node(reference.NodeId)
            if last and reference.NodeClass is ua.NodeClass.Variable:
                found.append(Variable(child, nodes.machine.format_map(known), nodes.sensor.format_map(known)))
            elif not last and reference.NodeClass in (ua.NodeClass.Object, ua.NodeClass.Variable):
                await descend(child, depth + 1, known)
            if len(found) > _MOST_VARIABLES:
                return

    await descend(client.get_node(nodes.root), 0, {})
    return found


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(3):
            await client.disconnect()
    except (OSError, TimeoutError, ua.UaError):
        client.disconnect_socket()  # the server has disconnected first
