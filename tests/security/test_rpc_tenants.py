"""Each RPC for each kind of tenant, from one table: who is bound to machines reaches, and learns of, those only."""

import queue
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from aurum.security.permissions import RPCS
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.authority import Authority
from tests.support.platform import Platform
from tests.support.rpc_tenants import (
    CASES,
    CLOSED,
    DENIED,
    DESCRIBED,
    EVERY,
    INGESTION,
    OK,
    SERVERS,
    UNAUTHENTICATED,
    TenantPlant,
    batch,
    event,
)
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


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[TenantPlant]:
    folder = tmp_path_factory.mktemp("rpc-tenants")
    authority = Authority()
    behind = authority.settings(folder, "platform.test", f"clients:{CLIENTS}{LEAVING}")
    running = Platform(folder, extra={**behind, "AURUM_MODEL_DIR": str(models)})
    for service in SERVERS:
        running.start(service)
    found = TenantPlant(running, authority)
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
def test_stranger_calls_no_rpc(plant: TenantPlant, name: str | None) -> None:
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
def test_tenant_calls_what_the_table_opens(plant: TenantPlant, server: str, rpc: str) -> None:
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
def test_pages_of_a_tenant_name_no_other_machine(plant: TenantPlant, server: str) -> None:
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


def test_watch_at_a_gateway_is_silent_about_others(plant: TenantPlant) -> None:
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


def test_client_that_is_removed_is_let_out(plant: TenantPlant) -> None:
    """Who is removed from the file of clients calls nothing any more, and its open streams end, without a restart; a
    file that cannot be read leaves the last clients in force."""
    stub = ingestion_pb2_grpc.IngestionServiceStub(plant.channel("ingestion", "leaving.test"))
    sending: queue.SimpleQueue[ingestion_pb2.IngestRequest | None] = queue.SimpleQueue()
    ingest = stub.Ingest(iter(sending.get, None), timeout=60)
    sending.put(ingestion_pb2.IngestRequest(batch=batch(OWN, "leaving")))
    assert next(ingest).acknowledged == 1
    watch = stub.Watch(ingestion_pb2.WatchRequest(interval_ms=100), timeout=60)
    assert next(watch).machines
    follow = stub.Follow(ingestion_pb2.FollowRequest(interval_ms=50), timeout=60)
    assert all(machine.machine_id.startswith("north-") for machine in next(follow).machines)

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
    for stream in (ingest, watch, follow):
        with pytest.raises(grpc.RpcError) as ended:
            list(stream)
        assert ended.value.code() is UNAUTHENTICATED
    assert code("north.test") is OK
    sending.put(None)
