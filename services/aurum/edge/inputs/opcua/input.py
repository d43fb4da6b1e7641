"""OPC UA: a subscription to variables that are named or found by browsing."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from asyncua import Client, ua
from asyncua.client.ua_client import UaClientState
from asyncua.common.node import Node
from asyncua.crypto import security_policies

from aurum.edge import metrics
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import OpcuaInput, OpcuaNode, OpcuaNodes
from aurum.edge.inputs.common.reconnect import Reconnector
from aurum.edge.inputs.opcua.browsing import MAX_VARIABLES, Variable, browse
from aurum.edge.inputs.opcua.changes import Changes, changes_from_notification
from aurum.edge.inputs.opcua.monitored import MonitoredVariables
from aurum.edge.inputs.opcua.namespaces import RememberedNamespaces, UnknownNamespaceError
from aurum.edge.inputs.opcua.service_calls import (
    OperationLimits,
    call_in_parts,
    read_operation_limits,
    read_values,
)
from aurum.edge.inputs.opcua.subscription import DurableSubscription, Session
from aurum.runtime.errors import AurumError, UnavailableError

_REQUEST_TIMEOUT = 10.0  # seconds; a request for a thousand variables takes long
_SIGN_OF_LIFE = (
    3.0  # seconds, between two requests for it and until its answer; a busy controller takes longer than one
)
_START_TIMEOUT = 120.0  # seconds for browsing and subscribing
_SESSION_TIMEOUT = 120.0  # seconds without a connection after which a new session is created
_RETRY_MISSING = 60.0  # seconds until what the server did not have is looked for again
_MODES = {"Sign": ua.MessageSecurityMode.Sign, "SignAndEncrypt": ua.MessageSecurityMode.SignAndEncrypt}


class _GrantedTimeoutFilter(logging.Filter):
    """Leaves out the library's warning that a server grants another session timeout than requested.

    The client uses the granted one, so nothing is wrong. The warning would be repeated at each connection, and states
    the timeout of the channel in place of the requested one.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("Requested session timeout")


_GRANTED_TIMEOUT_FILTER = _GrantedTimeoutFilter()


@dataclass(slots=True)
class _Link:
    """A connection to the server.

    Attributes:
        client: The client.
        limits: What the server accepts in one call.
        subscription: The subscription; None until it is created.
        missing: Why parts of the configuration are not read.
    """

    client: Client
    limits: OperationLimits = field(default_factory=OperationLimits)
    subscription: DurableSubscription | None = None
    missing: dict[OpcuaNode | OpcuaNodes, list[str]] = field(default_factory=dict)

    @property
    def session(self) -> Session:
        """The session of the client."""
        return cast("Session", self.client.uaclient.session)


class Opcua:
    """An input that subscribes to the variables of one server."""

    def __init__(
        self, options: OpcuaInput, builder: BatchBuilder, reconnector: Reconnector, state_folder: Path
    ) -> None:
        logging.getLogger("asyncua.client.client").addFilter(_GRANTED_TIMEOUT_FILTER)
        self._builder = builder
        self._options = options
        self._reconnector = reconnector
        self._namespaces = RememberedNamespaces(state_folder / f"{options.name}.namespaces", options.endpoint)
        self._monitored = MonitoredVariables(options.name, builder)
        self._problem: str | None = None
        self._results = {
            result: metrics.edge_input_messages_total.labels(options.name, result)
            for result in ("read", "invalid", "gap")
        }

    async def run(self) -> None:
        """Consumes notifications, and reconnects, until cancelled."""
        await self._reconnector.run(self._open, self._watch_connection, _close, prepare=self._start_subscription)

    async def _open(self, timeout: float) -> _Link:
        options = self._options
        client = Client(
            options.endpoint,
            timeout=max(timeout, _REQUEST_TIMEOUT),
            watchdog_intervall=_SIGN_OF_LIFE,
            auto_reconnect=True,
            reconnect_max_delay=5.0,
        )
        client.uaclient.session = Session(client.uaclient)
        client.application_uri = "urn:aurumai:edge"
        client.name = client.description = f"AurumAI edge {options.name}"
        self._monitored.clear()
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
            await _disconnect(client)
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"{options.endpoint} cannot be reached: {reason}") from error
        except BaseException:
            client.disconnect_socket()  # there may be no time for an orderly disconnect
            raise
        return _Link(client)

    async def _start_subscription(self, link: _Link) -> None:
        """Subscribes to the variables. Raises UnavailableError if the server does not answer, or has no variables."""
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                link.limits = await read_operation_limits(link.session)
                # Before the namespaces are read: if the server restarts after that, it does not know the subscription,
                # so that nothing is monitored under an index that has another meaning then
                link.subscription = await self._create_subscription(link)
                await self._look_for(link, (*self._options.nodes, *self._options.browse))
        except (OSError, TimeoutError, ua.UaError) as error:
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"the subscription to {self._options.endpoint} failed: {reason}") from error
        if not self._monitored:
            raise UnavailableError(
                f"{self._options.endpoint} has no variables that match the configuration: "
                f"{'; '.join(problem for problems in link.missing.values() for problem in problems[:1])[:1000]}"
            )

    async def _create_subscription(self, link: _Link) -> DurableSubscription:
        period = self._options.publishing * 1000
        parameters = ua.CreateSubscriptionParameters()
        parameters.RequestedPublishingInterval = period
        parameters.RequestedLifetimeCount = 10_000
        parameters.RequestedMaxKeepAliveCount = link.client.get_keepalive_count(period)
        parameters.MaxNotificationsPerPublish = 10_000
        parameters.PublishingEnabled = True
        subscription = DurableSubscription(
            link.session, parameters, self._store, self._results["gap"].inc, self._restart
        )
        await subscription.init()
        link.client._subscriptions.append(subscription)  # so that the client restores it
        return subscription

    async def _look_for(self, link: _Link, entries: Sequence[OpcuaNode | OpcuaNodes]) -> None:
        """Subscribes to what the server has of these parts of the configuration, and records what it does not have."""
        (value,) = await read_values(link.session, [ua.NodeId(ua.Int32(ua.ObjectIds.Server_NamespaceArray))])
        namespaces = [str(uri) for uri in (value.Value.Value if value.Value is not None else None) or ()]
        found: dict[Variable, OpcuaNode | OpcuaNodes] = {}
        for entry in entries:
            link.missing.pop(entry, None)
            variables, problems = await self._find(link, entry, namespaces)
            found |= dict.fromkeys(variables, entry)
            if problems:
                link.missing[entry] = problems
        variables = self._monitored.without_known(found)
        if (count := len(self._monitored) + len(variables)) > MAX_VARIABLES:
            raise UnavailableError(
                f"{self._options.endpoint} has {count} variables; at most {MAX_VARIABLES} are allowed"
            )
        for variable, status in (await self._subscribe(link, variables)).items():
            self._results["invalid"].inc()
            text = f"{variable.node.to_string()} was refused by the server: {status}"
            link.missing.setdefault(found[variable], []).append(text)
        self._reconnector.status.mark_missing([problem for problems in link.missing.values() for problem in problems])

    async def _find(
        self, link: _Link, entry: OpcuaNode | OpcuaNodes, namespaces: Sequence[str]
    ) -> tuple[list[Variable], list[str]]:
        """Returns the variables that a part of the configuration names, and what the server does not have."""
        text = entry.node if isinstance(entry, OpcuaNode) else entry.root
        try:
            node = self._namespaces.resolve(text, namespaces)
        except UnknownNamespaceError as error:
            return [], [f"{text} is not read: {error}"]
        if isinstance(entry, OpcuaNode):
            return [Variable(node, entry.machine, entry.sensor)], []
        found = await browse(link.session, entry, node, link.limits.browse)
        if not found.variables and not found.problems:
            found.problems.append(f"browsing {text} finds no variable at {entry.path}")
        return found.variables, found.problems

    async def _subscribe(self, link: _Link, variables: Sequence[Variable]) -> dict[Variable, str]:
        """Subscribes to variables. Returns the refused ones with the name of their status."""
        if (subscription := link.subscription) is None:
            raise UnavailableError(f"there is no subscription to {self._options.endpoint}")
        requests = [
            subscription._make_monitored_item_request(
                Node(link.session, variable.node),
                ua.AttributeIds.Value,
                None,
                self._options.queue,
                ua.MonitoringMode.Reporting,
                ua.Double(self._options.sampling * 1000),
            )
            for variable in variables
        ]
        handles = [int(request.RequestedParameters.ClientHandle) for request in requests]
        self._monitored.add(handles, variables)  # before the first notification about them
        answers = await call_in_parts(subscription.create_monitored_items, requests, link.limits.monitor)
        refused: dict[Variable, str] = {}
        for handle, variable, answer in zip(handles, variables, answers, strict=True):
            if isinstance(answer, ua.StatusCode):
                self._monitored.remove(handle)
                refused[variable] = answer.name
        return refused

    async def _watch_connection(self, link: _Link) -> None:
        """Watches the connection while the client keeps or restores it.

        Raises UnavailableError if it is lost for too long.
        """
        connected_at = looked_at = time.monotonic()
        while True:
            await asyncio.sleep(0.5)
            if self._problem is not None:
                raise UnavailableError(self._problem)
            if link.client.state is UaClientState.CONNECTED:
                connected_at = time.monotonic()
                self._reconnector.status.mark_connected()
                if link.missing and time.monotonic() - looked_at > _RETRY_MISSING:
                    await self._look_for_missing(link)
                    looked_at = time.monotonic()
            else:
                problem = f"the connection to {self._options.endpoint} is lost"
                if time.monotonic() - connected_at > _SESSION_TIMEOUT:
                    raise UnavailableError(problem)
                self._reconnector.status.mark_lost(problem)

    async def _look_for_missing(self, link: _Link) -> None:
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                await self._look_for(link, list(link.missing))
        except (OSError, TimeoutError, ua.UaError) as error:
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"browsing {self._options.endpoint} failed: {reason}") from error

    async def _store(self, notifications: Sequence[Any]) -> None:
        """Stores the changes, and returns when they are durable.

        If they cannot be stored, does not return, so that no more notifications are requested.
        """
        for notification in notifications:
            if isinstance(notification, ua.DataChangeNotification):
                notification = changes_from_notification(notification)  # noqa: PLW2901
            if isinstance(notification, Changes):
                self._results["read"].inc()
                self._monitored.add_changes(notification)
        try:
            durable = await self._builder.commit()
            if durable is not None:
                await durable
        except (AurumError, OSError) as error:
            self._restart(f"readings cannot be stored: {error}")
            await asyncio.Event().wait()

    def _restart(self, problem: str) -> None:
        self._problem = self._problem or problem


async def _close(link: _Link) -> None:
    await _disconnect(link.client)


async def _disconnect(client: Client) -> None:
    try:
        async with asyncio.timeout(3):
            await client.disconnect()
    except (OSError, TimeoutError, ua.UaError):
        client.disconnect_socket()  # the server has disconnected first
