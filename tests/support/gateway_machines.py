"""Machines behind a gateway that runs as a process. They send through it while it takes readings."""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator

import grpc
import numpy as np

from aurum.readings.batch import Series, encode
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc

SILENCE_RULES = """
rules:
  - {name: silent, text: The machine sends no readings, priority: medium, stale: {after_seconds: 6}}
"""
_PAUSE = 0.5  # seconds


class GatewayMachines:
    """Attributes: sending: the machines that send."""

    def __init__(self, port: int, source: str, machines: Iterable[str]) -> None:
        self.sending = list(machines)
        self._port = port
        self._source = source
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._send, name="gateway-machines", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join(10)

    def _send(self) -> None:
        sequence = 0
        with grpc.insecure_channel(f"127.0.0.1:{self._port}") as channel:
            stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
            while not self._ends.wait(_PAUSE):
                at = np.array([int(time.time() * 1e6)])
                series = [Series(machine, "heat", at, np.array([20.0])) for machine in self.sending]
                sequence += 1
                with contextlib.suppress(grpc.RpcError):  # the gateway was killed
                    stub.Write(ingestion_pb2.WriteRequest(batch=encode(self._source, sequence, series)), timeout=2)


@contextlib.contextmanager
def machines_behind(port: int, source: str, machines: Iterable[str]) -> Iterator[GatewayMachines]:
    """Machines that send through the gateway on a port of this host during the block."""
    running = GatewayMachines(port, source, machines)
    running.start()
    try:
        yield running
    finally:
        running.stop()
