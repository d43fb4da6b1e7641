"""The methods of the gRPC services with their options, read from the descriptors of the contracts."""

from dataclasses import dataclass

from aurum.resilience import Criticality
from aurum.v1 import ingestion_pb2, options_pb2, prediction_pb2

_CONTRACTS = (ingestion_pb2.DESCRIPTOR, prediction_pb2.DESCRIPTOR)
_PREFIX = "CRITICALITY_"


@dataclass(frozen=True, slots=True)
class Method:
    """A method.

    Attributes:
        name: Full name, /package.Service/Method.
        client_streaming: Whether the client sends a stream.
        server_streaming: Whether the server answers with a stream.
        endless: Whether the stream lasts until one side ends it.
        criticality: Class of the calls that state none.
    """

    name: str
    client_streaming: bool = False
    server_streaming: bool = False
    endless: bool = False
    criticality: Criticality = Criticality.QUERY

    @property
    def service(self) -> str:
        """Full name of its service."""
        return self.name.split("/")[1]

    @property
    def short_name(self) -> str:
        """Name within its service."""
        return self.name.rpartition("/")[2]


def _criticality(value: options_pb2.Criticality.ValueType) -> Criticality:
    name = options_pb2.Criticality.Name(value or options_pb2.CRITICALITY_QUERY)
    return Criticality[name.removeprefix(_PREFIX)]


def _read() -> dict[str, Method]:
    methods: dict[str, Method] = {}
    for contract in _CONTRACTS:
        for service in contract.services_by_name.values():
            for each in service.methods:
                options = each.GetOptions().Extensions[options_pb2.call]
                name = f"/{service.full_name}/{each.name}"
                methods[name] = Method(
                    name,
                    each.client_streaming,
                    each.server_streaming,
                    options.endless,
                    _criticality(options.criticality),
                )
    return methods


METHODS = _read()
"""All methods by full name."""

INGESTION_SERVICE = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"].full_name
PREDICTION_SERVICE = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name


def method_of(name: str) -> Method:
    """Returns the method of that full name. Methods of other contracts, such as health, have no options."""
    return METHODS.get(name) or Method(name)


def methods_of(service: str) -> tuple[str, ...]:
    """Returns the names of a service's methods, in the order of the contract."""
    return tuple(method.short_name for method in METHODS.values() if method.service == service)
