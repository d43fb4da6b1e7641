"""Whose write it is: callers who count alike neither take each other's sequences nor each other's answers."""

import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from aurum.readings.batch import Series, encode
from aurum.readings.source_owner import SOURCE_TAKEN
from aurum.runtime.errors import from_rpc_error
from aurum.security.api_keys import KeyFile, make_key, write_keys
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.authority import Authority
from tests.support.http import Answer, http
from tests.support.platform import Platform

KEYS = {
    "north": (("ingest",), ("north",)),
    "north-again": (("ingest",), ("north",)),
    "south": (("ingest",), ("south",)),
    "engineer": (("engineer",), ()),
    "manager": (("engineer",), ()),
}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, dict[str, dict[str, str]]]]:
    folder = tmp_path_factory.mktemp("writes")
    made = {name: make_key(name, *given) for name, given in KEYS.items()}
    write_keys(folder / "keys.yaml", KeyFile(keys=tuple(record for _, record in made.values())))
    running = Platform(
        folder, extra={"AURUM_AUTH_KEYS_FILE": str(folder / "keys.yaml"), "AURUM_FEATURE_PREDICTIVE": "false"}
    )
    running.start("ingestion")
    running.start("api")
    headers = {name: {"X-API-Key": key} for name, (key, _) in made.items()}
    for site in ("north", "south"):
        machine = {"machine_id": f"pump-{site}", "machine_type": "pump", "site": site}
        assert http("POST", f"{running.api}/api/machines", machine, headers["engineer"]).status == 201
    yield running, headers
    running.stop()


class Writer:
    """Writes over HTTP with one of the keys."""

    def __init__(self, plant: tuple[Platform, dict[str, dict[str, str]]], name: str, site: str) -> None:
        self.platform, headers = plant
        self.headers, self.site = headers[name], site

    def write(self, sensor: str, value: float, key: str | None = None, **more: Any) -> Answer:
        reading = {"machine_id": f"pump-{self.site}", "sensor": sensor, "timestamp": 1_790_000_000, "value": value}
        headers = self.headers | ({"Idempotency-Key": key} if key else {})
        return http("POST", f"{self.platform.api}/api/readings", {"readings": [reading], **more}, headers)


def test_same_idempotency_key_of_two_callers_stores_both(plant: Any) -> None:
    """Two callers that count their requests alike are both stored, and each may repeat its own."""
    for name in ("north", "south"):
        writer = Writer(plant, name, name)
        assert writer.write("both", 1.0, "2026-11-29-0001").json == {"accepted": 1, "duplicate": 0}
        assert writer.write("both", 1.0, "2026-11-29-0001").json == {"accepted": 0, "duplicate": 1}


def test_idempotency_key_with_other_readings_is_422(plant: Any) -> None:
    """A key that comes again with other readings is refused and named, and nothing is stored."""
    writer = Writer(plant, "north", "north")
    assert writer.write("reused", 1.0, "reused-1").status == 200
    again = writer.write("reused", 2.0, "reused-1")
    assert again.status == 422
    assert again.json["errors"][0]["field"] == "Idempotency-Key"
    assert writer.write("reused", 1.0, "reused-1").json == {"accepted": 0, "duplicate": 1}


def test_idempotency_key_counts_within_its_route(plant: Any) -> None:
    """A key of a registration is another than the same key of readings; another registration with it is refused."""
    platform, headers = plant
    key = {"Idempotency-Key": "route-1"}
    assert Writer(plant, "north", "north").write("route", 1.0, "route-1").status == 200
    body = {"machine_id": "routed", "machine_type": "pump", "site": "north"}
    mine, others = headers["engineer"] | key, headers["manager"] | key
    url = f"{platform.api}/api/machines"
    assert [http("POST", url, body, mine).status for _ in range(2)] == [201, 201]
    assert http("POST", url, {**body, "machine_type": "motor"}, mine).status == 422
    assert http("POST", url, body, others).status == 409  # a key of somebody else's


def test_source_of_another_site_is_refused(plant: Any) -> None:
    """A caller that uses another's source_id is refused, and the owner's sequences are stored."""
    platform, _ = plant
    north, south = Writer(plant, "north", "north"), Writer(plant, "south", "south")
    assert north.write("owned", 1.0, source_id="device-b", sequence=1).json["accepted"] == 1
    for sequence in (1, 2):
        refused = south.write("owned", 2.0, source_id="device-b", sequence=sequence)
        assert refused.status == 403
        assert "north" not in refused.json["detail"]
    again = Writer(plant, "north-again", "north")  # a new key of the same site
    assert again.write("owned", 1.0, source_id="device-b", sequence=1).json["duplicate"] == 1
    assert again.write("owned", 2.0, source_id="device-b", sequence=2).json["accepted"] == 1
    # Nor does somebody without credentials get it
    with grpc.insecure_channel(f"127.0.0.1:{platform.port('ingestion')}") as channel:
        assert refusal(channel, batch("device-b", 3, "pump-south")).reason == SOURCE_TAKEN


def test_source_id_of_idempotency_keys_is_refused(plant: Any) -> None:
    """Nobody states a source_id that stands for a request with an Idempotency-Key."""
    answer = Writer(plant, "north", "north").write("reserved", 1.0, source_id="key/abc", sequence=1)
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "source_id")


CLIENTS = """clients:
  - {name: service.test, roles: [service]}
  - {name: gateway-1.test, roles: [ingest], owner: line-1}
  - {name: gateway-2.test, roles: [ingest], owner: line-1}
  - {name: device.test, roles: [ingest]}
"""


def batch(source: str, sequence: int, machine: str = "m", owner: str = "") -> ingestion_pb2.Batch:
    at = time.time_ns() // 1000
    made = encode(source, sequence, [Series(machine, "s", np.array([at], np.int64), np.array([1.0]))])
    made.owner = owner
    return made


def refusal(channel: grpc.Channel, sent: ingestion_pb2.Batch) -> Any:
    with pytest.raises(grpc.RpcError) as refused:
        write(channel, sent)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    return from_rpc_error(refused.value)


def write(channel: grpc.Channel, sent: ingestion_pb2.Batch) -> ingestion_pb2.WriteResponse:
    stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
    return stub.Write(ingestion_pb2.WriteRequest(batch=sent), timeout=10)


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, grpc.Channel]]:
    folder = tmp_path_factory.mktemp("certified")
    authority = Authority()
    running = Platform(folder, extra=authority.settings(folder, "service.test", CLIENTS))
    running.start("ingestion")
    channels = {}
    for name in ("service", "gateway-1", "gateway-2", "device"):
        chain, key = authority.issue(f"{name}.test")
        credentials = grpc.ssl_channel_credentials(authority.pem, key, chain)
        channels[name] = grpc.secure_channel(f"127.0.0.1:{running.port('ingestion')}", credentials)
    yield channels
    for channel in channels.values():
        channel.close()
    running.stop()


def test_source_belongs_to_the_certificate_that_used_it_first(certified: dict[str, grpc.Channel]) -> None:
    """Another certificate is refused, whatever owner it states; certificates with the same owner share a source."""
    assert write(certified["gateway-1"], batch("line", 1)).accepted == 1
    assert write(certified["gateway-2"], batch("line", 1)).duplicate == 1
    assert write(certified["gateway-2"], batch("line", 2)).accepted == 1
    for owner in ("", "certificate/line-1", "line-1"):
        assert refusal(certified["device"], batch("line", 3, owner=owner)).reason == SOURCE_TAKEN


def test_devices_of_a_gateway_share_no_source(certified: dict[str, grpc.Channel]) -> None:
    """What a gateway says of the device behind it separates its devices, and opens nothing of others."""
    assert write(certified["gateway-1"], batch("behind", 1, owner="certificate/a")).accepted == 1
    assert refusal(certified["gateway-1"], batch("behind", 1, owner="certificate/b")).reason == SOURCE_TAKEN
    assert refusal(certified["gateway-1"], batch("behind", 1)).reason == SOURCE_TAKEN
    # One of our own services states the owner itself
    assert write(certified["service"], batch("behind", 1, owner="certificate/line-1/certificate/a")).duplicate == 1
    assert refusal(certified["service"], batch("behind", 2, owner="certificate/a")).reason == SOURCE_TAKEN
