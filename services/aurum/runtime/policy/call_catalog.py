"""The calls between the services: every kind of call that a policy can govern."""

from dataclasses import dataclass
from typing import Literal, get_args

from aurum.v1 import ingestion_pb2, prediction_pb2

_INGESTION = tuple(method.name for method in ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"].methods)
_PREDICTION = tuple(method.name for method in prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].methods)

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
