"""Each RPC of each server by whose it is: the table of the tenants of gRPC, and how a tenant calls."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
import numpy as np
from google.protobuf import message_factory
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from aurum.readings.batch import Series, encode
from aurum.v1 import ingestion_pb2, prediction_pb2
from tests.support.authority import Authority
from tests.support.contracts import rpcs
from tests.support.platform import Platform

OK, DENIED, UNAUTHENTICATED = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
CLOSED = frozenset({DENIED, UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE})

# machine: names one, which has to be the tenant's. list: has the tenant's alone. plant: is of the plant as a whole, and
# closed to whoever is bound. shared: is of no machine, and the same for all. service: for our own alone. public: for
# all.
Class = Literal["machine", "list", "plant", "shared", "service", "public"]
_sequences = itertools.count(1)


@dataclass(frozen=True)
class Case:
    """request: of a machine, by a tenant whose sources begin so."""

    of: Class
    request: Callable[[str, str], Any]


def batch(machine: str, tenant: str) -> ingestion_pb2.Batch:
    times = np.array([time.time_ns() // 1000])
    return encode(f"{tenant}-source", next(_sequences), [Series(machine, "s", times, np.ones(1))])


def event(machine: str, tenant: str) -> ingestion_pb2.RecordEventsRequest:
    content = ingestion_pb2.Event(kind="note", machine_id=machine, at_us=1, id=tenant)
    return ingestion_pb2.RecordEventsRequest(events=[content])


def ingestion(of: Class, message: str, **fields: Any) -> Case:
    kind = getattr(ingestion_pb2, message)
    return Case(of, lambda machine, _: kind(**{name: _filled(value, machine) for name, value in fields.items()}))


def prediction(of: Class, message: str, **fields: Any) -> Case:
    kind = getattr(prediction_pb2, message)
    return Case(of, lambda machine, _: kind(**{name: _filled(value, machine) for name, value in fields.items()}))


def _filled(value: Any, machine: str) -> Any:
    return value(machine) if callable(value) else value


def the_machine(machine: str) -> str:
    return machine


def to_predict(machine: str) -> prediction_pb2.PredictRequest:
    return prediction_pb2.PredictRequest(machine_id=machine)


def a_prediction(machine: str) -> prediction_pb2.PredictResponse:
    return prediction_pb2.PredictResponse(machine_id=machine, as_of_us=1)


INGESTION, PREDICTION = "/aurum.v1.IngestionService", "/aurum.v1.PredictionService"
CASES: dict[str, list[Case]] = {
    f"{INGESTION}/Ingest": [Case("machine", lambda *who: ingestion_pb2.IngestRequest(batch=batch(*who)))],
    f"{INGESTION}/Write": [Case("machine", lambda *who: ingestion_pb2.WriteRequest(batch=batch(*who)))],
    f"{INGESTION}/RegisterMachine": [
        ingestion(
            "machine", "RegisterMachineRequest", machine_id=the_machine, machine_type="t", site="s", request_id="r"
        )
    ],
    f"{INGESTION}/Query": [ingestion("machine", "QueryRequest", machine_ids=lambda machine: [machine])],
    f"{INGESTION}/Integrate": [
        ingestion(
            "machine",
            "IntegrateRequest",
            machine_ids=lambda machine: [machine],
            meters=[ingestion_pb2.Meter(sensor="a")],
            start_us=1,
            end_us=2,
            longest_gap_us=1,
        )
    ],
    f"{INGESTION}/GetMachine": [ingestion("machine", "GetMachineRequest", machine_id=the_machine)],
    f"{INGESTION}/ListMachines": [
        ingestion("list", "ListMachinesRequest"),
        ingestion("list", "ListMachinesRequest", page_size=1),
    ],
    f"{INGESTION}/Watch": [
        ingestion("list", "WatchRequest"),
        ingestion("machine", "WatchRequest", machine_ids=lambda machine: [machine]),
    ],
    f"{INGESTION}/Follow": [ingestion("list", "FollowRequest")],
    f"{INGESTION}/ListEvents": [
        ingestion("machine", "ListEventsRequest", kind="prediction", machine_id=the_machine),
        ingestion("plant", "ListEventsRequest", kind="alarm"),
        ingestion("plant", "ListEventsRequest", kind="alarm", by_number=True),
    ],
    f"{INGESTION}/PublishPredictions": [
        ingestion("service", "PublishPredictionsRequest", predictions=lambda machine: [a_prediction(machine)])
    ],
    f"{INGESTION}/RecordEvents": [Case("service", event), Case("service", lambda _, tenant: event("", tenant))],
    f"{PREDICTION}/Predict": [
        prediction("machine", "PredictRequest", machine_id=the_machine),
        prediction("shared", "PredictRequest", machine_type="none", features={"f": 1.0}),
    ],
    f"{PREDICTION}/PredictBatch": [
        prediction("machine", "PredictBatchRequest", requests=lambda machine: [to_predict(machine)])
    ],
    f"{PREDICTION}/Explain": [prediction("machine", "ExplainRequest", request=to_predict)],
    f"{PREDICTION}/ListModels": [prediction("shared", "ListModelsRequest")],
    f"{PREDICTION}/GetModel": [prediction("shared", "GetModelRequest", machine_type="none")],
    f"{PREDICTION}/ActivateModel": [prediction("plant", "ActivateModelRequest", machine_type="none", version="1")],
    f"{PREDICTION}/RollbackModel": [prediction("plant", "RollbackModelRequest", machine_type="none")],
    "/grpc.health.v1.Health/Check": [Case("public", lambda *_: health_pb2.HealthCheckRequest())],
    "/grpc.health.v1.Health/Watch": [Case("public", lambda *_: health_pb2.HealthCheckRequest())],
    "/grpc.health.v1.Health/List": [Case("public", lambda *_: health_pb2.HealthListRequest())],
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": [
        Case("shared", lambda *_: reflection_pb2.ServerReflectionRequest(list_services=""))
    ],
}
SERVERS = {"ingestion": INGESTION, "edge": INGESTION, "prediction": PREDICTION}


DESCRIBED = rpcs()
EVERY = [
    (server, name)
    for server, own in SERVERS.items()
    for name in CASES
    if (name.startswith(own) or not name.startswith("/aurum."))
    and (server, name) != ("edge", f"{INGESTION}/Follow")  # a gateway has no readings to follow
]


@dataclass
class TenantPlant:
    """A platform whose servers ask for certificates, and the channels of its tenants."""

    platform: Platform
    authority: Authority
    channels: dict[tuple[str, str | None], grpc.Channel] = field(default_factory=dict)

    def channel(self, server: str, name: str | None) -> grpc.Channel:
        """name: of the certificate; None for none."""
        known = self.channels.get((server, name))
        if known is None:
            chain, key = self.authority.issue(name) if name else (None, None)
            credentials = grpc.ssl_channel_credentials(self.authority.pem, key, chain)
            known = grpc.secure_channel(f"127.0.0.1:{self.platform.port(server)}", credentials)
            self.channels[server, name] = known
        return known

    def ask(self, server: str, name: str | None, rpc: str, request: Any) -> tuple[grpc.StatusCode, bytes]:
        """How a call ends, and what its first answer or its error tells."""
        method = DESCRIBED[rpc]
        response = message_factory.GetMessageClass(method.output_type)
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        call = getattr(self.channel(server, name), kind)(rpc, type(request).SerializeToString, response.FromString)
        try:
            answer = call(iter([request]) if method.client_streaming else request, timeout=10)
            if method.server_streaming:
                first = next(iter(answer), None)
                answer.cancel()
                return OK, first.SerializeToString() if first is not None else b""
            return OK, answer.SerializeToString()
        except grpc.RpcError as error:
            return error.code(), (error.details() or "").encode()

    def write_clients(self, content: str) -> None:
        file = self.platform.folder / "clients.yaml"
        beside = file.with_suffix(".new")
        beside.write_text(f"clients:{content}")
        beside.replace(file)
