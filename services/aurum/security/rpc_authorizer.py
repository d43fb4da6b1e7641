"""Authentication and authorization of gRPC calls by client certificates."""

import contextvars
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from aurum.readings.batch import MAX_OWNER, Batch
from aurum.runtime.errors import InvalidArgumentError, PermissionDeniedError, UnauthenticatedError
from aurum.runtime.http.bind_policy import require_authentication
from aurum.runtime.settings import Settings, SettingsError
from aurum.runtime.telemetry.logging import get_request_context
from aurum.runtime.telemetry.tracing import name_caller
from aurum.security.clients import Client, ClientFileError, FollowedClients
from aurum.security.identity import EVERYBODY, Identity, Role
from aurum.security.permissions import PUBLIC, RPCS, RPCS_OF_WHOLE_PLANT
from aurum.v1 import ingestion_pb2


class CallPeer(Protocol):
    """The peer of a call, as gRPC's context describes it."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Returns the properties of the peer's certificate; empty without one."""


class KnownClients(Protocol):
    """The clients that a server knows."""

    def client_for(self, properties: Mapping[str, Iterable[bytes]]) -> Client | None:
        """Returns the client of a certificate, or None if it is unknown."""

    def client_named(self, name: str) -> Client | None:
        """Returns the client with a name, or None if there is none."""


@dataclass(frozen=True, slots=True)
class _AdmittedCall:
    """An admitted call.

    Attributes:
        clients: Where the client is looked up again during the call.
        name: The client's name.
        role: The role that the method requires.
    """

    clients: KnownClients
    name: str
    role: Role


_admitted_call: contextvars.ContextVar[_AdmittedCall | None] = contextvars.ContextVar("let", default=None)


class RpcAuthorizer:
    """Admits or refuses the calls to a gRPC server by the client's certificate."""

    def __init__(self, clients: KnownClients) -> None:
        self._clients = clients

    def __call__(self, method: str, peer: CallPeer) -> str | None:
        """Checks that a peer may call a method and returns a name for the caller.

        Returns:
            For a platform service, `user/NAME` of the user it calls for, or None if it calls on its own behalf. For any
            other client, `certificate/NAME`. An empty string for a public method.

        Raises:
            UnauthenticatedError: The certificate belongs to no known client.
            PermissionDeniedError: The client lacks the role, or is bound to some machines and the method concerns the
                whole plant, or the method is in no table.
        """
        if method not in RPCS:
            raise PermissionDeniedError(f"{method} is refused: the table of permissions does not contain it")
        required = RPCS[method]
        if required is PUBLIC:
            return ""
        client = _require_role(self._clients.client_for(peer.auth_context()), required)
        if method in RPCS_OF_WHOLE_PLANT and not client.may_access_all_machines:
            raise _whole_plant_error(client)
        _admitted_call.set(_AdmittedCall(self._clients, client.identity.user_id, required))
        if client.identity.has(Role.SERVICE):  # only services may call on behalf of a user
            user_id = get_request_context().get("user_id")
            return None if user_id is None else f"user/{user_id}"
        name_caller(client.identity.user_id)
        return f"certificate/{client.identity.user_id}"


def _require_role(client: Client | None, required: Role) -> Client:
    """Returns the client. Raises UnauthenticatedError if it is unknown, PermissionDeniedError if it lacks the role."""
    if client is None:
        raise UnauthenticatedError("the client's certificate is unknown (AURUM_RPC_CLIENTS_FILE)")
    if not client.identity.has(required):
        raise PermissionDeniedError(f"{client.identity.user_id} lacks the role {required.value} for this")
    return client


def _whole_plant_error(client: Client) -> PermissionDeniedError:
    """Returns the error for a client that is bound to some machines."""
    return PermissionDeniedError(
        f"{client.identity.user_id} is bound to some machines, and this concerns the whole plant"
    )


def _current_client() -> Client | None:
    """Returns the calling client by the present clients file, or None if the server does not authenticate clients.

    The file may have changed since a stream began, so the client is looked up each time.

    Raises:
        UnauthenticatedError: The client is not in the file any more.
        PermissionDeniedError: The client has lost the required role.
    """
    let = _admitted_call.get()
    return None if let is None else _require_role(let.clients.client_named(let.name), let.role)


def current_caller() -> Identity:
    """Returns the identity of the caller: the user for whom a platform service calls, else the client itself."""
    client = _current_client()
    user_id = get_request_context().get("user_id")
    if client is None:
        return EVERYBODY if user_id is None else replace(EVERYBODY, user_id=user_id)
    if user_id is not None and client.identity.has(Role.SERVICE):
        return replace(client.identity, user_id=user_id)
    return client.identity


def with_caller_as_owner(batch: Batch) -> Batch:
    """Returns the batch with the present caller as its owner.

    A platform service states the owner itself. For any other client, such as a third party's gateway, the stated owner
    is prefixed with the client's own.

    Raises:
        PermissionDeniedError: The client is bound to other sources or machines.
    """
    client = _current_client()
    if client is None:
        return batch
    if not client.may_use_source(batch.source_id):
        raise PermissionDeniedError(f"{client.identity.user_id} may not use source {batch.source_id!r}")
    require_machines(batch.keys.machine_ids)
    if client.identity.has(Role.SERVICE):
        return batch
    return batch.with_owner(_owner_within(client, batch.owner, "batch.owner"))


def required_owner(stated: str) -> str:
    """Returns the owner that must own all sources of a machine for the present caller to register it.

    An empty owner allows any sources. It is returned for a client that is bound to nothing.

    Args:
        stated: The owner that the request states, see `with_caller_as_owner`.

    Raises:
        InvalidArgumentError: The owner is too long.
    """
    client = _current_client()
    if client is None or client.identity.has(Role.SERVICE):
        if len(stated) > MAX_OWNER:
            raise InvalidArgumentError.for_field("owner", f"must have at most {MAX_OWNER} characters")
        return stated
    return _owner_within(client, stated, "owner") if client.bound or stated else ""


def _owner_within(client: Client, stated: str, field: str) -> str:
    """Returns the owner of a client's sources, followed by the stated owner. Raises InvalidArgumentError."""
    owner = client.owner if not stated else f"{client.owner}/{stated}"
    if len(owner) > MAX_OWNER:
        raise InvalidArgumentError.for_field(
            field, f"is too long; {MAX_OWNER} characters are allowed with the client's"
        )
    return owner


def require_machines(machine_ids: Iterable[str]) -> None:
    """Raises PermissionDeniedError if the present client is not allowed to access one of the machines."""
    client = _current_client()
    if client is None:
        return
    for machine_id in machine_ids:
        if not client.may_access_machine(machine_id):
            raise PermissionDeniedError(f"{client.identity.user_id} may not access machine {machine_id!r}")


def require_subject(machine_id: str) -> None:
    """Raises PermissionDeniedError if the present client may not access the machine of an event.

    An event without a machine concerns the whole plant and requires access to all machines.
    """
    if machine_id:
        require_machines([machine_id])
    elif (client := _current_client()) is not None and not client.may_access_all_machines:
        raise _whole_plant_error(client)


def may_see_machine(machine_id: str) -> bool:
    """Whether lists and streams for the present caller may contain a machine."""
    client = _current_client()
    return client is None or client.may_access_machine(machine_id)


def machine_filter() -> Callable[[str], bool] | None:
    """Returns a filter of the machines that streams for the present caller may contain; None if they may contain all.

    The filters of two calls are equal as long as the caller's permissions have not changed.

    Raises:
        UnauthenticatedError: The client is not in the clients file any more.
        PermissionDeniedError: The client has lost the required role.
    """
    client = _current_client()
    return None if client is None or client.may_access_all_machines else client.may_access_machine


def may_read() -> bool:
    """Whether the present caller may see readings. Clients that only send may not."""
    client = _current_client()
    return client is None or client.identity.has(Role.VIEWER)


def without_hidden_readings(machine: ingestion_pb2.Machine) -> ingestion_pb2.Machine:
    """Returns a registered machine for its registrant, without readings if the caller may not see them."""
    if not may_read():
        for field in ("sensors", "sensor_count", "first_seen_us", "last_seen_us"):
            machine.ClearField(field)
    return machine


def rpc_authorizer(settings: Settings, host: str, setting: str) -> RpcAuthorizer | None:
    """Makes the authorizer of a gRPC server by the settings; None if the server does not authenticate clients.

    Raises:
        SettingsError: A server without authentication would listen on more than this machine without explicit
            permission, or the clients file is missing or invalid.
    """
    if settings.rpc_tls_folder is None:
        instead = "AURUM_RPC_TLS_FOLDER and AURUM_RPC_CLIENTS_FILE"
        require_authentication(host, setting, openness=settings.rpc_open, name="AURUM_RPC_OPEN", instead=instead)
        return None
    if settings.rpc_clients_file is None:
        raise SettingsError(
            "AURUM_RPC_CLIENTS_FILE is required, since AURUM_RPC_TLS_FOLDER is set; set it to the file of clients"
        )
    try:
        return RpcAuthorizer(FollowedClients(settings.rpc_clients_file))
    except ClientFileError as error:
        raise SettingsError(f"AURUM_RPC_CLIENTS_FILE: {error}") from error
