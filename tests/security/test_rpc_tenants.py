"""Each RPC for each kind of tenant, from one table: who is bound to machines reaches, and learns of, those only."""

import importlib
import itertools
import pkgutil
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import grpc
import numpy as np
import pytest
from google.protobuf import message_factory
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from aurum import v1
from aurum.readings.batch import Series, encode
from aurum.security.permissions import RPCS
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc, prediction_pb2
from tests.support.authority import Authority
from tests.support.platform import Platform
from tests.support.waiting import wait_for

OWN, OTHER = "north-1", "south-1"  # machines, of one tenant each
UNKNOWN = "north-none"
CLIENTS = """
  - {name: platform.test, roles: [service]}
  - {name: unbound.test, roles: [admin]}
  - {name: north.test, roles: [admin], sources: ["north-*"], machines: ["north-*"]}
  - {name: south.test, roles: [admin], sources: ["south-*"], machines: ["south-*"]}
"""
LEAVING = '  - {name: leaving.test, roles: [admin], machines: ["north-*"]}\n'
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
    f"{INGESTION}/GetMachine": [ingestion("machine", "GetMachineRequest", machine_id=the_machine)],
    f"{INGESTION}/ListMachines": [
        ingestion("list", "ListMachinesRequest"),
        ingestion("list", "ListMachinesRequest", page_size=1),
    ],
    f"{INGESTION}/Watch": [
        ingestion("list", "WatchRequest"),
        ingestion("machine", "WatchRequest", machine_ids=lambda machine: [machine]),
    ],
    f"{INGESTION}/ListEvents": [
        ingestion("machine", "ListEventsRequest", kind="prediction", machine_id=the_machine),
        ingestion("plant", "ListEventsRequest", kind="alarm"),
        ingestion("plant", "ListEventsRequest", kind="alarm", by_number=True),
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


def described() -> dict[str, Any]:
    """Every RPC of every contract, and of what a server of ours has besides, by its full name."""
    contracts = [importlib.import_module(f"aurum.v1.{each.name}") for each in pkgutil.iter_modules(v1.__path__)]
    files = [each for each in (*contracts, health_pb2, reflection_pb2) if hasattr(each, "DESCRIPTOR")]
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    return {f"/{each.full_name}/{method.name}": method for each in services for method in each.methods}


DESCRIBED = described()
EVERY = [
    (server, name)
    for server, own in SERVERS.items()
    for name in CASES
    if name.startswith(own) or not name.startswith("/aurum.")
]


@dataclass
class Plant:
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


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Plant]:
    folder = tmp_path_factory.mktemp("rpc-tenants")
    authority = Authority()
    behind = authority.settings(folder, "platform.test", f"clients:{CLIENTS}{LEAVING}")
    running = Platform(folder, extra={**behind, "AURUM_MODEL_DIR": str(models)})
    for service in SERVERS:
        running.start(service)
    found = Plant(running, authority)
    for machine in (OWN, OTHER):
        for rpc in ("Write", "RegisterMachine"):
            request = CASES[f"{INGESTION}/{rpc}"][0].request(machine, "unbound")
            assert found.ask("ingestion", "unbound.test", f"{INGESTION}/{rpc}", request)[0] is OK
    for machine in (OWN, ""):
        assert found.ask("ingestion", "platform.test", f"{INGESTION}/RecordEvents", event(machine, "x"))[0] is OK
    yield found
    for channel in found.channels.values():
        channel.close()
    running.stop()


def test_each_rpc_has_its_place_in_the_table() -> None:
    """A new RPC of any contract fails here until the table says whose it is."""
    assert CASES.keys() == DESCRIBED.keys()
    assert RPCS.keys() <= DESCRIBED.keys()
    assert {name for name in DESCRIBED if name.startswith("/aurum.")} <= RPCS.keys()


@pytest.mark.parametrize("name", [None, "nobody.test", "*", "NORTH.TEST", "north.test.evil"])
def test_stranger_calls_no_rpc(plant: Plant, name: str | None) -> None:
    """No certificate, an unknown one, and names that only look like a client's open nothing but health."""
    wrong = []
    for server, rpc in EVERY:
        for case in CASES[rpc]:
            code, _ = plant.ask(server, name, rpc, case.request(OWN, "north"))
            expected = UNAUTHENTICATED if name else grpc.StatusCode.UNAVAILABLE
            if name and case.of == "public":
                continue
            if code is not expected:
                wrong.append((server, rpc, code))
    assert wrong == []


@pytest.mark.parametrize(("server", "rpc"), EVERY, ids=lambda each: each.rpartition(".")[2])
def test_tenant_calls_what_the_table_opens(plant: Plant, server: str, rpc: str) -> None:
    """Own machines are open, others' are refused alike whether they exist, and the plant as a whole to the unbound."""
    for case in CASES[rpc]:
        north, south, unbound = (
            plant.ask(server, f"{tenant}.test", rpc, case.request(OWN, tenant))
            for tenant in ("north", "south", "unbound")
        )
        if case.of == "service":
            assert {code for code, _ in (north, south, unbound)} == {DENIED}
            assert plant.ask(server, "platform.test", rpc, case.request(OWN, "x"))[0] is OK
            continue
        assert unbound[0] not in CLOSED, unbound
        if case.of == "machine":
            assert (north[0], south[0]) == (unbound[0], DENIED)
            unknown = plant.ask(server, "south.test", rpc, case.request(UNKNOWN, "south"))
            assert (unknown[0], unknown[1].replace(UNKNOWN.encode(), OWN.encode())) == south
        elif case.of == "plant":
            assert (north[0], south[0]) == (DENIED, DENIED)
            assert OWN.encode() not in south[1]
        elif case.of == "list":
            assert OWN.encode() in north[1]
            for answer, tenant in ((north, b"south"), (south, b"north")):
                assert answer[0] is OK
                assert tenant not in answer[1]
        else:
            assert north[0] is south[0] is unbound[0]


@pytest.mark.parametrize("server", ["ingestion", "edge"])
def test_pages_of_a_tenant_name_no_other_machine(plant: Plant, server: str) -> None:
    """Page by page a tenant gets all of its machines, and no token tells of a machine between them."""
    names = [f"{tenant}-p{number}" for number in range(4) for tenant in ("north", "south")]
    for name in names:
        request = ingestion_pb2.WriteRequest(batch=batch(name, "unbound"))
        assert plant.ask("ingestion", "unbound.test", f"{INGESTION}/Write", request)[0] is OK
    stub = ingestion_pb2_grpc.IngestionServiceStub(plant.channel(server, "south.test"))
    found: list[str] = []
    token = ""
    while True:
        page = stub.ListMachines(ingestion_pb2.ListMachinesRequest(page_size=1, page_token=token), timeout=5)
        found += [machine.machine_id for machine in page.machines]
        token = page.next_page_token
        assert not token or token == found[-1]
        if not token:
            break
    assert found == sorted(found)
    assert {*found} == {OTHER, *(name for name in names if name.startswith("south"))}


def test_watch_at_a_gateway_is_silent_about_others(plant: Plant) -> None:
    """A change of another tenant's machine sends nothing, not even an empty answer."""
    stub = ingestion_pb2_grpc.IngestionServiceStub(plant.channel("edge", "south.test"))
    watch = stub.Watch(ingestion_pb2.WatchRequest(interval_ms=100), timeout=30)
    assert {machine.machine_id[:5] for machine in next(watch).machines} == {"south"}
    for machine in (OWN, OTHER):
        request = ingestion_pb2.WriteRequest(batch=batch(machine, "unbound"))
        assert plant.ask("ingestion", "unbound.test", f"{INGESTION}/Write", request)[0] is OK
        time.sleep(0.3)  # so that each would be an answer of its own
    assert [machine.machine_id for machine in next(watch).machines] == [OTHER]
    watch.cancel()


def test_client_that_is_removed_is_let_out(plant: Plant) -> None:
    """Who is removed from the file of clients calls nothing any more, and its open streams end, without a restart; a
    file that cannot be read leaves the last clients in force."""
    stub = ingestion_pb2_grpc.IngestionServiceStub(plant.channel("ingestion", "leaving.test"))
    sending: queue.SimpleQueue[ingestion_pb2.IngestRequest | None] = queue.SimpleQueue()
    ingest = stub.Ingest(iter(sending.get, None), timeout=60)
    sending.put(ingestion_pb2.IngestRequest(batch=batch(OWN, "leaving")))
    assert next(ingest).acknowledged == 1
    watch = stub.Watch(ingestion_pb2.WatchRequest(interval_ms=100), timeout=60)
    assert next(watch).machines

    def code(name: str) -> grpc.StatusCode:
        request = ingestion_pb2.GetMachineRequest(machine_id=OWN)
        return plant.ask("ingestion", name, f"{INGESTION}/GetMachine", request)[0]

    plant.write_clients(" [{name: }]")
    log = plant.platform.folder / "ingestion.log"
    wait_for(lambda: code("leaving.test") is OK and "last valid clients stay" in log.read_text(), 20, "it is refused")
    plant.write_clients(CLIENTS)
    wait_for(lambda: code("leaving.test") is UNAUTHENTICATED, 20, "it is removed")
    sending.put(ingestion_pb2.IngestRequest(batch=batch(OWN, "leaving")))
    request = ingestion_pb2.WriteRequest(batch=batch(OWN, "unbound"))
    assert plant.ask("ingestion", "unbound.test", f"{INGESTION}/Write", request)[0] is OK
    for stream in (ingest, watch):
        with pytest.raises(grpc.RpcError) as ended:
            list(stream)
        assert ended.value.code() is UNAUTHENTICATED
    assert code("north.test") is OK
    sending.put(None)
