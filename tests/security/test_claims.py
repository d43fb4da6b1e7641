"""Who may register a machine that sends already: its readings then belong to the site that it is registered at."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest

from aurum.readings.batch import Series, encode
from aurum.security.api_keys import KeyFile, make_key, write_keys
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.authority import Authority
from tests.support.http import Answer, http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

CLIENTS = """
clients:
  - {name: platform.test, roles: [service]}
  - {name: device.test, roles: [ingest], sources: ["dev-*"], machines: ["pump-*"]}
  - {name: rival.test, roles: [ingest, viewer], sources: ["rival-*"], machines: ["pump-*"]}
  - {name: north-device.test, roles: [ingest], sources: ["north-*"], machines: ["pump-*"], site: north}
  - {name: installer.test, roles: [ingest]}
"""
KEYS: dict[str, tuple[str, ...]] = {"north": ("north",), "south": ("south",), "both": ("north", "south"), "all": ()}
_sequences = itertools.count(1)


@dataclass
class Plant:
    platform: Platform
    authority: Authority
    headers: dict[str, dict[str, str]]

    def stub(self, name: str, service: str = "ingestion") -> ingestion_pb2_grpc.IngestionServiceStub:
        chain, key = self.authority.issue(name)
        credentials = grpc.ssl_channel_credentials(self.authority.pem, key, chain)
        channel = grpc.secure_channel(f"127.0.0.1:{self.platform.port(service)}", credentials)
        return ingestion_pb2_grpc.IngestionServiceStub(channel)

    def send(self, machine: str, by: str, source: str, service: str = "ingestion") -> None:
        series = Series(machine, "s", np.array([time.time_ns() // 1000]), np.array([1.0]))
        request = ingestion_pb2.WriteRequest(batch=encode(source, next(_sequences), [series]))
        self.stub(by, service).Write(request, timeout=10)

    def register(self, machine: str, who: str, site: str | None = None, **headers: str) -> Answer:
        body = {"machine_id": machine, "machine_type": "pump"} | ({} if site is None else {"site": site})
        return http("POST", f"{self.platform.api}/api/machines", body, {**self.headers[who], **headers})

    def machine(self, machine: str, who: str = "all") -> Answer:
        return http("GET", f"{self.platform.api}/api/machines/{machine}", headers=self.headers[who])


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    folder = tmp_path_factory.mktemp("claims")
    authority = Authority()
    made = {name: make_key(name, ("engineer", "ingest"), sites) for name, sites in KEYS.items()}
    write_keys(folder / "keys.yaml", KeyFile(keys=tuple(record for _, record in made.values())))
    running = Platform(
        folder,
        extra={
            **authority.settings(folder, "platform.test", CLIENTS),
            "AURUM_AUTH_KEYS_FILE": str(folder / "keys.yaml"),
            "AURUM_FEATURE_PREDICTIVE": "false",
        },
    )
    for service in ("ingestion", "edge", "api"):
        running.start(service)
    yield Plant(running, authority, {name: {"X-API-Key": key} for name, (key, _) in made.items()})
    running.stop()


def told(answer: Answer, machine: str) -> tuple[int, dict[str, Any]]:
    """What an answer tells, but for the machine that was asked for and what is of the request alone."""
    assert answer.status != 200
    problem = {name: value for name, value in answer.json.items() if name not in ("request_id", "trace_id", "instance")}
    return answer.status, {name: str(value).replace(machine, "MACHINE") for name, value in problem.items()}


@pytest.mark.parametrize("who", ["south", "north", "both"])
def test_bound_caller_claims_no_machine_of_a_device(plant: Plant, who: str) -> None:
    """A machine that sends and has no site is 404 for whoever is bound to sites, and is not changed."""
    machine = f"pump-claimed-by-{who}"
    plant.send(machine, "device.test", "dev-1")
    refused = plant.register(machine, who, "south" if who == "both" else None)
    assert told(refused, machine) == told(plant.machine("nowhere", who), "nowhere")
    assert (plant.machine(machine).json["machine_type"], plant.machine(machine).json["site"]) == ("", "")
    again = plant.register(machine, who, "south" if who == "both" else None, **{"Idempotency-Key": "again"})
    assert told(again, machine) == told(refused, machine)


def test_unbound_caller_claims_a_machine_that_sends(plant: Plant) -> None:
    """Who is bound to no site registers a machine that sends already; its readings then belong to the site."""
    plant.send("pump-given", "device.test", "dev-1")
    wait_for(lambda: plant.machine("pump-given", "south").status == 404, 5, "it is none of the site's")
    assert plant.register("pump-given", "all", "south").status == 201
    assert plant.machine("pump-given", "south").json["sensors"]["s"]["value"] == 1.0
    assert plant.machine("pump-given", "north").status == 404


def test_site_claims_what_its_own_sources_send(plant: Plant) -> None:
    """A machine whose sources all belong to a site is registered by somebody of that site, by nobody of another."""
    plant.send("pump-of-north", "north-device.test", "north-1")
    for stranger in ("south", "both"):
        assert plant.register("pump-of-north", stranger, "south").status == 404
    assert plant.register("pump-of-north", "north").status == 201
    assert plant.machine("pump-of-north", "north").json["sensors"]["s"]["value"] == 1.0


def test_one_foreign_reading_keeps_a_site_from_claiming(plant: Plant) -> None:
    """A machine that another owner's source has sent for too is not claimed, whoever sent last."""
    plant.send("pump-mixed", "device.test", "dev-1")
    plant.send("pump-mixed", "north-device.test", "north-1")
    assert plant.register("pump-mixed", "north").status == 404


def test_registered_machine_of_another_site_is_404(plant: Plant) -> None:
    """A registration of another site's machine is answered like a question for a machine that does not exist."""
    key = {"Idempotency-Key": "same"}
    assert plant.register("pump-north", "north", **key).status == 201
    assert plant.register("pump-siteless", "all", "").status == 201
    nowhere = told(plant.machine("nowhere", "south"), "nowhere")
    for machine in ("pump-north", "pump-siteless"):
        assert told(plant.machine(machine, "south"), machine) == nowhere
        assert told(plant.register(machine, "south"), machine) == nowhere
        assert told(plant.register(machine, "south", **key), machine) == nowhere
    assert plant.register("pump-north", "north").status == 409
    assert plant.register("pump-north", "north", **key).status == 201


@pytest.mark.parametrize("service", ["ingestion", "edge"])
def test_bound_certificate_claims_only_what_it_sent(plant: Plant, service: str) -> None:
    """A certificate that is bound registers a machine that its own sources send, and no other that sends."""

    def register(by: str, machine: str, **stated: str) -> ingestion_pb2.Machine:
        request = ingestion_pb2.RegisterMachineRequest(machine_id=machine, machine_type="pump", site="x", **stated)
        return plant.stub(by, service).RegisterMachine(request, timeout=5).machine

    machine = f"pump-by-{service}"
    plant.send(machine, "device.test", "dev-1", service)
    wait_for(lambda: plant.machine(machine).status == 200, 10, "the reading is stored")
    for stated in ("", "certificate/device.test"):
        with pytest.raises(grpc.RpcError) as raised:
            register("rival.test", machine, owner=stated)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.RpcError) as unknown:
            plant.stub("rival.test", service).GetMachine(
                ingestion_pb2.GetMachineRequest(machine_id=f"{machine}-no"), timeout=5
            )
        assert raised.value.details() == unknown.value.details().replace(f"{machine}-no", machine)
    assert plant.machine(machine).json["machine_type"] == ""
    assert register("device.test", machine).machine_type == "pump"
    plant.send(f"{machine}-2", "device.test", "dev-1")
    assert register("installer.test", f"{machine}-2").site == "x"
    assert register("rival.test", f"{machine}-3").site == "x"
