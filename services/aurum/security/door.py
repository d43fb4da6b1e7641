"""Authentication and authorization of gRPC calls by client certificates."""

import contextvars
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from aurum.readings.batch import MAX_OWNER, Batch
from aurum.runtime.errors import InvalidArgumentError, PermissionDeniedError, UnauthenticatedError
from aurum.runtime.exposure import require_closed
from aurum.runtime.logging import get_request_context
from aurum.runtime.settings import Settings, SettingsError
from aurum.runtime.tracing import name_caller
from aurum.security.access import PUBLIC, RPCS, RPCS_OF_WHOLE_PLANT
from aurum.security.clients import Client, ClientFileError, FollowedClients
from aurum.security.identity import EVERYBODY, Identity, Role
from aurum.v1 import ingestion_pb2


class Peer(Protocol):
    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...


class KnownClients(Protocol):
    def of(self, properties: Mapping[str, Iterable[bytes]]) -> Client | None: ...

    def named(self, name: str) -> Client | None: ...


@dataclass(frozen=True, slots=True)
class _Let:
    """An admitted call.

    Attributes:
        clients: Where the client is looked up again during the call.
        name: The client's name.
        role: The role that the method requires.
    """

    clients: KnownClients
    name: str
    role: Role


_let: contextvars.ContextVar[_Let | None] = contextvars.ContextVar("let", default=None)


class Door:
    """Admits or refuses the calls to a gRPC server by the client's certificate."""

    def __init__(self, clients: KnownClients) -> None:
        self._clients = clients

    def __call__(self, method: str, peer: Peer) -> str | None:
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
            raise PermissionDeniedError(f"{method} is closed: no role is known to open it")
        wanted = RPCS[method]
        if wanted is PUBLIC:
            return ""
        client = _entitled(self._clients.of(peer.auth_context()), wanted)
        if method in RPCS_OF_WHOLE_PLANT and not client.speaks_for_all_machines:
            raise _of_whole_plant(client)
        _let.set(_Let(self._clients, client.identity.user_id, wanted))
        if client.identity.has(Role.SERVICE):  # only services may call on behalf of a user
            user_id = get_request_context().get("user_id")
            return None if user_id is None else f"user/{user_id}"
        name_caller(client.identity.user_id)
        return f"certificate/{client.identity.user_id}"


def _entitled(client: Client | None, wanted: Role) -> Client:
    if client is None:
        raise UnauthenticatedError("the client's certificate is none that is known here (AURUM_RPC_CLIENTS_FILE)")
    if not client.identity.has(wanted):
        raise PermissionDeniedError(f"{client.identity.user_id} lacks the role {wanted.value} for this")
    return client


def _of_whole_plant(client: Client) -> PermissionDeniedError:
    return PermissionDeniedError(
        f"{client.identity.user_id} speaks for some machines only, and this is of the plant as a whole"
    )


def _client() -> Client | None:
    """Returns the calling client by the present clients file, or None if the server does not authenticate clients.

    The file may have changed since a stream began, so the client is looked up each time.

    Raises:
        UnauthenticatedError: The client is not in the file any more.
        PermissionDeniedError: The client has lost the required role.
    """
    let = _let.get()
    return None if let is None else _entitled(let.clients.named(let.name), let.role)


def present_caller() -> Identity:
    """Returns the identity of the caller: the user for whom a platform service calls, else the client itself."""
    client = _client()
    user_id = get_request_context().get("user_id")
    if client is None:
        return EVERYBODY if user_id is None else replace(EVERYBODY, user_id=user_id)
    if user_id is not None and client.identity.has(Role.SERVICE):
        return replace(client.identity, user_id=user_id)
    return client.identity


def as_callers(batch: Batch) -> Batch:
    """Returns the batch with the present caller as its owner.

    A platform service states the owner itself. For any other client, such as a third party's gateway, the stated owner
    is prefixed with the client's own.

    Raises:
        PermissionDeniedError: The client is bound to other sources or machines.
    """
    client = _client()
    if client is None:
        return batch
    if not client.speaks_for_source(batch.source_id):
        raise PermissionDeniedError(f"{client.identity.user_id} does not speak for source {batch.source_id!r}")
    require_machines(series.machine_id for series in batch.series)
    if client.identity.has(Role.SERVICE):
        return batch
    return batch.owned_by(_owner_within(client, batch.owner, "batch.owner"))


def registrant(stated: str) -> str:
    """Returns the owner that must own all sources of a machine for the present caller to register it.

    An empty owner allows any sources. It is returned for a client that is bound to nothing.

    Args:
        stated: The owner that the request states, see `as_callers`.

    Raises:
        InvalidArgumentError: The owner is too long.
    """
    client = _client()
    if client is None or client.identity.has(Role.SERVICE):
        if len(stated) > MAX_OWNER:
            raise InvalidArgumentError.of("owner", f"must have at most {MAX_OWNER} characters")
        return stated
    return _owner_within(client, stated, "owner") if client.bound or stated else ""


def _owner_within(client: Client, stated: str, field: str) -> str:
    owner = client.owner if not stated else f"{client.owner}/{stated}"
    if len(owner) > MAX_OWNER:
        raise InvalidArgumentError.of(field, f"is too long; {MAX_OWNER} characters are allowed with the client's")
    return owner


def require_machines(machine_ids: Iterable[str]) -> None:
    """Raises PermissionDeniedError if the present client is not allowed to access one of the machines."""
    client = _client()
    if client is None:
        return
    for machine_id in machine_ids:
        if not client.speaks_for_machine(machine_id):
            raise PermissionDeniedError(f"{client.identity.user_id} does not speak for machine {machine_id!r}")


def require_subject(machine_id: str) -> None:
    """Raises PermissionDeniedError if the present client may not access the machine of an event.

    An event without a machine concerns the whole plant and requires access to all machines.
    """
    if machine_id:
        require_machines([machine_id])
    elif (client := _client()) is not None and not client.speaks_for_all_machines:
        raise _of_whole_plant(client)


def may_see_machine(machine_id: str) -> bool:
    """Whether lists and streams for the present caller may contain a machine."""
    client = _client()
    return client is None or client.speaks_for_machine(machine_id)


def may_read() -> bool:
    """Whether the present caller may see readings. Clients that only send may not."""
    client = _client()
    return client is None or client.identity.has(Role.VIEWER)


def as_told(machine: ingestion_pb2.Machine) -> ingestion_pb2.Machine:
    """Returns a machine for the answer to a registration, without readings if the caller may not read them."""
    if not may_read():
        for field in ("sensors", "sensor_count", "first_seen_us", "last_seen_us"):
            machine.ClearField(field)
    return machine


def door(settings: Settings, host: str, setting: str) -> Door | None:
    """Makes the door of a gRPC server by the settings; None if the server does not authenticate clients.

    Raises:
        SettingsError: A server without authentication would listen on more than this machine without explicit
            permission, or the clients file is missing or invalid.
    """
    if settings.rpc_tls_folder is None:
        instead = "AURUM_RPC_TLS_FOLDER and AURUM_RPC_CLIENTS_FILE"
        require_closed(host, setting, said=settings.rpc_open, name="AURUM_RPC_OPEN", instead=instead)
        return None
    if settings.rpc_clients_file is None:
        raise SettingsError(
            "AURUM_RPC_CLIENTS_FILE must say what each client may do, since AURUM_RPC_TLS_FOLDER is set"
        )
    try:
        return Door(FollowedClients(settings.rpc_clients_file))
    except ClientFileError as error:
        raise SettingsError(f"AURUM_RPC_CLIENTS_FILE: {error}") from error
