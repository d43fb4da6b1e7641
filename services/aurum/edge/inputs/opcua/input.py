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
from aurum.edge.inputs.opcua.changes import Changes, changes_from_notification
from aurum.edge.inputs.opcua.subscription import DurableSubscription, Session
from aurum.runtime.errors import AurumError, UnavailableError

_MAX_PER_REQUEST = 1000  # variables per request
_MAX_VARIABLES = 100_000
_MAX_DEPTH = 20
_REQUEST_TIMEOUT = 10.0  # seconds; a request for a thousand variables takes long
_START_TIMEOUT = 120.0  # seconds for browsing and subscribing
_SESSION_TIMEOUT = 120.0  # seconds without a connection after which a new session is created
_MODES = {"Sign": ua.MessageSecurityMode.Sign, "SignAndEncrypt": ua.MessageSecurityMode.SignAndEncrypt}


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the server, with the machine and sensor that it belongs to."""

    node: Node
    machine: str
    sensor: str


class Opcua:
    """An input that subscribes to the variables of one server."""

    def __init__(self, options: OpcuaInput, builder: BatchBuilder, reconnector: Reconnector) -> None:
        self._builder = builder
        self._options = options
        self._reconnector = reconnector
        self._throttled_log = ThrottledLog(options.name)
        self._by_handle: dict[int, Variable] = {}
        self._indices: Indices = np.empty(0, np.int32)  # of tags, by handle
        self._generation = -1  # of those tags
        self._problem: str | None = None
        self._results = {
            result: metrics.edge_input_messages_total.labels(options.name, result)
            for result in ("read", "invalid", "gap")
        }

    async def run(self) -> None:
        """Consumes notifications, and reconnects, until cancelled."""
        await self._reconnector.run(self._open, self._run_session, _close)

    async def _open(self, timeout: float) -> Client:
        options = self._options
        client = Client(
            options.endpoint, timeout=max(timeout, _REQUEST_TIMEOUT), auto_reconnect=True, reconnect_max_delay=5.0
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
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"{options.endpoint} cannot be reached: {reason}") from error
        except BaseException:
            client.disconnect_socket()  # there may be no time for an orderly disconnect
            raise
        return client

    async def _run_session(self, client: Client) -> None:
        await self._start_subscription(client)
        await self._watch_connection(client)

    async def _start_subscription(self, client: Client) -> None:
        """Subscribes to the variables. Raises UnavailableError if the server does not answer, or has no variables."""
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                await self._subscribe(client, await self._variables(client))
        except (OSError, TimeoutError, ua.UaError) as error:
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"the subscription to {self._options.endpoint} failed: {reason}") from error

    async def _variables(self, client: Client) -> list[Variable]:
        variables = [
            Variable(client.get_node(nodes.node), nodes.machine, nodes.sensor) for nodes in self._options.nodes
        ]
        for nodes in self._options.browse:
            variables += await browse(client, nodes)
        if not variables:
            raise UnavailableError(f"{self._options.endpoint} has no variables that match the configuration")
        if len(variables) > _MAX_VARIABLES:
            raise UnavailableError(
                f"{self._options.endpoint} has {len(variables)} variables; at most {_MAX_VARIABLES} are allowed"
            )
        return variables

    async def _subscribe(self, client: Client, variables: Sequence[Variable]) -> None:
        period = self._options.publishing * 1000
        parameters = ua.CreateSubscriptionParameters()
        parameters.RequestedPublishingInterval = period
        parameters.RequestedLifetimeCount = 10_000
        parameters.RequestedMaxKeepAliveCount = client.get_keepalive_count(period)
        parameters.MaxNotificationsPerPublish = 10_000
        parameters.PublishingEnabled = True
        session = cast("Session", client.uaclient.session)
        subscription = DurableSubscription(session, parameters, self._store, self._results["gap"].inc, self._restart)
        await subscription.init()
        client._subscriptions.append(subscription)  # so that the client restores it
        for start in range(0, len(variables), _MAX_PER_REQUEST):
            part = variables[start : start + _MAX_PER_REQUEST]
            requests = [
                subscription._make_monitored_item_request(
                    variable.node,
                    ua.AttributeIds.Value,
                    None,
                    self._options.queue,
                    ua.MonitoringMode.Reporting,
                    ua.Double(self._options.sampling * 1000),
                )
                for variable in part
            ]
            for request, variable in zip(requests, part, strict=True):
                self._by_handle[request.RequestedParameters.ClientHandle] = variable
            self._generation = -1
            answers = await subscription.create_monitored_items(requests)
            for answer, variable in zip(answers, part, strict=True):
                if isinstance(answer, ua.StatusCode):
                    self._results["invalid"].inc()
                    self._throttled_log.warn(
                        f"{variable.node.nodeid.to_string()} was refused by the server: {answer.name}"
                    )

    async def _watch_connection(self, client: Client) -> None:
        """Watches the connection while the client keeps or restores it.

        Raises UnavailableError if it is lost for too long.
        """
        connected_at = time.monotonic()
        while True:
            await asyncio.sleep(0.5)
            if self._problem is not None:
                raise UnavailableError(self._problem)
            if client.state is UaClientState.CONNECTED:
                connected_at = time.monotonic()
                self._reconnector.status.mark_connected()
            else:
                problem = f"the connection to {self._options.endpoint} is lost"
                if time.monotonic() - connected_at > _SESSION_TIMEOUT:
                    raise UnavailableError(problem)
                self._reconnector.status.mark_lost(problem)

    async def _store(self, notifications: Sequence[Any]) -> None:
        """Stores the changes, and returns when they are durable.

        If they cannot be stored, does not return, so that no more notifications are requested.
        """
        for notification in notifications:
            if isinstance(notification, ua.DataChangeNotification):
                notification = changes_from_notification(notification)  # noqa: PLW2901
            if isinstance(notification, Changes):
                self._results["read"].inc()
                self._add_changes(notification)
        try:
            durable = await self._builder.commit()
            if durable is not None:
                await durable
        except (AurumError, OSError) as error:
            self._restart(f"readings cannot be stored: {error}")
            await asyncio.Event().wait()

    def _restart(self, problem: str) -> None:
        self._problem = self._problem or problem

    def _add_changes(self, changes: Changes) -> None:
        if self._generation != self._builder.tags.generation:
            self._update_tag_indices()
        monitored = changes.handles < len(self._indices)
        monitored[monitored] = self._indices[changes.handles[monitored]] >= 0
        self._builder.add_values(
            self._options.name,
            self._indices[changes.handles[monitored]],
            changes.at_us[monitored],
            changes.values[monitored],
            changes.good[monitored],
        )

    def _update_tag_indices(self) -> None:
        tags = self._builder.tags
        self._indices = np.full(max(self._by_handle, default=-1) + 1, -1, np.int32)
        for handle, variable in self._by_handle.items():
            self._indices[handle] = tags.tag_for(variable.machine, variable.sensor).index
        self._generation = tags.generation


async def browse(client: Client, nodes: OpcuaNodes) -> list[Variable]:
    """Finds the variables below a node whose path matches the description."""
    levels = nodes.path.split("/")
    variables: list[Variable] = []

    async def descend(node: Node, depth: int, names: dict[str, str]) -> None:
        if depth >= min(len(levels), _MAX_DEPTH):
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
            resolved = {**names, placeholder.group(1): name} if placeholder else names
            child = client.get_node(reference.NodeId)
            if last and reference.NodeClass is ua.NodeClass.Variable:
                variables.append(Variable(child, nodes.machine.format_map(resolved), nodes.sensor.format_map(resolved)))
            elif not last and reference.NodeClass in (ua.NodeClass.Object, ua.NodeClass.Variable):
                await descend(child, depth + 1, resolved)
            if len(variables) > _MAX_VARIABLES:
                return

    await descend(client.get_node(nodes.root), 0, {})
    return variables


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(3):
            await client.disconnect()
    except (OSError, TimeoutError, ua.UaError):
        client.disconnect_socket()  # the server has disconnected first
