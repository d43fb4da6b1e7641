"""Each kind of streams has places of its own, and each caller a part of them: nobody takes the places of all."""

import contextlib
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from aurum.readings.batch import Series, encode
from aurum.runtime.errors import from_rpc_error
from aurum.runtime.grpc.client import CRITICALITY_KEY
from aurum.security.api_keys import KeyFile, make_key, write_keys
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from tests.support.authority import Authority
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.ports import free_port
from tests.support.waiting import wait_for

NAMES = ("one", "two", "three")
CLIENTS = "clients:\n  - {name: platform.test, roles: [service]}\n" + "".join(
    f"  - {{name: {name}.test, roles: [admin]}}\n" for name in NAMES
)
# 20 places: 14 for Ingest, 2 each for Watch, Follow and others; 12 of 16 calls for queries; half of each for one caller
SETTINGS = {"AURUM_RPC_MAX_STREAMS": "20", "AURUM_RPC_CONCURRENCY_LIMIT": "16"}
PLACES = {"ingest": 14, "watch": 2, "follow": 2, "other": 2, "query": 12}
SERVER = dict.fromkeys(PLACES, "ingestion") | {"query": "prediction"}


@dataclass
class Plant:
    platform: Platform
    authority: Authority | None = None
    channels: dict[tuple[str, str], grpc.Channel] = field(default_factory=dict)
    open: list[tuple[Any, "queue.SimpleQueue[Any]"]] = field(default_factory=list)

    def channel(self, server: str, name: str) -> grpc.Channel:
        known = self.channels.get((server, name))
        if known is None:
            target = f"127.0.0.1:{self.platform.port(server)}"
            if self.authority is None:
                known = grpc.insecure_channel(target)
            else:
                chain, key = self.authority.issue(f"{name}.test")
                credentials = grpc.ssl_channel_credentials(self.authority.pem, key, chain)
                known = grpc.secure_channel(target, credentials)
            self.channels[server, name] = known
        return known

    def begin(self, kind: str, name: str, user_id: str | None = None) -> None:
        """Opens a stream and leaves it so; returns when the server has taken it up. Raises grpc.RpcError."""
        metadata = (("x-user-id", user_id),) if user_id else ()
        channel, sending = self.channel(SERVER[kind], name), queue.SimpleQueue[Any]()
        requests: Iterator[Any] = iter(sending.get, None)
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        call: Any
        if kind == "watch":
            call = stub.Watch(ingestion_pb2.WatchRequest(), timeout=120, metadata=metadata)
        elif kind == "follow":
            call = stub.Follow(ingestion_pb2.FollowRequest(), timeout=120, metadata=metadata)
        elif kind == "ingest":
            source = f"{name}-{time.monotonic_ns()}"
            readings = Series("m", "s", np.array([time.time_ns() // 1000]), np.ones(1))
            sending.put(ingestion_pb2.IngestRequest(batch=encode(source, 1, [readings])))
            call = stub.Ingest(requests, timeout=120, metadata=metadata)
        elif kind == "other":
            sending.put(reflection_pb2.ServerReflectionRequest(list_services=""))
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(requests, timeout=120)
        else:
            given = prediction_pb2.PredictRequest(machine_type="none", features={"f": 1.0})
            sending.put(prediction_pb2.PredictBatchRequest(requests=[given]))
            prediction = prediction_pb2_grpc.PredictionServiceStub(channel)
            # Of the class of queries: of batches the server takes fewer
            call = prediction.PredictBatch(requests, timeout=120, metadata=(*metadata, (CRITICALITY_KEY, "query")))
        try:
            next(call)
        except grpc.RpcError:
            sending.put(None)
            raise
        self.open.append((call, sending))

    def fill(self, kind: str, name: str, user_id: str | None = None) -> tuple[int, grpc.RpcError]:
        """Opens streams until one is refused: how many there were, and how the next was refused."""
        for opened in range(100):
            try:
                self.begin(kind, name, user_id)
            except grpc.RpcError as error:
                return opened, error
        pytest.fail(f"{name} may open any number of {kind} streams")

    def end(self, number: int = 1000) -> None:
        """Ends the streams that were opened first."""
        for call, sending in self.open[:number]:
            call.cancel()
            sending.put(None)
        del self.open[:number]

    def in_use(self, kind: str) -> float:
        return self.platform.metric(SERVER[kind], f'stream_places_in_use{{kind="{kind}"}}')

    def empty(self) -> None:
        self.end()
        for kind in PLACES:
            wait_for(lambda kind=kind: self.in_use(kind) == 0, 20, f"no {kind} stream is open")


@contextlib.contextmanager
def running(folder: Path, authority: Authority | None, *services: str, **extra: str) -> Iterator[Plant]:
    behind = authority.settings(folder, "platform.test", CLIENTS) if authority else {}
    platform = Platform(folder, extra={**behind, **SETTINGS, **extra})
    for service in services:
        platform.start(service)
    plant = Plant(platform, authority)
    yield plant
    plant.end()
    for channel in plant.channels.values():
        channel.close()
    platform.stop()


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Plant]:
    """Servers that ask for certificates."""
    folder = tmp_path_factory.mktemp("shares")
    # Prediction reaches no ingestion, so that its own streams take no places there
    elsewhere = {"AURUM_MODEL_DIR": str(models), "AURUM_INGESTION_TARGET": f"127.0.0.1:{free_port()}"}
    with running(folder, Authority(), "ingestion", "prediction", **elsewhere) as plant:
        yield plant


@pytest.fixture
def plant(asking: Plant) -> Iterator[Plant]:
    yield asking
    asking.empty()


@pytest.mark.parametrize("kind", PLACES)
def test_caller_has_its_part_of_a_kind(plant: Plant, kind: str) -> None:
    """One caller gets half of the places of a kind and another still its own; then the kind has no more, the other
    kinds do, and a place that is given back is free."""
    places = PLACES[kind]
    refused_before = plant.platform.metric(SERVER[kind], f'streams_refused_total{{kind="{kind}"')
    opened, refusal = plant.fill(kind, "one")
    assert opened == places // 2
    assert refusal.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"{places // 2} of the {places} places" in (refusal.details() or "")
    assert "AURUM_STREAM_CALLER_SHARE" in (refusal.details() or "")
    assert from_rpc_error(refusal).reason == "STREAM_LIMIT"
    assert (from_rpc_error(refusal).retry_after or 0) >= 1
    assert plant.fill(kind, "two")[0] == places - places // 2
    opened, refusal = plant.fill(kind, "three")
    assert opened == 0
    assert f"all {places} places for {kind} streams" in (refusal.details() or "")
    assert plant.in_use(kind) == places
    assert plant.platform.metric(SERVER[kind], f'streams_refused_total{{kind="{kind}"') == refused_before + 3
    for other in PLACES.keys() - {kind}:
        plant.begin(other, "one")
    plant.end(1)
    wait_for(lambda: plant.in_use(kind) == places - 1, 20, "the place is given back")
    plant.begin(kind, "three")


def test_refusals_leave_calls_their_places(plant: Plant) -> None:
    """While every stream of a caller is refused, calls that are no streams are answered, the caller's own too."""
    for kind in ("watch", "query"):
        plant.fill(kind, "one")
    stub = ingestion_pb2_grpc.IngestionServiceStub(plant.channel("ingestion", "one"))
    for _ in range(30):
        assert plant.fill("watch", "one")[0] == 0
        stub.ListMachines(ingestion_pb2.ListMachinesRequest(), timeout=5)


def test_service_takes_places_for_its_users(plant: Plant) -> None:
    """What a service of ours opens for a user is the user's part; what it opens for itself is nobody's."""
    assert plant.fill("ingest", "platform", "ada")[0] == PLACES["ingest"] // 2
    plant.begin("ingest", "platform", "bob")
    plant.empty()
    assert plant.fill("ingest", "platform")[0] == PLACES["ingest"]


def test_health_streams_have_places_too(plant: Plant) -> None:
    """Watch of the health service, which is open to all, takes the places of others and no more."""
    stub = health_pb2_grpc.HealthStub(plant.channel("ingestion", "one"))
    first = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
    assert next(first).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refused:
        next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=60))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status == health_pb2.HealthCheckResponse.SERVING
    first.cancel()


def test_gateway_counts_its_devices_one_by_one(tmp_path: Path) -> None:
    """At a gateway each device has its part, and what is opened upstream for one is that one's part there."""
    with running(tmp_path, Authority(), "ingestion", "edge") as plant:
        for name in NAMES[:2]:
            stub = ingestion_pb2_grpc.IngestionServiceStub(plant.channel("edge", name))
            opened = [stub.Watch(ingestion_pb2.WatchRequest(), timeout=60) for _ in range(2)]
            told = [outcome_of(call) for call in opened]
            assert sorted(told) == ["OK", "RESOURCE_EXHAUSTED"]
            plant.open += [(call, queue.SimpleQueue()) for call in opened]
        assert plant.in_use("watch") == PLACES["watch"]


def outcome_of(call: Any) -> str:
    try:
        next(call)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def test_address_has_its_part_where_nobody_is_asked(tmp_path: Path) -> None:
    """Where callers need no certificate, those of one address share one part."""
    with running(tmp_path, None, "ingestion") as plant:
        assert plant.fill("watch", "one")[0] == PLACES["watch"] // 2
        assert plant.fill("watch", "two")[0] == 0
        plant.begin("ingest", "two")


@dataclass
class Consoles:
    platform: Platform
    headers: dict[str, dict[str, str]]

    def listen(self, name: str) -> Any:
        """An event stream that is open, or how it was refused."""
        request = urllib.request.Request(f"{self.platform.api}/api/events", headers=self.headers[name])  # noqa: S310
        try:
            opened = urllib.request.urlopen(request, timeout=20)  # noqa: S310
        except urllib.error.HTTPError as error:
            return error
        opened.readline()
        return opened


@pytest.fixture(scope="module")
def consoles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consoles]:
    folder = tmp_path_factory.mktemp("consoles")
    made = {name: make_key(name, ("admin",)) for name in NAMES}
    write_keys(folder / "keys.yaml", KeyFile(keys=tuple(record for _, record in made.values())))
    extra = {
        "AURUM_AUTH_KEYS_FILE": str(folder / "keys.yaml"),
        "AURUM_API_MAX_EVENT_STREAMS": "4",
        "AURUM_FEATURE_PREDICTIVE": "false",
        "AURUM_FAULTS_ENABLED": "true",
    }
    with running(folder, None, "ingestion", "api", **extra) as plant:
        yield Consoles(plant.platform, {name: {"X-API-Key": key} for name, (key, _) in made.items()})


def test_consoles_of_one_key_leave_places_for_others(consoles: Consoles) -> None:
    """One key gets half of the event streams, another its own; who gets none is told why, and when to ask again."""
    opened = [consoles.listen("one") for _ in range(3)]
    assert [each.status for each in opened] == [200, 200, 429]
    refused = opened[2]
    assert int(refused.headers["Retry-After"]) >= 1
    assert b"AURUM_STREAM_CALLER_SHARE" in refused.read()
    others = [consoles.listen("two") for _ in range(2)]
    assert [each.status for each in others] == [200, 200]
    full = consoles.listen("three")
    assert full.status == 429
    assert b"AURUM_API_MAX_EVENT_STREAMS" in full.read()
    assert http("GET", f"{consoles.platform.api}/api/machines", headers=consoles.headers["one"]).status == 200
    for each in (*opened, *others):
        each.close()

    def free() -> bool:
        again = consoles.listen("three")
        again.close()
        return bool(again.status == 200)

    wait_for(free, 20, "the places are free again")


def test_long_queries_of_one_key_leave_places_for_others(consoles: Consoles) -> None:
    """One key has half of the places for long answers over HTTP; another's question is answered meanwhile."""
    api, one = consoles.platform.api, consoles.headers["one"]
    machine = {"machine_id": "m", "machine_type": "pump"}
    assert http("POST", f"{api}/api/machines", machine, one).status == 201
    part = PLACES["query"] // 2
    slow = {"kind": "delay", "method": "Query", "delay": "1500ms", "duration": "60s"}
    assert http("POST", f"{api}/api/platform/faults/ingestion", slow, one).status == 201
    statuses: queue.SimpleQueue[int] = queue.SimpleQueue()

    def ask(name: str) -> int:
        status = http("GET", f"{api}/api/machines/m/metrics", headers=consoles.headers[name]).status
        statuses.put(status)
        return status

    asking = [threading.Thread(target=ask, args=("one",)) for _ in range(part)]
    for each in asking:
        each.start()

    def in_use() -> float:
        return consoles.platform.metric("api", 'stream_places_in_use{kind="query"}')

    wait_for(lambda: in_use() == part, 20, "all are being answered")
    assert http("DELETE", f"{api}/api/platform/faults/ingestion", headers=one).status == 200
    refused = http("GET", f"{api}/api/machines/m/metrics", headers=one)
    assert refused.status == 429
    assert "AURUM_STREAM_CALLER_SHARE" in refused.json["detail"]
    assert int(refused.headers["retry-after"]) >= 1
    assert ask("two") == 200
    for each in asking:
        each.join()
    assert {statuses.get() for _ in range(part + 1)} == {200}
    assert in_use() == 0
