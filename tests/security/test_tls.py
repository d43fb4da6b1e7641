"""Mutual TLS between real services: who has no certificate gets nothing, and new ones come without a failed call."""

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from cryptography import x509
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from aurum.readings.batch import Series, encode
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.authority import Authority
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

CLIENTS = """
clients:
  - {name: platform.test, roles: [service]}
  - {name: device.test, roles: [ingest], sources: ["dev-*"], machines: ["pump-*"]}
  - {name: reader.test, roles: [viewer]}
  - {name: bound.test, roles: [viewer, ingest], sources: ["bound-*"], machines: ["pump-*"]}
"""

DENIED = grpc.StatusCode.PERMISSION_DENIED


@dataclass
class Plant:
    platform: Platform
    authority: Authority
    folder: Path

    @contextlib.contextmanager
    def stub(
        self, certificate: tuple[bytes, bytes] | None, authority: bytes | None = None, service: str = "ingestion"
    ) -> Iterator[ingestion_pb2_grpc.IngestionServiceStub]:
        chain, key = certificate or (None, None)
        credentials = grpc.ssl_channel_credentials(authority or self.authority.pem, key, chain)
        with grpc.secure_channel(f"127.0.0.1:{self.platform.port(service)}", credentials) as channel:
            yield ingestion_pb2_grpc.IngestionServiceStub(channel)

    def presented(self, service: str) -> int:
        """Serial number of the certificate that a service shows."""
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        chain, key = self.authority.issue("platform.test")
        file = self.folder / "probe.pem"
        file.write_bytes(chain + key)
        context.load_cert_chain(file)
        with (
            socket.create_connection(("127.0.0.1", self.platform.port(service)), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as wrapped,
        ):
            found = wrapped.getpeercert(binary_form=True)
        assert found is not None
        return x509.load_der_x509_certificate(found).serial_number


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Plant]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority()
    behind = authority.settings(folder, "platform.test", CLIENTS)
    running = Platform(folder, extra={**behind, "AURUM_MODEL_DIR": str(models)})
    for service in ("ingestion", "prediction", "api", "edge"):
        running.start(service)
    running.start("iot-sim", "--machines", "4", "--machine-type", "pump", "--backfill", "200")
    yield Plant(running, authority, folder)
    running.stop()


def write(
    stub: ingestion_pb2_grpc.IngestionServiceStub, source: str = "dev-1", machine: str = "pump-x"
) -> ingestion_pb2.WriteResponse:
    series = Series(machine, "s", np.array([time.time_ns() // 1000]), np.array([1.0]))
    request = ingestion_pb2.WriteRequest(batch=encode(source, time.time_ns() // 1000, [series]))
    return stub.Write(request, timeout=10)


def refused(call: object, code: grpc.StatusCode) -> str:
    with pytest.raises(grpc.RpcError) as raised:
        call()  # type: ignore[operator]
    assert raised.value.code() is code, raised.value.details()
    return str(raised.value.details())


def test_platform_works_with_mutual_tls(plant: Plant) -> None:
    """A simulated pump gets a model's prediction with mutual TLS between all services."""

    def predicted() -> bool:
        items = http("GET", f"{plant.platform.api}/api/machines").json["items"]
        return any(each["risk_score"] is not None and not each["degraded"] for each in items)

    wait_for(predicted, 60, "a prediction by a model, by way of the edge")


def test_calls_without_trusted_certificate_are_rejected(plant: Plant) -> None:
    """Calls with no, a foreign, an expired or an unknown certificate are rejected."""
    stranger = Authority("another authority")
    for certificate in (None, stranger.issue("platform.test"), plant.authority.issue("platform.test", days=-1)):
        with plant.stub(certificate) as stub:
            refused(lambda stub=stub: write(stub), grpc.StatusCode.UNAVAILABLE)
    with grpc.insecure_channel(f"127.0.0.1:{plant.platform.port('ingestion')}") as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        refused(lambda: write(stub), grpc.StatusCode.UNAVAILABLE)
    with plant.stub(plant.authority.issue("nobody.test")) as stub:
        assert "the client's certificate is unknown" in refused(lambda: write(stub), grpc.StatusCode.UNAUTHENTICATED)
    with plant.stub(plant.authority.issue("device.test"), stranger.pem) as stub:
        refused(lambda: write(stub), grpc.StatusCode.UNAVAILABLE)  # nor does a client take any server


def test_device_may_only_write_its_own_machines(plant: Plant) -> None:
    """A device may only write for its own sources and machines, and a reader may only read."""
    with plant.stub(plant.authority.issue("device.test")) as stub:
        assert write(stub).accepted == 1
        assert "source 'mine'" in refused(lambda: write(stub, source="mine"), grpc.StatusCode.PERMISSION_DENIED)
        assert "'press-1'" in refused(lambda: write(stub, machine="press-1"), grpc.StatusCode.PERMISSION_DENIED)
        ask = ingestion_pb2.ListMachinesRequest()
        assert "viewer" in refused(lambda: stub.ListMachines(ask, timeout=5), grpc.StatusCode.PERMISSION_DENIED)
    with plant.stub(plant.authority.issue("reader.test")) as stub:
        assert stub.ListMachines(ingestion_pb2.ListMachinesRequest(), timeout=5).machines
        refused(lambda: write(stub), grpc.StatusCode.PERMISSION_DENIED)


@pytest.mark.parametrize("service", ["ingestion", "edge"])
def test_certificate_bound_to_machines_reaches_no_other(plant: Plant, service: str) -> None:
    """A certificate that is bound to machines registers, reads, lists and follows no other, at a gateway neither."""
    with plant.stub(plant.authority.issue("platform.test")) as stub:
        write(stub, source="service", machine="press-9")
    with plant.stub(plant.authority.issue("bound.test")) as stub:
        write(stub, source="bound-1", machine="pump-9")
    with plant.stub(plant.authority.issue("bound.test"), service=service) as stub:
        own, other = ("pump-9", "press-9")
        calls = {
            "GetMachine": lambda machine: ingestion_pb2.GetMachineRequest(machine_id=machine),
            "ListEvents": lambda machine: ingestion_pb2.ListEventsRequest(kind="prediction", machine_id=machine),
            "RegisterMachine": lambda machine: ingestion_pb2.RegisterMachineRequest(
                machine_id=machine, machine_type="pump", request_id="once"
            ),
        }
        for name, request in calls.items():
            getattr(stub, name)(request(own), timeout=5)
            refused(lambda name=name, request=request: getattr(stub, name)(request(other), timeout=5), DENIED)
        assert len(list(stub.Query(ingestion_pb2.QueryRequest(machine_ids=[own]), timeout=5))) == 1
        both = ingestion_pb2.QueryRequest(machine_ids=[own, other])
        refused(lambda: list(stub.Query(both, timeout=5)), DENIED)
        refused(lambda: next(stub.Watch(ingestion_pb2.WatchRequest(machine_ids=[other]), timeout=5)), DENIED)
        listed = stub.ListMachines(ingestion_pb2.ListMachinesRequest(page_size=1000), timeout=5).machines
        watched = next(stub.Watch(ingestion_pb2.WatchRequest(), timeout=5)).machines
        for machines in (listed, watched):
            names = {machine.machine_id for machine in machines}
            assert own in names
            assert all(name.startswith("pump-") for name in names)


@pytest.mark.parametrize("service", ["ingestion", "edge"])
def test_sender_learns_nothing_by_registering(plant: Plant, service: str) -> None:
    """The answer to a registration tells who may only send nothing of the machine's readings."""
    with plant.stub(plant.authority.issue("device.test")) as stub:
        write(stub, machine=f"pump-of-{service}")
    with plant.stub(plant.authority.issue("device.test"), service=service) as stub:
        request = ingestion_pb2.RegisterMachineRequest(machine_id=f"pump-of-{service}", machine_type="pump")
        machine = stub.RegisterMachine(request, timeout=5).machine
        assert (machine.machine_type, list(machine.sensors), machine.last_seen_us) == ("pump", [], 0)


def test_reflection_wants_a_role(plant: Plant) -> None:
    """Who is not known is not told which services there are."""
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    for name, opens in (("reader.test", True), ("device.test", False), ("nobody.test", False)):
        chain, key = plant.authority.issue(name)
        credentials = grpc.ssl_channel_credentials(plant.authority.pem, key, chain)
        with grpc.secure_channel(f"127.0.0.1:{plant.platform.port('ingestion')}", credentials) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            if opens:
                answer = next(iter(stub.ServerReflectionInfo(iter([asked]), timeout=5)))
                assert "aurum.v1.IngestionService" in {each.name for each in answer.list_services_response.service}
                continue
            with pytest.raises(grpc.RpcError) as raised:
                next(iter(stub.ServerReflectionInfo(iter([asked]), timeout=5)))
            assert raised.value.code() in (DENIED, grpc.StatusCode.UNAUTHENTICATED)


def test_user_id_of_a_non_service_is_ignored(plant: Plant) -> None:
    """A user id in the metadata is ignored unless the caller is a service."""
    with plant.stub(plant.authority.issue("reader.test")) as stub:
        ask = ingestion_pb2.GetMachineRequest(machine_id="nowhere")
        refused(lambda: stub.GetMachine(ask, timeout=5, metadata=(("x-user-id", "ada"),)), grpc.StatusCode.NOT_FOUND)
    lines = [json.loads(line) for line in (plant.platform.folder / "ingestion.log").read_text().splitlines()]
    assert {"reader.test"} <= {line.get("user_id") for line in lines}
    assert not any(line.get("user_id") == "ada" for line in lines)


@pytest.mark.timeout(240)
def test_certificate_renewal_under_load_fails_no_call(plant: Plant) -> None:
    """Renewing the certificates three times under load fails no call."""
    machine = next(
        each["machine_id"]
        for each in http("GET", f"{plant.platform.api}/api/machines").json["items"]
        if each["machine_type"] == "pump" and each["risk_score"] is not None
    )
    stop, failures, calls = threading.Event(), [], [0]

    def ask() -> None:
        while not stop.is_set():
            answer = http("POST", f"{plant.platform.api}/api/machines/{machine}/predict")
            calls[0] += 1
            if answer.status != 200 or answer.json["degraded"]:
                failures.append(answer.body)
            time.sleep(0.05)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(3):
            before = {service: plant.presented(service) for service in ("ingestion", "prediction")}
            plant.authority.fill(plant.folder / "certificates", "platform.test")
            for service, serial in before.items():
                wait_for(lambda each=service, old=serial: plant.presented(each) != old, 15, f"{service}'s new one")
            time.sleep(4)  # clients look every two seconds
    finally:
        stop.set()
        asking.join()
    assert calls[0] > 50
    assert failures == []


def test_incomplete_tls_folder_prevents_startup(platform: Platform, tmp_path: Path) -> None:
    """A service does not start when its TLS folder or clients file is incomplete."""
    folder = Authority().fill(tmp_path / "certificates", "platform.test")
    (folder / "ca.crt").unlink()
    platform.extra |= {"AURUM_RPC_TLS_FOLDER": str(folder), "AURUM_RPC_CLIENTS_FILE": str(tmp_path / "none.yaml")}
    process = platform.start("ingestion", ready=False)
    assert process.popen.wait(20) == 2
    log = process.log.read_text()
    assert "AURUM_RPC_CLIENTS_FILE" in log or "ca.crt" in log
