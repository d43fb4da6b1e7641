"""The calls between the services: every kind of call that a policy can govern."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from aurum.runtime.rpc_methods import INGESTION_SERVICE, METHODS, PREDICTION_SERVICE, Method, methods_of

_INGESTION = methods_of(INGESTION_SERVICE)
_PREDICTION = methods_of(PREDICTION_SERVICE)

StoreOperation = Literal["append", "changes", "events", "find", "machines", "read", "record", "register", "senders"]
"""The calls of ingestion to its store, which GovernedStore makes."""

# All services with an admin server and policies
SERVICES = ("api", "ingestion", "prediction", "edge", "iot-sim", "edge-sim", "operator")


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of one service to another."""

    client: str
    server: str
    methods: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The calls as client/server/Method."""
        return [f"{self.client}/{self.server}/{method}" for method in self.methods]


CALLS = (
    Calls("api", "prediction", (*_PREDICTION, "Check")),
    Calls("api", "ingestion", (*_INGESTION, "Check")),
    Calls("prediction", "ingestion", _INGESTION),
    Calls("ingestion", "store", get_args(StoreOperation)),
    *(Calls(client, "ingestion", _INGESTION) for client in ("edge", "edge-sim", "iot-sim")),
    *(Calls(client, "edge", _INGESTION) for client in ("edge-sim", "iot-sim")),
    *(Calls("api", f"{service}-admin", ("DELETE", "GET", "POST")) for service in SERVICES if service != "api"),
    Calls("api", "emission-factors", ("GET",)),
    Calls("api", "oidc", ("GET",)),
    Calls("edge", "inputs", ("Connect",)),
    Calls("operator", "pods", ("GET",)),
    Calls("operator", "prometheus", ("GET",)),
)

# Services that make calls while they answer one of these callers, within the caller's deadline
CALLERS = {"prediction": ("api",), "ingestion": ("api", "prediction")}


def calls_reference() -> str:
    """Returns the sections on calls and methods of docs/policies.md, in Markdown."""
    lines = [
        "",
        "## Calls",
        "",
        "Every call that a policy can govern, as `client/server/Method`.",
        "",
        "| client | server | methods |",
        "| --- | --- | --- |",
    ]
    for methods, routes in itertools.groupby(sorted(CALLS, key=_row), key=lambda calls: calls.methods):
        by_clients: dict[tuple[str, ...], list[str]] = {}
        for server, several in itertools.groupby(routes, key=lambda calls: calls.server):
            by_clients.setdefault(tuple(sorted(calls.client for calls in several)), []).append(server)
        for clients, servers in sorted(by_clients.items()):
            lines.append(f"| {_shown(clients)} | {_shown(servers)} | {_shown(methods)} |")
    lines += [
        "",
        "## Methods of the contracts",
        "",
        "The options of the methods in [the contracts](../proto/aurum/v1). Endless streams last until one side ends",
        "them, and have their own limits. All other calls, and streams that end with the answer, pass the admission of",
        "the server. The class is that of calls whose metadata have no `aurum-criticality`.",
        "",
        "| method | stream | class |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| `{each.service}/{each.short_name}` | {_stream(each)} | {each.criticality.name.lower()} |"
        for each in METHODS.values()
    ]
    return "\n".join(lines) + "\n"


def _row(calls: Calls) -> tuple[tuple[str, ...], str, str]:
    return calls.methods, calls.server, calls.client


def _shown(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _stream(method: Method) -> str:
    if not method.client_streaming and not method.server_streaming:
        return "no"
    sides = {(True, True): "both ways", (True, False): "of the client", (False, True): "of the server"}
    side = sides[method.client_streaming, method.server_streaming]
    return f"{side}, endless" if method.endless else side
