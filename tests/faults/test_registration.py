"""A registration whose caller gives up: what the tables have is what the service shows."""

import contextlib
import sqlite3

import grpc
import pytest

from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.platform import Platform
from tests.support.waiting import wait_for


@pytest.mark.parametrize("known", [False, True], ids=["new", "sends"])
def test_registration_that_outlives_its_caller_is_shown(platform: Platform, known: bool) -> None:
    """A machine whose registration was written after its caller's deadline is there without a restart, and a machine
    that sent before has its type and site."""
    platform.start("ingestion")
    with (
        grpc.insecure_channel(f"127.0.0.1:{platform.port('ingestion')}") as channel,
        contextlib.closing(sqlite3.connect(platform.folder / "store.db", isolation_level=None)) as tables,
    ):
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        if known:
            series = ingestion_pb2.Series(machine_id="m", sensor="s", timestamps_us=[10**15], values=[1.0])
            batch = ingestion_pb2.Batch(source_id="source", sequence=1, series=[series])
            stub.Write(ingestion_pb2.WriteRequest(batch=batch), timeout=10)
        request = ingestion_pb2.RegisterMachineRequest(machine_id="m", machine_type="pump", site="a")
        tables.execute("BEGIN IMMEDIATE")  # nobody else writes until it ends
        with pytest.raises(grpc.RpcError) as given_up:
            stub.RegisterMachine(request, timeout=0.5)
        assert given_up.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        tables.execute("ROLLBACK")

        def shown() -> bool:
            try:
                machine = stub.GetMachine(ingestion_pb2.GetMachineRequest(machine_id="m"), timeout=5).machine
            except grpc.RpcError:
                return False
            return (machine.machine_type, machine.site) == ("pump", "a")

        wait_for(shown, 20, "the registration is shown")
        with pytest.raises(grpc.RpcError) as again:
            stub.RegisterMachine(request, timeout=5)
        assert again.value.code() is grpc.StatusCode.ALREADY_EXISTS
